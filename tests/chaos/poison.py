"""A provider of which one job kills the process that touches it: TextGoto's, with a bug."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from dispatcher.jobs import Work
from workers.providers.base import Plan
from workers.providers.textgoto import TextGoto

#: A text that ends with it is deadly.
WORD: Final = "is deadly"

#: What an installed package is to Python: its name, and the entry point that the adapter is found by.
_METADATA: Final = {
    "METADATA": "Metadata-Version: 2.1\nName: poison\nVersion: 1.0\n",
    "entry_points.txt": "[dispatcher.providers]\npoison = tests.chaos.poison:Poison\n",
}


class Poison(TextGoto):
    """One account."""

    name = "poison"

    def build(self, jobs: Sequence[Work]) -> Plan:
        if any(job.text.endswith(WORD) for job in jobs):
            os._exit(66)
        return super().build(jobs)


def installed(folder: Path) -> Mapping[str, str]:
    """Make a folder that Python takes for an installed package; return what the environment needs for it."""
    place = folder / "site" / "poison-1.0.dist-info"
    place.mkdir(parents=True, exist_ok=True)
    for file, text in _METADATA.items():
        (place / file).write_text(text)
    return {"PYTHONPATH": os.pathsep.join([str(place.parent), str(Path(__file__).parents[2])])}
