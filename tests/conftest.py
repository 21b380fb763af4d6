"""What all tests share: nothing of the developer's reaches them, and nothing of theirs is left behind."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from dispatcher import Dispatcher
from tests import support
from tests.support import WATCH, Deployment, Server, clean_environment
from workers.sandbox.client import Sandbox

# Failed assertions of the walk show their values, as those of tests do.
pytest.register_assert_rewrite("tests.walk")

#: Databases of the session's server; 0 is the shared worker's.
_DATABASES = itertools.cycle(range(1, 16))

#: Files whose tests share processes that take long to start, or ports: those with the same word run in one process of
#: xdist's. Its own way to say so, `--dist loadgroup`, does nothing with pytest 9.2 (pytest-xdist 3.8).
TOGETHER: Final = {
    "test_afterwards.py": "afterwards",
    "test_every_operation.py": "every operation",
    "test_vendors_call.py": "vendors call",
    "test_brokers.py": "brokers",
    "test_chaos.py": "chaos",
    "test_demo.py": "demo",
    "test_failpoints.py": "failpoints",
    "test_fifth_provider.py": "fifth provider",
    "test_recovery.py": "recovery",
    "test_starting.py": "starting",
    "test_up.py": "up",
}


def pytest_configure(config: pytest.Config) -> None:
    """Take the developer's settings away before anything reads them."""
    clean = clean_environment()
    for name in set(os.environ) - set(clean):
        del os.environ[name]


class Together(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives each process of xdist's a test at a time, and what shares something dear whole."""

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER.get(nodeid.partition("::")[0].rpartition("/")[2], nodeid)


@pytest.hookimpl(optionalhook=True)  # without xdist there is no such hook
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    return Together(config, log) if config.getoption("dist") == "loadscope" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    for process in WATCH.processes:
        process.seen = process.log.stat().st_size if process.log.exists() else 0
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    done = yield
    WATCH.forget_closed()
    return done


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show what the processes of a failed test said."""
    report: Any = yield
    if report.failed:
        for process in WATCH.processes:
            if process.log.exists() and (news := process.news()):
                report.sections.append((f"output of {process.name}", news))
    return report  # type: ignore[no-any-return]  # a wrapper answers what it was handed


@pytest.fixture(scope="session", autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail where a process or a port of the tests' is still there after all of them."""
    yield
    assert WATCH.left() == []


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start in an empty folder, so that no `dispatcher.toml` and no `.dispatcher` is found."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Share one server; its databases are handed out one by one."""
    with Server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Server]:
    """Run a server that the test may kill."""
    with Server(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def redis_url(valkey: Server) -> Iterator[str]:
    """Hand out an empty database."""
    url = f"redis://127.0.0.1:{valkey.port}/{next(_DATABASES)}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture(scope="session")
def sandbox_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Share one sandbox."""
    with support.sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(sandbox_process: Sandbox) -> Iterator[Sandbox]:
    """Play the providers, with an empty ledger and no fault."""
    sandbox_process.reset()
    yield sandbox_process
    sandbox_process.clear()


@pytest.fixture
def deployment(redis_url: str, sandbox: Sandbox, tmp_path: Path) -> Iterator[Deployment]:
    """Give a test a database of its own and the sandbox; it starts the workers it wants."""
    one = Deployment(redis_url, sandbox, tmp_path)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(scope="session")
def _shared(valkey: Server, sandbox_process: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    broke = {"adapter": "textgoto", "uid": "broke", "pwd": "sandbox"}
    settings = {f"providers__broke__{name}": value for name, value in broke.items()} | {"tick": "0.2"}
    one = Deployment(valkey.url, sandbox_process, tmp_path_factory.mktemp("shared"), settings)
    try:
        one.worker(queues="textgoto,broke", name="shared")
        yield one
    finally:
        one.close()


@pytest.fixture
def running(_shared: Deployment, sandbox: Sandbox) -> Deployment:
    """Share one worker for `textgoto` and for `broke`, an account without money; no job and no fault of other tests."""
    _shared.forget()
    return _shared


@pytest.fixture
def dispatcher(running: Deployment) -> Iterator[Dispatcher]:
    """Be an application beside the shared worker."""
    with running.client() as one:
        yield one
