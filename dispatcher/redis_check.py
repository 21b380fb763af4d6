"""What `dispatcher doctor` asks of Redis, and how it judges the answers.

`look` only reads; everything else is pure. INFO is asked rather than CONFIG, which hosted Redis mostly forbids; what is
not allowed is `None` in what was seen, and a warning in what is found.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import AuthenticationError, BusyLoadingError, InvalidResponse, NoPermissionError, ResponseError
from redis.retry import Retry

from dispatcher.accounts import KEY
from dispatcher.calls import Calls
from dispatcher.durability import way
from dispatcher.errors import ConfigurationError
from dispatcher.findings import Finding, ok, problem, warning
from dispatcher.privacy import one_line
from dispatcher.settings import Settings
from dispatcher.suspensions import Suspension, read

T = TypeVar("T")

#: Seconds that Redis may take for an answer.
TIMEOUT: Final = 5.0

#: Milliseconds of a round trip from which on it is told: a job makes about five of them.
_FAR: Final = 50.0
_PINGS: Final = 5

#: The versions that the scripts are written for.
_REDIS: Final = (6, 2)
_VALKEY: Final = (7, 2)

#: The share of its memory from which on Redis wants a look.
_FULL: Final = 0.7

#: Seconds that two clocks may differ.
_APART: Final = 2.0

#: Bytes of a field up to which a job's hash stays one compact piece.
_PACKED: Final = 1024

#: What each way of losing what was written costs, by `appendfsync`.
_FSYNC: Final = {
    "always": "written to disk with every command",
    "everysec": "written to disk every second, which is what a crash of its machine can lose",
}


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What Redis answered; None where it was not allowed to be asked."""

    ping_ms: float
    #: Seconds that its clock is ahead of ours.
    ahead: float | None = None
    info: dict[str, Any] | None = None
    #: `appendfsync` and `hash-max-ziplist-value`.
    config: dict[str, str] | None = None
    #: Whether a script could be run.
    scripts: bool = True
    #: `d:mode` and `d:hk`: whose jobs it holds.
    owner: list[bytes | None] | None = None
    #: The accounts that workers have ever published.
    published: list[str] | None = None
    #: What is suspended of them.
    suspended: Sequence[Suspension] = ()
    #: Why it does not wait for its disk when asked to; "" where it does.
    unwilling: str = ""


def look(url: str) -> Seen:
    """Ask the Redis at `url` everything, writing nothing. Raises `RedisError`, `OSError` or `ValueError`."""
    options: dict[str, Any] = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}
    with redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options) as client:
        asked: Any = client  # the stubs mix sync and async
        asked.ping()
        names = _allowed(lambda: asked.hkeys(KEY))
        return Seen(
            ping_ms=statistics.median(_timed(asked.ping) for _ in range(_PINGS)),
            ahead=_allowed(lambda: _ahead(asked)),
            info=_allowed(asked.info),
            # One by one: before Redis 7 no more than one may be asked for.
            config=_allowed(lambda: asked.config_get("appendfsync") | asked.config_get("hash-max-ziplist-value")),
            scripts=_allowed(lambda: asked.eval("return 1", 0)) == 1,
            owner=_allowed(lambda: asked.mget("d:mode", "d:hk")),
            published=None if names is None else sorted(name.decode() for name in names),
            suspended=_allowed(lambda: _suspended(asked, names or [])) or (),
            unwilling=_unwilling(asked),
        )


def _unwilling(client: Any) -> str:
    try:
        client.execute_command("WAITAOF", 1, 0, 1000)
    except ResponseError as error:
        return str(error)
    return ""


def _suspended(client: Any, names: Sequence[bytes]) -> list[Suspension]:
    return [
        read(name.decode(), raw) for name in sorted(names) for _, raw in sorted(client.hgetall(b"d:s:" + name).items())
    ]


def addresses(url: str) -> list[str]:
    """Return the addresses that the host of `url` stands for; none for a socket file or a name that is not known."""
    host = _where(url).get("host")
    try:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(host, None)}) if host else []
    except OSError:
        return []


def judged(seen: Seen, settings: Settings) -> Iterator[Finding]:
    """Yield what was found in what was seen."""
    yield reachable(seen.ping_ms, settings.redis_shown)
    if seen.info is None:
        yield warning(
            "redis.info",
            "INFO is not allowed here, so that version, eviction, append-only file and memory cannot be looked at, "
            "nor workers notice that its history went back",
            "allow this user the command INFO (ACL: +info)",
        )
    else:
        yield from (one(seen.info) for one in (version, role, eviction, durability, writes, memory))
    yield from configuration(seen.config)
    if settings.fsync:
        yield promise(seen)
    yield clock(seen.ahead)
    yield scripts(allowed=seen.scripts)
    yield owner(settings, seen.owner)
    for one in seen.suspended:
        yield problem(f"account.{one.provider}", f"account {one.provider}: {one.words}", one.way_out)


