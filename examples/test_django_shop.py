"""Runs the Django shop's own tests as its developers do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_its_own_tests_pass() -> None:
    """In a process of their own: Django is set up once for all."""
    ended = subprocess.run(
        [sys.executable, "-m", "django", "test", "django_shop"],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "django_shop.settings",
            "DISPATCHER_REDIS_URL": "memory://shop",
            "PYTHONPATH": str(Path(__file__).parent),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Ran 4 tests" in ended.stderr
