"""What a scenario is, and the register of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import msgspec

#: Plays a scenario in a laboratory: `play(lab, **size)`.
Play = Callable[..., None]


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that goes wrong, and what must hold all the same."""

    name: str
    #: What happens, in a sentence, and what it shows.
    about: str
    proves: str
    play: Play
    #: Its arguments as part of `make chaos`, and as part of `make test`.
    full: Mapping[str, Any]
    short: Mapping[str, Any]
    #: Nothing else runs meanwhile, since it promises how soon something happens.
    alone: bool


#: All that were found, by name.
SCENARIOS: Final[dict[str, Scenario]] = {}


def scenario(
    name: str,
    about: str,
    *,
    proves: str,
    full: Mapping[str, Any] | None = None,
    short: Mapping[str, Any] | None = None,
    alone: bool = False,
) -> Callable[[Play], Play]:
    """Register what it decorates: a function that takes a `Lab` and, as keywords, its size."""

    def register(play: Play) -> Play:
        assert name not in SCENARIOS, f"there are two scenarios called {name}"
        SCENARIOS[name] = Scenario(
            name=name, about=about, proves=proves, play=play, full=full or {}, short=short or full or {}, alone=alone
        )
        return play

    return register


def load() -> Mapping[str, Scenario]:
    """Return the scenarios of all modules in this folder, by name."""
    for file in sorted(Path(__file__).parent.glob("*.py")):
        if not file.stem.startswith("_"):
            import_module(f"tests.chaos.{file.stem}")
    return SCENARIOS
