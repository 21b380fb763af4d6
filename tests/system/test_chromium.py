"""The browser that other tests look through."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.system.chromium import Chromium

_ENOUGH = threading.Event()


class _Pages(BaseHTTPRequestHandler):
    """Answers each address with an empty page, but never the one that hangs."""

    def do_GET(self) -> None:
        if self.path == "/hangs":
            _ENOUGH.wait(60)
            return
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Tell nobody."""


@pytest.fixture
def site() -> Iterator[str]:
    with ExitStack() as stack:
        server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), _Pages))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)
        stack.callback(_ENOUGH.set)
        yield f"http://127.0.0.1:{server.server_port}"


def test_what_a_page_left_behind_still_asked_for_is_not_waited_for(tmp_path: Path, site: str) -> None:
    with Chromium(tmp_path / "chromium") as browser:
        browser.visit(f"{site}/first")
        browser.run("void fetch('/hangs')")
        browser.visit(f"{site}/second")
        browser.run("void fetch('/hangs')")
        browser.visit(f"{site.replace('127.0.0.1', 'localhost')}/elsewhere")
        assert browser.run("location.pathname") == "/elsewhere"
