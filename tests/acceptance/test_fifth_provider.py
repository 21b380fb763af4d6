"""A provider of somebody else's, added as docs/adding-a-provider.md says, without a change to this repository."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import Deployment, clean_environment, phone

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "tests" / "fifth_provider"
GUIDE: Final = (ROOT / "docs" / "adding-a-provider.md").read_text()
KEY: Final = "canary-key-of-pigeons"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package as anybody would, into a folder of its own; the folder."""
    source, target = tmp_path_factory.mktemp("source") / "package", tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, source)  # building leaves its traces there
    words = ["install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    told = python(["-m", "pip", *words, str(source)], {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}, source)
    assert told.returncode == 0, told.stderr
    return target


def python(
    words: list[str], environment: Mapping[str, str], folder: Path, seconds: float = 100
) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS` in `folder`."""
    return subprocess.run(
        [sys.executable, *words],
        env={**clean_environment(), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


class Pigeons(ThreadingHTTPServer):
    """Pigeon Post: takes what bears the key, and remembers it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Desk)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.messages: list[dict[str, Any]] = []


class _Desk(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Pigeons

    def do_GET(self) -> None:
        self._answer(200, {"corn": 17})

    def do_POST(self) -> None:
        self.server.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer(201, {"id": f"m-{len(self.server.messages)}", "state": "waiting"})

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        if self.headers["Authorization"] != f"Bearer {KEY}":
            status, document = 401, {"error": "bad_key"}
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that its caller has
        """Be quiet."""


@pytest.fixture
def pigeons() -> Iterator[Pigeons]:
    """Play the provider."""
    with Pigeons() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_it_is_found_once_it_is_installed(installed: Path, tmp_path: Path) -> None:
    program = "from workers.adapters import available, shipped; print(sorted({*available()}), *shipped())"
    told = python(["-c", program], {"PYTHONPATH": str(installed)}, tmp_path)
    assert "'pigeonpost'" in told.stdout, told.stderr
    assert "PigeonPost'" not in told.stdout, "the page of this repository's providers is about those"


def test_its_tests_run_the_whole_kit(installed: Path, tmp_path: Path) -> None:
    """Where its authors would run them: with the package installed, and nothing of this repository's settings."""
    for name in ("test_pigeonpost.py", "conftest.py"):
        shutil.copy(PACKAGE / name, tmp_path)
    words = ["-m", "pytest", "-v", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    told = python(words, {"PYTHONPATH": str(installed), "COLUMNS": "200"}, tmp_path)
    assert told.returncode == 0, told.stdout
    from workers.conformance import CHECKS  # noqa: PLC0415 - its asserts are rewritten where it is the subject

    passed = [line for line in told.stdout.splitlines() if "keeps_what_all_adapters_keep" in line and "PASSED" in line]
    assert len(passed) == len(CHECKS)


def test_a_worker_sends_through_it(
    installed: Path, deployment: Deployment, pigeons: Pigeons, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The application has neither adapter nor credentials, and knows what its worker published."""
    monkeypatch.setenv("PYTHONPATH", str(installed))
    account = {"providers__pigeonpost__api_key": KEY, "providers__pigeonpost__base_url": pigeons.url}
    deployment.worker(queues="pigeonpost", name="pigeons", **account)
    monkeypatch.delenv("PYTHONPATH")
    application = deployment.client(providers={})

    sent = application.wait(application.send(phone(1), "Hello", provider="pigeonpost").id, timeout=20)
    assert (sent.state, sent.provider_ref) == ("sent", "m-1")
    assert pigeons.messages == [{"to": phone(1), "text": "Hello", "reference": sent.id}]
    code = application.wait(application.verify(phone(2), provider="pigeonpost").id, timeout=20)
    assert code.state == "sent"
    assert re.fullmatch(r"Your code is [0-9]{6}", pigeons.messages[1]["text"])

    told = command(deployment, tmp_path, "providers")
    assert re.search(r"^ *operation +pigeonpost \(sandbox\)", told, re.MULTILINE)
    assert re.search(r"^ *verify +inferred", told, re.MULTILINE)
    assert "pigeons find people, and say nothing about them" in told
    published = json.loads(command(deployment, tmp_path, "providers", "--json"))
    assert published["schemas"]["send"]["arguments"] == {"at": {"about": "not before: a time in ISO 8601"}}
    assert "Read the corn that is left." in command(deployment, tmp_path, "op", "pigeonpost", "balance", "--help")
    assert json.loads(command(deployment, tmp_path, "op", "pigeonpost", "balance", "--wait", "--json"))["result"] == {
        "balance": "17",
        "available": "17",
        "currency": "corn",
    }


def command(deployment: Deployment, folder: Path, *words: str) -> str:
    """Run `dispatcher WORDS` where the package is not installed; its output."""
    environment = {"DISPATCHER_REDIS_URL": deployment.url, "DISPATCHER_SANDBOX": "1", "COLUMNS": "100"}
    told = python(["-m", "dispatcher.cli", *words], environment, folder, 60)
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_the_guide_shows_pieces_of_it() -> None:
    """So that what it says is what was done."""
    written = [file.read_text() for file in PACKAGE.iterdir() if file.is_file()]
    blocks = re.findall(r"^```(?:python|toml)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    assert [block for block in blocks if not any(block in text for text in written)] == []


def test_the_guide_points_to_what_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", GUIDE) if "://" not in link]
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_nothing_of_it_is_in_the_code() -> None:
    files = [file for folder in ("dispatcher", "workers") for file in (ROOT / folder).rglob("*.py")]
    assert [file.name for file in files if re.search("pigeon ?post", file.read_text(), re.IGNORECASE)] == []
