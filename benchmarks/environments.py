"""The environments of what is measured beside us, each pinned by a lock of its own, made when they are first needed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.fleet import say

_HERE: Final = Path(__file__).parent

#: Where they are, beside `.venv`; git ignores it.
PLACE: Final = _HERE.parent / ".venv-bench"

#: By name, what each holds. arq needs an older client of Redis than the others.
LOCKS: Final = {"peers": _HERE / "requirements.lock", "arq": _HERE / "requirements-arq.lock"}


def python(name: str) -> Path:
    """Return the interpreter of an environment, which is made or refreshed where its lock says something else."""
    there, lock = PLACE / name, LOCKS[name]
    interpreter, stamp = there / "bin" / "python", there / ".installed"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if interpreter.exists() and stamp.exists() and stamp.read_text() == wanted:
        return interpreter
    say(f"installing {lock.name} into {there.relative_to(PLACE.parent)}")
    shutil.rmtree(there, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", there], check=True)
    pip: list[str | Path] = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", lock], check=True)
    stamp.write_text(wanted)
    return interpreter
