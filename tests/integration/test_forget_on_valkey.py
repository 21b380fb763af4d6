"""After a person was forgotten the server's files do not know them either, though nothing was ever sealed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
import redis

from dispatcher import Dispatcher, State
from dispatcher.calls import Advance, Calls, Claim, call_name
from dispatcher.optouts import OptOuts, Text
from dispatcher.settings import load
from dispatcher.store import JobStore
from tests.acceptance.test_privacy import on_disk, rewriting
from tests.support import Server, phone, until

NUMBER: Final = phone(123)
OTHER: Final = phone(124)
TEXT: Final = b"Canary-Text-71"
CANARIES: Final = (NUMBER[1:].encode(), TEXT, b"Canary-Ref-23", b"Canary-Result-64")


@pytest.fixture
def d(own_valkey: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dispatcher]:
    """Be an application without a secret key, whose workers are this test."""
    monkeypatch.setattr("dispatcher.client.publish", lambda *_: None)
    settings = load(redis_url=own_valkey.url, hash_key="a hash key", providers={"textgoto": {"uid": "x"}})
    with Dispatcher(settings) as one:
        yield one


def do(d: Dispatcher, id_: str, state: State) -> None:
    """Do a job as a worker does it."""
    store, calls, token = JobStore(d.settings.redis_url, "valkey"), Calls(d.settings), call_name()
    store.run(calls.take(token, [id_]))
    store.run(calls.claim([Claim(token, id_, "never")]))
    fields = {"m": "Canary-Ref-23", "r": '{"name": "Canary-Result-64"}'}
    told = Advance(id=id_, guard=token, state=state, detail="done", tried="accepted Canary-Ref-23", fields=fields)
    assert store.run(calls.advance([told])) == [state]
    store.close()


def found(files: bytes) -> set[bytes]:
    return {one for one in CANARIES if one in files}


def test_no_file_knows_who_was_forgotten(own_valkey: Server, d: Dispatcher) -> None:
    do(d, d.send(NUMBER, TEXT.decode(), reference="Canary-Ref-23").id, State.SENT)
    do(d, d.lookup(NUMBER).id, State.COMPLETED)
    d.send(NUMBER, TEXT.decode(), send_at=time.time() + 86400)
    kept = d.send(OTHER, "Hello")
    said = Text(provider="textgoto", sender=NUMBER, to="1", text=TEXT.decode(), at="", received=1, verdict="out")
    store: Any = JobStore(own_valkey.url, "valkey")
    store.run(OptOuts(d.settings).said(said, "1"))
    with redis.Redis.from_url(own_valkey.url) as client:
        # What is compressed cannot be searched.
        client.config_set("rdbcompression", "no")
        client.save()
        assert found(on_disk(own_valkey)) == {*CANARIES}, "as long as nobody asked for it"

        told = d.forget(NUMBER)
        assert (told.jobs, told.complete, told.file) == (3, True, "rewritten")
        until(lambda: not rewriting(client), what="the file written anew")
        client.save()
    store.close()
    own_valkey.stop()
    assert found(on_disk(own_valkey)) == set()

    own_valkey.start()
    assert d.get(kept.id, reveal=True).to == OTHER
    assert d.opted_out(NUMBER) is not None, "which is kept, hashed"
    assert d.forget(NUMBER).to_dict() | {"file": ""} == {
        **told.to_dict(), "jobs": 0, "cancelled": 0, "events": 0, "keys": 0, "file": "",
    }  # fmt: skip
