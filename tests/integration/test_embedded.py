"""The embedded server and its data folder: what `demo`, `up` and all tests of real parts stand on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from dispatcher import ConfigurationError, StoreUnavailable
from dispatcher.embedded import DataFolder, EmbeddedServer, free_port, spawn, stop
from dispatcher.settings import RUNTIME, load
from tests.support import WATCH, Server, listens, until


def connect(server: EmbeddedServer) -> Any:
    return redis.Redis.from_url(server.url)


class TestServer:
    def test_it_starts_and_leaves_no_process_and_no_port(self, tmp_path: Path) -> None:
        with Server(tmp_path / "new" / "folder") as server:
            process = server.process
            with connect(server) as client:
                assert client.set("a", "b")
        assert process is not None
        assert process.poll() == 0
        assert not listens(server.port)

    def test_it_listens_on_the_loopback_alone(self, tmp_path: Path) -> None:
        with Server(tmp_path) as server, connect(server) as client:
            assert client.config_get("bind")["bind"] == "127.0.0.1"

    def test_it_throws_nothing_away_when_memory_is_short(self, tmp_path: Path) -> None:
        """A store of jobs that evicted keys would lose accepted jobs."""
        with Server(tmp_path) as server, connect(server) as client:
            assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"

    def test_a_job_is_one_compact_piece(self, tmp_path: Path) -> None:
        """What a job costs is measured with this; a history of some lines has to fit."""
        with Server(tmp_path) as server, connect(server) as client:
            client.hset("job", mapping={"h": "x" * 1024})
            assert client.object("encoding", "job") == b"listpack"

    def test_what_was_written_survives_a_kill(self, tmp_path: Path) -> None:
        server = Server(tmp_path).start()
        with connect(server) as client:
            client.mset({f"key:{n}": "x" * 100 for n in range(2000)})
            client.set("last", "one")
        server.kill()
        with server, connect(server) as client:
            assert client.get("last") == b"one"
            assert client.dbsize() == 2001

    def test_it_has_started_when_it_has_loaded_everything(self, tmp_path: Path) -> None:
        """It answers some commands, INFO for one, while it still loads its file."""
        server = Server(tmp_path).start()
        many = b"".join(b"SET key:%d %0100d\r\n" % (n, n) for n in range(150_000))
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"CLIENT REPLY OFF\r\n" + many + b"CLIENT REPLY ON\r\nPING\r\n")
            until(lambda: b"+PONG" in client.recv(100), what="the end of the writing")
        server.kill()
        with server, connect(server) as client:
            assert client.info("persistence")["loading"] == 0
            assert client.dbsize() == 150_000

    def test_stopping_twice_or_never_started_is_nothing(self, tmp_path: Path) -> None:
        server = Server(tmp_path)
        server.stop()
        server.start()
        server.stop()
        server.stop()
        server.kill()

    def test_a_port_in_use_is_told_with_the_log(self, tmp_path: Path) -> None:
        with Server(tmp_path / "one") as first:
            second = EmbeddedServer(tmp_path / "two", port=first.port)
            try:
                with pytest.raises(StoreUnavailable, match=r"did not start; its log is .*valkey\.log"):
                    second.start()
                assert second.process is None
            finally:
                second.kill()

    def test_ctrl_c_in_the_terminal_does_not_reach_it(self, tmp_path: Path) -> None:
        """It is stopped last, by its owner: until then workers write outcomes."""
        with Server(tmp_path) as server:
            assert server.process is not None
            assert os.getpgid(server.process.pid) != os.getpgid(0)


class TestDataFolder:
    def test_a_second_owner_is_refused(self, tmp_path: Path) -> None:
        with DataFolder(tmp_path / "data"), pytest.raises(ConfigurationError, match="in use by another dispatcher"):
            DataFolder(tmp_path / "data")

    def test_another_process_is_refused_too(self, tmp_path: Path) -> None:
        told = "import sys; from pathlib import Path; from dispatcher.embedded import DataFolder; DataFolder(Path('.'))"
        with DataFolder(tmp_path):
            second = subprocess.run([sys.executable, "-c", told], cwd=tmp_path, capture_output=True, check=False)
        assert b"in use by another dispatcher" in second.stderr

    def test_it_is_free_once_its_owner_left_or_died(self, tmp_path: Path) -> None:
        with DataFolder(tmp_path):
            pass
        told = (
            "import sys, time; from pathlib import Path; from dispatcher.embedded import DataFolder\n"
            "folder = DataFolder(Path('.')); folder.tell(redis_url='redis://127.0.0.1:1'); time.sleep(60)"
        )
        owner = spawn(["-c", f"import os; os.chdir({str(tmp_path)!r})\n{told}"], {}, tmp_path / "owner.log")
        WATCH.group(owner.pid, "an owner that is killed")
        until((tmp_path / RUNTIME).exists, what="the owner's word")
        os.killpg(owner.pid, signal.SIGKILL)
        owner.wait()
        with DataFolder(tmp_path) as folder:
            assert folder.path == tmp_path.resolve()

    def test_its_keys_stay_and_are_its_owners_alone(self, tmp_path: Path) -> None:
        os.umask(before := os.umask(0))
        try:
            os.umask(0)
            with DataFolder(tmp_path / "data") as folder:
                keys = folder.keys()
                assert folder.keys() == keys
        finally:
            os.umask(before)
        assert (tmp_path / "data" / "keys.json").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
        with DataFolder(tmp_path / "data") as folder:
            assert folder.keys() == keys
        assert set(keys) == {"secret_key", "hash_key"}
        assert all(len(key) >= 32 for key in keys.values())

    def test_what_it_tells_is_found_by_settings_and_gone_with_its_owner(self, tmp_path: Path) -> None:
        with DataFolder(tmp_path / ".dispatcher") as folder:
            folder.tell(redis_url="redis://127.0.0.1:1/0", sandbox=True, sandbox_url="http://127.0.0.1:2")
            assert json.loads((folder.path / RUNTIME).read_text())["sandbox"] is True
            assert (folder.path / RUNTIME).stat().st_mode & 0o777 == 0o600
            found = load()
            assert (found.redis, found.sandbox, found.sandbox_url) == (
                "redis://127.0.0.1:1/0",
                True,
                "http://127.0.0.1:2",
            )
            assert load(redis_url="redis://elsewhere").sandbox is False, "a server of one's own is not the sandbox's"
        with pytest.raises(ConfigurationError, match="DISPATCHER_REDIS_URL is not set"):
            _ = load().redis

    def test_a_folder_that_cannot_be_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigurationError, match=r"DISPATCHER_DATA .*file.* cannot be used"):
            DataFolder(tmp_path / "file" / "data")


class TestProcesses:
    def test_one_that_ignores_term_is_killed_with_its_children(self, tmp_path: Path) -> None:
        told = (
            "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print('there', flush=True)\n"
            "time.sleep(60)"
        )
        one = spawn(["-c", told], {}, tmp_path / "log")
        WATCH.group(one.pid, "one that ignores TERM")
        until(lambda: "there" in (tmp_path / "log").read_text(), what="its start")
        stop([one], patience=0.2)
        assert one.returncode == -signal.SIGKILL
        until(lambda: f"process group {one.pid} (one that ignores TERM)" not in WATCH.left(), what="its child's end")

    def test_a_free_port_is_free(self) -> None:
        assert not listens(free_port())
