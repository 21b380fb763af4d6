"""XML as providers answer it: read without a DTD, names without their namespaces.

The standard library's parser is enough for that. What makes XML from outside dangerous, entities that grow or that
fetch, needs a DTD; none of the vendors' documents shows one, so a document with one is refused before it is parsed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from xml.etree import ElementTree as ET

#: Levels of a document, the outermost counted; the vendors' have five at most.
DEEPEST: Final = 32

#: An entity can be declared within a DTD only, and both words are written in capitals only (XML 1.0, 2.8 and 4.2).
_DTD: Final = ("<!DOCTYPE", "<!ENTITY")

#: `i:nil` and `xsi:nil` are this, whatever the prefix: "the element has no value", where an empty one has "".
_NIL: Final = "{http://www.w3.org/2001/XMLSchema-instance}nil"


def read(body: bytes) -> ET.Element | None:
    """Return the outermost element; None for what is no well-formed XML in UTF-8, has a DTD or is too deep."""
    try:
        # Decoded here, and so never in an encoding that the document chooses: that would hide the words of a DTD.
        # A line break before the declaration, which some servers print, would make it no XML.
        text = body.decode("utf-8-sig").lstrip()
        if any(word in text for word in _DTD):
            return None
        parser = ET.XMLParser(target=_Builder())  # noqa: S314 - entities need a DTD, which was refused above
        return ET.fromstring(text, parser)  # noqa: S314 - as above
    except (ET.ParseError, ValueError):
        return None


def name(element: ET.Element) -> str:
    """Return the element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def is_nil(element: ET.Element) -> bool:
    """Say whether it has no value by `i:nil="true"`; an empty element without that is an empty text."""
    return element.get(_NIL, "").strip() in {"true", "1"}


def text(element: ET.Element) -> str:
    """Return the element's own text, stripped; empty for `<a/>`, `<a></a>` and for nil."""
    return (element.text or "").strip()


def value(element: ET.Element, is_list: Callable[[ET.Element], bool]) -> Any:
    """Return what JSON would have in the element's place: None for nil, all else as text, lists and objects of that.

    `is_list` tells which elements stand for lists, since XML itself does not.
    """
    if is_nil(element):
        return None
    if is_list(element):
        return [value(one, is_list) for one in element]
    return {name(one): value(one, is_list) for one in element} if len(element) else text(element)


class _Builder(ET.TreeBuilder):
    """Builds the tree, and stops where it gets too deep for whoever walks it."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def start(self, tag: str, attrs: dict[str, str], /) -> ET.Element:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValueError("too deep")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> ET.Element:
        self._depth -= 1
        return super().end(tag)
