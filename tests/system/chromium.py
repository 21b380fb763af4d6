"""Debian's Chromium without a window, driven over its DevTools protocol through a pipe.

One browser serves many pages: it tells what a page holds once its scripts have filled it, and every answer that came
on the way.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from tests.support import WATCH, clean_environment, until

#: Seconds for anything that is asked of the browser; a loaded machine with two cores needs some of them.
PATIENCE: Final = 30.0

_FLAGS: Final = (
    "--headless",
    "--no-sandbox",  # its own sandbox needs what containers and root do not have; the pages are ours
    "--disable-gpu",
    "--hide-scrollbars",  # they would be on pictures
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
)

#: Chromium reads commands at file descriptor 3 and answers at 4; the numbers of ours are the first two arguments.
_PIPES: Final = """
import fcntl, os, sys
theirs = [fcntl.fcntl(int(one), fcntl.F_DUPFD_CLOEXEC, 10) for one in sys.argv[1:3]]
os.dup2(theirs[0], 3)
os.dup2(theirs[1], 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""

#: All that a page holds: what it is made of, what is shown, what was typed, and what it keeps.
_HELD: Final = """JSON.stringify([
    location.href, document.title, document.documentElement.outerHTML, document.body.innerText, document.cookie,
    [...document.querySelectorAll('input, textarea, select')].map(one => one.value),
    Object.entries(localStorage), Object.entries(sessionStorage),
])"""


class Answer(NamedTuple):
    """What a server answered to the browser."""

    url: str
    status: int
    body: str


class _Open(NamedTuple):
    """A request on its way: its address, its answer's status once that came, and the page that asked for it."""

    url: str
    status: int
    loader: str


class Chromium:
    """One browser with one tab. Use it as a context manager."""

    def __init__(self, folder: Path, width: int = 1200, height: int = 800) -> None:
        """Start it with nothing known, everything it keeps in `folder`; sizes are in pixels."""
        assert shutil.which("chromium"), "there is no Chromium; `make test-system` installs it"
        folder.mkdir(parents=True)
        there, self._commands = os.pipe()
        self._answers, back = os.pipe()
        shim = [sys.executable, "-c", _PIPES, str(there), str(back)]
        with (folder / "chromium.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*shim, "chromium", *_FLAGS, f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank"],
                env={**clean_environment(), "HOME": str(folder)},
                pass_fds=(there, back),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        os.close(there)
        os.close(back)
        WATCH.group(self._process.pid, "chromium")
        self._read = b""
        self._asked = 0
        self._session = ""
        self._loaded = False
        self._open: dict[str, _Open] = {}
        self._finished: list[str] = []
        #: Every answer so far.
        self.answers: list[Answer] = []
        try:
            self._attach(width, height)
        except BaseException:
            self.close()
            raise

    def _attach(self, width: int, height: int) -> None:
        pages = [one for one in self._ask("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        self._session = self._ask("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)["sessionId"]
        self._ask("Page.enable")
        self._ask("Network.enable")
        self.resize(width, height)

    # -- what a person does ------------------------------------------------------------------------------------------

    def authorize(self, name: str, password: str) -> None:
        """Have it say who is asking, in every request from now on."""
        told = base64.b64encode(f"{name}:{password}".encode()).decode()
        self._ask("Network.setExtraHTTPHeaders", headers={"Authorization": f"Basic {told}"})

    def visit(self, url: str) -> None:
        """Open a page and return once it and what its scripts ask for is there."""
        self._loaded = False
        told = self._ask("Page.navigate", url=url)
        assert "errorText" not in told, f"{url}: {told['errorText']}"
        self.settle()

    def follow(self, selector: str) -> None:
        """Click the link that `selector` finds, and return as `visit` does."""
        self._loaded = False
        self.click(selector)
        self.settle()

    def forget(self, url: str) -> None:
        """Forget what pages there had it keep."""
        self._ask("Storage.clearDataForOrigin", origin=url, storageTypes="all")

    def settle(self) -> None:
        """Return once nothing is on its way; raises `TimeoutError`."""
        ends = time.monotonic() + PATIENCE
        while self._open or not self._loaded:
            self._heed(self._message(ends))
            self._collect()
        # What came is drawn in the next frame.
        self.run("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")

    def click(self, selector: str) -> None:
        """Click what `selector` finds."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, selector: str, words: str) -> None:
        """Type into what `selector` finds, in place of what is there."""
        self.run(f"{{ const field = document.querySelector({json.dumps(selector)}); field.focus(); field.select() }}")
        self._ask("Input.insertText", text=words)

    def resize(self, width: int, height: int) -> None:
        """Make the window so large, in pixels."""
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    # -- what is to be seen ------------------------------------------------------------------------------------------

    def text(self) -> str:
        """Return what is shown."""
        return str(self.run("document.body.innerText"))

    def rows(self, table: str) -> list[list[str]]:
        """Return the cells of the rows of the table that a selector finds, as they are shown."""
        cells = "[...row.cells].map(cell => cell.innerText.trim())"
        told: list[list[str]] = self.run(
            f"[...document.querySelectorAll({json.dumps(table + ' tbody tr')})].map(row => {cells})"
        )
        return told

    def held(self) -> str:
        """Return all that the page holds, shown or not."""
        return "\n".join(str(one) for one in json.loads(self.run(_HELD)))

    def run(self, script: str) -> Any:
        """Return what a script on the page answers, as JSON has it."""
        told = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def picture(self, file: Path) -> None:
        """Write the window's picture as PNG."""
        file.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"]))

    # -- the protocol ------------------------------------------------------------------------------------------------

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._asked += 1
        command = {"id": self._asked, "method": method, "params": params}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        ends = time.monotonic() + PATIENCE
        while (told := self._message(ends)).get("id") != self._asked:
            self._heed(told)
        if "error" in told:
            raise LookupError(f"{method}: {told['error']['message']}")
        result: dict[str, Any] = told["result"]
        return result

    def _message(self, ends: float) -> dict[str, Any]:
        """Return the next message; they end with a NUL."""
        while b"\0" not in self._read:
            if not select.select([self._answers], [], [], max(0.0, ends - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium still waits for {[one.url for one in self._open.values()]}")
            piece = os.read(self._answers, 1 << 20)
            assert piece, "Chromium has ended"
            self._read += piece
        message, _, self._read = self._read.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        return told

    def _heed(self, told: dict[str, Any]) -> None:
        """Follow what happens to the page."""
        params = told.get("params", {})
        request = params.get("requestId", "")
        match told.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Page.frameNavigated" if "parentId" not in params["frame"]:
                # What the page before still asked for is dropped without a word of it.
                here = params["frame"]["loaderId"]
                self._open = {request: one for request, one in self._open.items() if one.loader == here}
            case "Network.requestWillBeSent" if not params["request"]["url"].startswith("data:"):
                self._open[request] = _Open(params["request"]["url"], 0, params["loaderId"])
            case "Network.responseReceived" if request in self._open:
                answer = params["response"]
                self._open[request] = _Open(answer["url"], answer["status"], params["loaderId"])
            case "Network.loadingFinished" if request in self._open:
                self._finished.append(request)
            case "Network.loadingFailed":
                self._open.pop(request, None)

    def _collect(self) -> None:
        """Keep the answers that have come whole."""
        while self._finished:
            request = self._finished.pop()
            if request not in self._open:
                continue
            url, status, _ = self._open.pop(request)
            # Another page was opened meanwhile, or there is nothing in it.
            with suppress(LookupError):
                told = self._ask("Network.getResponseBody", requestId=request)
                body = (
                    base64.b64decode(told["body"]).decode(errors="replace") if told["base64Encoded"] else told["body"]
                )
                self.answers.append(Answer(url, status, body))

    def close(self) -> None:
        """End it and what it started."""
        with suppress(AssertionError, LookupError, OSError):
            self._session = ""
            self._ask("Browser.close")
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        os.close(self._commands)
        os.close(self._answers)
        # What it started is not ours to wait for.
        until(self._gone, what="the end of all that Chromium started")

    def _gone(self) -> bool:
        self._process.poll()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return True
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