# -- the connection ----------------------------------------------------------------------------------------------------


def unreachable(error: Exception, shown: str) -> Finding:
    """Say why the Redis that is shown as `shown` could not be asked anything."""
    causes = [error, *_causes(error)]
    for kind, what, way_out in _WHY:
        if any(isinstance(cause, kind) for cause in causes):
            return problem("redis.reachable", f"Redis at {shown} {what}", way_out)
    words = one_line(str(error))[:200] if isinstance(error, ResponseError) else error.__class__.__name__
    return problem("redis.reachable", f"Redis at {shown} cannot be used: {words}", "correct DISPATCHER_REDIS_URL")


#: What an error means; the first that fits holds.
_WHY: Final[tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str, str], ...]] = (
    (
        AuthenticationError,
        "refuses us: the password is wrong or missing",
        "put it into DISPATCHER_REDIS_URL: redis://:PASSWORD@HOST:PORT/0, or USER:PASSWORD@ for an ACL user",
    ),
    (NoPermissionError, "allows this user nothing, not even PING", "give the user of DISPATCHER_REDIS_URL its rights"),
    (BusyLoadingError, "is still loading its data", "wait for it and ask again"),
    (socket.gaierror, "cannot be found: there is no such name", "correct the host in DISPATCHER_REDIS_URL"),
    (
        ssl.SSLCertVerificationError,
        "shows a TLS certificate that is not trusted here",
        "install its authority's certificate, or name it: DISPATCHER_REDIS_URL=rediss://...?ssl_ca_certs=FILE",
    ),
    (ssl.SSLError, "speaks no TLS that we understand", "write redis:// where it speaks none"),
    ((ConnectionRefusedError, FileNotFoundError), "is not there: nobody listens", "start it, or correct its address"),
    (
        (TimeoutError, redis.TimeoutError),
        f"says nothing for {TIMEOUT:g} s",
        "look whether a firewall is in between, and whether it speaks TLS (rediss://) as DISPATCHER_REDIS_URL says",
    ),
    (
        InvalidResponse,
        "is no Redis: it answers in another language",
        "correct host and port in DISPATCHER_REDIS_URL",
    ),
    (
        (ConnectionError, redis.ConnectionError),
        "closes the connection",
        "look into its log; where it wants TLS, write rediss:// in DISPATCHER_REDIS_URL",
    ),
)


def reachable(ping_ms: float, shown: str) -> Finding:
    """Judge a round trip, in milliseconds."""
    told = f"Redis at {shown} answers in {ping_ms:.1f} ms"
    if ping_ms < _FAR:
        return ok("redis.reachable", told)
    return warning(
        "redis.reachable", f"{told}, and every job asks it several times", "let the workers run closer to it"
    )


def exposure(url: str, addresses: Sequence[str]) -> Iterator[Finding]:
    """Judge what stands between Redis and everybody, from its URL and the addresses that its host stands for."""
    where = _where(url)
    if not any(_is_public(one) for one in addresses):
        if addresses or "path" in where:
            yield ok("redis.exposure", "Redis is not at a public address")
        return
    if not where.get("password"):
        yield problem(
            "redis.exposure",
            "Redis is at a public address and asks us for no password: anybody may read it and send",
            "give it a password (requirepass, or an ACL user) and close its port to others",
        )
    if not url.startswith("rediss:"):
        yield warning(
            "redis.tls",
            "Redis is at a public address, and password and jobs go there unencrypted",
            "let it speak TLS and write rediss:// in DISPATCHER_REDIS_URL",
        )
    elif where.get("password"):
        yield ok("redis.exposure", "Redis is at a public address, behind a password and TLS")


# -- what INFO says ----------------------------------------------------------------------------------------------------


def version(info: Mapping[str, Any]) -> Finding:
    """Judge server and version; Valkey says `redis_version` too, of the Redis that it is like."""
    valkey = info.get("valkey_version")
    name, told, least = ("Valkey", valkey, _VALKEY) if valkey else ("Redis", info.get("redis_version"), _REDIS)
    if told is None:
        return _untold("redis.version", "its version")
    number = tuple(int(digits) for digits in re.findall(r"\d+", str(told))[:2])
    if number >= least:
        return ok("redis.version", f"the server is {name} {told}")
    return problem(
        "redis.version",
        f"the server is {name} {told}, which is too old",
        f"run Redis {'.'.join(map(str, _REDIS))} or Valkey {'.'.join(map(str, _VALKEY))} at least",
    )


