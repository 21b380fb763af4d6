"""Messages over another Redis than the one that has the jobs: losing it loses nothing."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from kombu.exceptions import OperationalError

from dispatcher.doctor import examine
from dispatcher.queues import celery_app, depth
from dispatcher.settings import load
from tests.brokers import Broker, OverABroker
from tests.integration.test_transport import certificate
from tests.support import Server


class AnotherRedis(Server):
    def empty(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.flushall()


class TestAnotherRedis(OverABroker):
    @pytest.fixture(scope="class")
    @classmethod
    def broker(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
        with AnotherRedis(tmp_path_factory.mktemp("broker")) as one:
            yield one


class Pretender:
    """A server with a certificate that nobody vouches for; it hears what it is told."""

    def __init__(self, folder: Path) -> None:
        self.heard: list[bytes] = []
        self.certificate = folder / "pretender.pem"
        self.certificate.write_bytes(certificate())
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.certificate)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                plain, _ = self._socket.accept()
                plain.settimeout(5)
                with plain, suppress(OSError), self._context.wrap_socket(plain, server_side=True) as one:
                    self.heard.append(one.recv(1000))

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture
def pretender(tmp_path: Path) -> Iterator[Pretender]:
    one = Pretender(tmp_path)
    yield one
    one.close()


@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
def test_a_broker_that_cannot_prove_who_it_is_is_told_nothing(
    scheme: str, pretender: Pretender, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{scheme}://user:hunter2@127.0.0.1:{pretender.port}/0"
    with celery_app(load(broker_url=url)) as app:
        app.conf.broker_connection_timeout = 4
        with pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
            depth(app, "textgoto")
    monkeypatch.setenv("DISPATCHER_BROKER_URL", url)
    monkeypatch.setattr("dispatcher.doctor._BROKER", 1)
    found = {one.check: one for one in examine(lambda *_: ())}
    assert found["broker.reachable"].status == "problem"
    assert pretender.heard == []

    # Where its certificate is trusted it is told, which shows that it would have been.
    monkeypatch.setenv("SSL_CERT_FILE", str(pretender.certificate))
    with celery_app(load()) as app, suppress(OperationalError):
        app.conf.broker_connection_timeout = 3
        depth(app, "textgoto")
    assert pretender.heard
