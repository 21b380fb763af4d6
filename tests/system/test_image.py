"""The image's recipe, followed here step by step: what it installs is enough to run, and no more."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from dispatcher import State
from tests.support import Deployment, phone

ROOT: Final = Path(__file__).parents[2]
RECIPE: Final = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """Follow the RUN and COPY lines of the first stage; return the folder that the second stage copies."""
    with tempfile.TemporaryDirectory() as base:
        source, target = Path(base) / "src", Path(base) / "opt"
        source.mkdir()
        for word, rest in re.findall(
            r"^(COPY|RUN) (.*)$", RECIPE.partition("\nFROM python:3.13-slim\n")[0], re.MULTILINE
        ):
            if word == "COPY":
                *names, place = rest.split()
                for name in names:
                    _copy(ROOT / name, source / place)
            else:
                command = rest.replace("python -m venv", f"{sys.executable} -m venv").replace(
                    "/opt/dispatcher", str(target)
                )
                done = subprocess.run(["sh", "-c", command], cwd=source, capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        yield target


def _copy(what: Path, where: Path) -> None:
    if what.is_dir():
        shutil.copytree(what, where, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(what, where)


def test_it_has_what_it_needs_and_nothing_to_build_or_test_with(installed: Path) -> None:
    there = {one.name for one in (installed / "bin").iterdir()}
    assert {"dispatcher", "celery"} <= there
    assert not {"pip", "pytest", "mypy", "ruff", "django-admin"} & there
    size = sum(file.stat().st_size for file in installed.rglob("*") if file.is_file() and not file.is_symlink())
    assert size < 200e6, "it is to be small"


def test_its_worker_runs_on_it_alone(installed: Path, deployment: Deployment) -> None:
    """With no environment but its settings, no home, and nothing of the project in the current folder."""
    environment = {**deployment.environment, "PATH": f"{installed / 'bin'}:/usr/bin:/bin"}
    with tempfile.TemporaryFile() as log:
        worker = subprocess.Popen(
            ["dispatcher", "worker", "textgoto"],
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            with deployment.client() as dispatcher:
                assert dispatcher.wait(dispatcher.send(phone(1), "Hello").id, timeout=40).state == State.SENT
            health = ["dispatcher", "status", "--worker", "textgoto", "--here"]
            asked = subprocess.run(health, env=environment, cwd="/", capture_output=True, check=False)
            assert asked.returncode == 0
            worker.terminate()
            assert worker.wait(20) == 0
            log.seek(0)
            assert b"Traceback" not in log.read()
        finally:
            worker.kill()
            worker.wait()