def role(info: Mapping[str, Any]) -> Finding:
    """Judge what kind of server it is: one on its own that may be written to."""
    mode = str(info.get("redis_mode") or info.get("server_mode") or "")
    if mode == "cluster" or info.get("cluster_enabled") == 1:
        return problem(
            "redis.role",
            "Redis is a cluster, on which one call cannot change a job and its lists together",
            "use a Redis with cluster mode off",
        )
    if mode == "sentinel":
        return problem("redis.role", "the server is a Sentinel, which keeps no data", "name the Redis that it watches")
    if info.get("role") in {"slave", "replica"}:
        return problem("redis.role", "Redis is a replica, which cannot be written to", "name its primary instead")
    if "role" not in info:
        return _untold("redis.role", "whether it is a replica")
    return ok("redis.role", "Redis is a primary, on its own")


def eviction(info: Mapping[str, Any]) -> Finding:
    """Judge what it does when its memory is full."""
    policy = info.get("maxmemory_policy")
    if policy is None:
        return _untold("redis.eviction", "maxmemory-policy")
    if policy == "noeviction":
        return ok("redis.eviction", "maxmemory-policy is noeviction")
    return problem(
        "redis.eviction",
        f"maxmemory-policy is {policy}: short of memory, Redis would throw jobs away",
        "set maxmemory-policy noeviction, and give others who share it as a cache a Redis of their own",
    )


def durability(info: Mapping[str, Any]) -> Finding:
    """Judge what a restart loses."""
    if "aof_enabled" not in info:
        return _untold("redis.durability", "whether there is an append-only file")
    if info["aof_enabled"]:
        return ok("redis.durability", "Redis keeps an append-only file")
    return problem(
        "redis.durability",
        "Redis keeps no append-only file: a restart loses jobs, and forgets what was sent",
        "set appendonly yes",
    )


def promise(seen: Seen) -> Finding:
    """Judge whether it can say that a write is on the disk, as DISPATCHER_DURABILITY=fsync asks."""
    with_file = {"appendonly": "yes" if (seen.info or {}).get("aof_enabled") else "no"}
    try:
        found = way(seen.unwilling, {**with_file, **(seen.config or {})})
    except ConfigurationError:
        return problem(
            "redis.promise",
            "Redis cannot say that a write is on its disk, as DISPATCHER_DURABILITY=fsync asks",
            "run Redis 7.2 or later or Valkey with appendonly yes, or set appendfsync always",
        )
    return ok("redis.promise", f"what must not be lost is on the disk first ({found})")


def writes(info: Mapping[str, Any]) -> Finding:
    """Judge whether what it keeps reaches the disk."""
    if info.get("aof_last_write_status", "ok") != "ok":
        return problem("redis.writes", "Redis could not write to its append-only file", "look at its disk and its log")
    failed = [
        what
        for field, what in (
            ("rdb_last_bgsave_status", "snapshot"),
            ("aof_last_bgrewrite_status", "rewrite of the append-only file"),
        )
        if info.get(field, "ok") != "ok"
    ]
    if failed:
        return warning(
            "redis.writes", f"the last {' and '.join(failed)} of Redis failed", "look at its disk and its log"
        )
    return ok("redis.writes", "its disk takes what Redis writes")


def memory(info: Mapping[str, Any]) -> Finding:
    """Judge the memory used against what may be used: `maxmemory`, or else all that its machine has."""
    used, limit = info.get("used_memory"), info.get("maxmemory")
    if used is None or limit is None:
        return _untold("redis.memory", "how much memory is used")
    most = limit or info.get("total_system_memory") or 0
    of = f"of {_size(most)}{'' if limit else ' on its machine, with no maxmemory set'}" if most else "with no limit"
    told = f"Redis uses {_size(used)} {of}"
    if not most or used <= _FULL * most:
        return ok("redis.memory", told)
    return warning(
        "redis.memory",
        f"{told} ({used / most:.0%}); full, it takes no job any more",
        "give it more, or keep jobs for a shorter time (DISPATCHER_RETENTION)",
    )


# -- what else it says -------------------------------------------------------------------------------------------------


def configuration(config: Mapping[str, str] | None) -> Iterator[Finding]:
    """Judge what only CONFIG tells."""
    if config is None:
        yield warning(
            "redis.config",
            "CONFIG is not allowed here, so that appendfsync and hash-max-listpack-value cannot be looked at",
            "see to it yourself that appendfsync is everysec; hash-max-listpack-value 1024 saves memory",
        )
        return
    fsync = config.get("appendfsync")
    if fsync in _FSYNC:
        yield ok("redis.fsync", f"appendfsync is {fsync}: {_FSYNC[fsync]}")
    elif fsync:
        yield warning(
            "redis.fsync",
            f"appendfsync is {fsync}: a crash of its machine can lose half a minute of jobs",
            "set appendfsync everysec",
        )
    packed = config.get("hash-max-ziplist-value", "")
    if packed.isdecimal() and int(packed) < _PACKED:
        yield warning(
            "redis.packing",
            f"hash-max-listpack-value is {packed}, with which a job takes a third more memory than it must",
            f"set hash-max-listpack-value {_PACKED} (hash-max-ziplist-value before Redis 7)",
        )


def clock(ahead: float | None) -> Finding:
    """Judge how many seconds Redis' clock is ahead of this machine's."""
    if ahead is None:
        return _untold("redis.clock", "its time")
    if abs(ahead) <= _APART:
        return ok("redis.clock", "the clocks of Redis and of this machine agree")
    return warning(
        "redis.clock",
        f"the clock of Redis is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's: what is "
        "scheduled goes by the one, and is asked for by the other",
        "synchronise both (NTP)",
    )


def scripts(*, allowed: bool) -> Finding:
    """Judge whether scripts may run: each move of a job is one."""
    if allowed:
        return ok("redis.scripts", "Redis runs scripts")
    return problem(
        "redis.scripts",
        "Redis lets us run no scripts, and each move of a job is one",
        "allow this user EVAL and EVALSHA (ACL: +eval +evalsha)",
    )


def owner(settings: Settings, here: Sequence[bytes | None] | None) -> Finding:
    """Judge whether the jobs in this Redis are ours: of our mode, and made with our hash key."""
    if here is None:
        return problem(
            "redis.owner",
            "Redis does not let us read the keys that begin with d:",
            "allow this user our keys (ACL: ~d:* ~disp:*)",
        )
    mode, hash_key = ("" if one is None else one.decode() for one in here)
    call = Calls(settings).enter()
    our_mode, our_key = call.arguments
    try:
        # Each as `lua/enter.lua` would answer, which writes where nobody has entered yet.
        if mode and mode != our_mode:
            call.read([b"MODE", mode.encode()])
        if hash_key and our_key and hash_key != our_key:
            call.read([b"KEY"])
    except ConfigurationError as error:
        what, _, way_out = str(error).rpartition("; ")
        return problem("redis.owner", what, way_out)
    if hash_key and not our_key:
        return warning(
            "redis.owner",
            "the jobs in this Redis were made with a DISPATCHER_HASH_KEY, and none is set here",
            "set the same in every process, or numbers are not found here and no code can be checked",
        )
    return ok(
        "redis.owner",
        f"the jobs in this Redis are ours: {mode} ones" if mode else "there are no jobs in this Redis yet",
    )


# -- words and numbers -------------------------------------------------------------------------------------------------


def _untold(check: str, what: str) -> Finding:
    return warning(check, f"Redis does not tell {what}", "ask whoever runs it; `dispatcher doctor` looks at INFO")


def _allowed(ask: Callable[[], T]) -> T | None:
    """Return the answer, or None where Redis refuses the command."""
    try:
        return ask()
    except ResponseError:
        return None


def _timed(ask: Callable[[], Any]) -> float:
    """Return the milliseconds that an answer takes."""
    began = time.perf_counter()
    ask()
    return (time.perf_counter() - began) * 1000


def _ahead(client: Any) -> float:
    before = time.time()
    seconds, microseconds = client.time()
    return float(seconds + microseconds / 1e6 - (before + time.time()) / 2)


def _where(url: str) -> Mapping[str, Any]:
    """Return host, password, path, ... of a URL as the client reads it; nothing of one that it cannot read."""
    try:
        told: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]  # redis has no types for it
    except ValueError:
        return {}
    return told


def _is_public(address: str) -> bool:
    return ipaddress.ip_address(address).is_global


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _size(count: float) -> str:
    """Return bytes as people read them."""
    for unit in ("bytes", "KB", "MB"):
        if count < 1024:  # noqa: PLR2004 - what a unit is to the next
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GB"
