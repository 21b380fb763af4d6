"""One typed `Settings`, from the environment (`DISPATCHER_*`), secret files and an optional `dispatcher.toml`.

The environment wins over the file, and both win over what a data folder tells of a server started there.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from dispatcher import inmemory, notices, phone
from dispatcher.budgets import Rule
from dispatcher.budgets import parse as parse_budgets
from dispatcher.errors import ConfigurationError
from dispatcher.guards import USUAL as USUAL_GUARDS
from dispatcher.guards import Guards, Listed, listed, ranges
from dispatcher.guards import parse as parse_guards
from dispatcher.jobs import Category
from dispatcher.privacy import Sealer, keyed_hash
from dispatcher.quiet import Rule as Quiet
from dispatcher.quiet import parse as parse_quiet
from dispatcher.routes import Rule as Route
from dispatcher.routes import parse as parse_routes
from dispatcher.words import Words, chosen

PREFIX: Final = "DISPATCHER_"

#: What `demo` and `up` write into their data folder: Redis' URL, the sandbox's, and the keys.
RUNTIME: Final = "runtime.json"

#: The file of settings, in the folder that a program is started in.
TOML: Final = "dispatcher.toml"

#: What an account may be called: it names queues, and stands in histories.
_ACCOUNT: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

_SCHEMES: Final = {
    "redis_url": ("redis", "rediss", "unix", "memory"),
    # Of what Celery speaks with, what docs/brokers.md has.
    "broker_url": ("redis", "rediss", "redis+socket", "amqp", "amqps", "pyamqp", "memory"),
    "sandbox_url": ("http", "https"),
    "receiver_url": ("http", "https"),
}
_EXAMPLES: Final = {
    "redis_url": "redis://127.0.0.1:6379/0",
    "broker_url": "redis://127.0.0.1:6379/0 or amqp://USER:PASSWORD@127.0.0.1:5672//",
    "callback_broker_url": "redis://127.0.0.1:6379/1",
    "sandbox_url": "http://127.0.0.1:8460",
    "receiver_url": "https://callbacks.example.com",
}

#: The sandbox texts nobody, so its keys need not be secret; they are only there for everything to be sealed as usual.
_SANDBOX_KEY: Final = "the sandbox texts nobody, so this key is public"


#: How pydantic begins to say what is wrong.
_MUST: Final = "Input should be "

_CATEGORIES: Final = (
    f"must be a number above 0 for each of {', '.join(Category)}, like otp=10,transactional=20, or one for all"
)

#: What has a retention of its own: a category, or a kind of job apart from its category.
_KEPT: Final = (*Category, "lookup", "operation")

_RETENTION: Final = (
    "must be a number of seconds above 0 for all jobs, or for some of "
    f"{', '.join(_KEPT)}, like otp=86400,transactional=2592000"
)


class Settings(BaseSettings):
    """All settings, validated. Secrets never show in its repr."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        # A password such as "1e5" or "true" must stay what it is.
        enable_decoding=False,
        toml_file=TOML,
        extra="ignore",
        frozen=True,
        validate_default=False,
        hide_input_in_errors=True,
    )

    #: The job store: redis://USER:PASSWORD@HOST:6379/0, rediss:// with TLS, or unix:///PATH; memory://NAME in tests.
    redis_url: str = Field("", repr=False)
    #: The Celery broker, where it is not the same Redis: amqp://USER:PASSWORD@HOST:5672//
    broker_url: str = Field("", repr=False)
    #: Play the providers: accounts without credentials get the sandbox's, and nobody is texted.
    sandbox: bool = False
    #: Where `dispatcher sandbox` listens, such as http://127.0.0.1:8460.
    sandbox_url: str = ""
    #: Where providers reach `dispatcher receiver`, such as https://callbacks.example.com.
    receiver_url: str = ""
    #: Let `dispatcher up` serve the HTTP API, too: docs/http-api.md.
    api: bool = False
    #: The folder of what `dispatcher demo` and `dispatcher up` start, from where a command is started.
    data: Path = Path(".dispatcher")
    #: What a job must survive: whatever Redis does (redis), or a loss of power too (fsync), which costs time.
    durability: Literal["redis", "fsync"] = "redis"
    #: Seals numbers, texts and results at rest; several, newest first, separated by commas.
    secret_key: SecretStr = SecretStr("")
    #: Hashes numbers and codes. Never rotate it: nothing hashed before would be found again.
    hash_key: SecretStr = SecretStr("")
    #: Signs callbacks: whsec_ and 24 to 64 bytes in base64. Several, separated by commas, all sign: the first is the
    #: newest, the last the next to go.
    callback_secret: SecretStr = SecretStr("")
    #: Who is told of what happens, unless a job names its own: https://hooks.example.com/dispatcher.
    callback_url: str = Field("", repr=False)
    #: What they are told of: types of events, or beginnings of some with a star, separated by commas.
    callback_events: str = "job.*,verification.*,batch.*"
    #: Allow callbacks over http, and to private addresses. The sandbox allows the loopback, with or without it.
    callback_private: bool = False
    #: Seconds that one callback may take, connecting included.
    callback_timeout: float = Field(15, gt=0, le=300)
    #: Requests to one endpoint at once; two at most while it fails.
    callback_concurrency: int = Field(32, gt=0, le=1000)
    #: Tell numbers, texts and results in callbacks whole; those by Celery stay masked.
    callback_reveal: bool = False
    #: The broker of your own Celery app, for callback_task, where it is not ours: redis://HOST:6379/1
    callback_broker_url: str = Field("", repr=False)
    #: The queue of a callback_task that names none.
    callback_queue: str = "celery"
    #: Take card details for purchases: sealed, and erased when the purchase is settled.
    allow_card_data: bool = False
    #: The languages that people text in, separated by commas: whose words for stop, start and help count.
    languages: str = "en"
    #: What a person texts, and nothing beside it, to get no more texts; separated by commas. Unless set, the words of
    #: the languages.
    stop_words: str | None = None
    #: What they text to get them again, likewise.
    start_words: str | None = None
    #: What they text to be told who you are, likewise.
    help_words: str | None = None
    #: What a texted stop covers: all texts, or those of the number (sender) that it was texted to.
    stop_scope: Literal["all", "sender"] = "all"
    #: The one text that confirms a stop; none is sent where it is empty, as all three of these.
    stop_text: str = ""
    #: What confirms that somebody gets texts again.
    start_text: str = ""
    #: What who asks for help is told.
    help_text: str = ""
    #: Send codes to people on the list, too: they ask for them at that moment.
    otp_to_opted_out: bool = False
    #: What may be sent in a day or a month, one cap a rule; separated by semicolons in the environment:
    #: `tenant=* messages=10000/day; country=US money=50 USD/day warn=80%`.
    budgets: list[str] = []
    #: When promotional texts do not go, on the clock of the person, ahead of the built-in table of countries; separated
    #: by semicolons in the environment: `country=FR 20:00-09:00 sat=18:00-10:00 sun holidays; country=IS never`.
    quiet_hours: list[str] = []
    #: The countries that are texted, in ISO 3166, separated by commas, such as GB,US; all where there is none.
    countries: str = ""
    #: How many codes verifications may send to a number, its neighbours, a country and for a caller's key, and when a
    #: prefix whose codes nobody types is closed; separated by semicolons, or off: `number=5/10m,10/1d; key.ip=20/1h`.
    guards: str = USUAL_GUARDS
    #: The countries that codes are sent to, in ISO 3166, separated by commas; all where there is none.
    verify_countries: str = ""
    #: Ranges of numbers that no code is sent to, by what numbering plans call them; or off.
    verify_refuse_types: str = "premium_rate,shared_cost,toll_free"
    #: Numbers that no guard refuses and none counts, and beginnings of numbers with a star, separated by commas.
    test_numbers: str = ""
    #: Numbers, beginnings with a star, and callers' keys (ip:203.0.113.7) that are counted, and that no guard refuses.
    guard_allow: str = ""
    #: Seconds between two codes of one verification.
    resend_after: float = Field(30, ge=0, le=86400)
    #: Segments that one text may have; a longer one is refused. As many as it takes unless set.
    max_segments: int | None = Field(None, gt=0)
    #: The accounts that workers send with, each by its name.
    providers: dict[str, dict[str, SecretStr]] = Field({}, repr=False)

    #: Seconds that a job is kept after it settled, by category or one number for all, such as
    #: otp=86400,transactional=2592000,promotional=604800; lookup= and operation= for these apart from their category.
    retention: float | str = 30.0 * 86400
    #: Seconds that an idempotency key is kept, from when its job can be over; as long as a job unless set.
    idempotency_retention: float | None = Field(None, gt=0)
    #: Seconds that an event is kept.
    events_retention: float = Field(7 * 86400, gt=0)
    #: Seconds that is kept how much was sent on a day, for `dispatcher usage`.
    usage_retention: float = Field(400 * 86400, gt=0)
    #: Send typeset quotes, dashes and the like as plain ones where they alone would double a text's price.
    smart_encoding: bool = False
    #: Seconds that a lookup's answer is remembered, so that the same number costs nothing again; 0 for not at all.
    lookup_lifetime: float = Field(86400, ge=0)
    #: Seconds that a receipt is waited for, and that what became of an unknown job is asked for.
    receipts_within: float = Field(72 * 3600, gt=0)
    #: Seconds one HTTP call may take, connecting included.
    deadline: float = Field(30, gt=0)
    #: Seconds after which a worker that says nothing of a job it claimed is taken for dead.
    lease: float = Field(60, gt=0)
    #: Seconds after which a message that was not taken, though it should have been, is taken for lost.
    lost_after: float = Field(60, gt=0)
    #: Seconds between looks for lost messages, dead workers and passed times.
    sweep_every: float = Field(5, gt=0)
    #: Seconds between looks for jobs that are due.
    tick: float = Field(0.25, gt=0)
    #: Seconds between looks at a suspended account, whether it is mended; ten times that for a missing permission.
    probe_every: float = Field(60, gt=0)
    #: Seconds between a worker's heartbeats.
    heartbeat: float = Field(5, gt=0)
    #: Requests that one worker process has on the wire at most.
    connections: int = Field(400, gt=0)
    #: What this machine's requests leave from, for limits by address; the machine's host name unless set.
    egress_address: str = Field("", pattern=r"^[A-Za-z0-9._:-]{0,255}$")
    #: Jobs that an account's breaker looks at, the latest that ended.
    breaker_sample: int = Field(20, gt=0, le=1000)
    #: The share of errors and timeouts among them that opens it.
    breaker_share: float = Field(0.5, gt=0, le=1)
    #: The share of timeouts among them that is enough.
    breaker_timeouts: float = Field(0.3, gt=0, le=1)
    #: Seconds that it leaves a provider alone before a probe; doubled after each that fails, to a minute at most.
    breaker_pause: float = Field(5, gt=0, le=60)
    #: Attempts at a job before it is given up, by category or one number for all.
    max_attempts: str = "otp=40,transactional=60,promotional=60"
    #: Seconds after a job could first be sent in which it is tried again, likewise; a code no longer than it is valid.
    retry_for: str = "otp=300,transactional=21600,promotional=86400"
    #: Which accounts jobs go to where their caller names none, the first rule that fits; separated by semicolons in the
    #: environment: `category=otp country=GB,IE -> textgoto | mobtexting*3, clubtexting; -> clubtexting`.
    routes: list[str] = []

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: arguments, environment, files named by the environment, TOML, data folder."""
        del dotenv_settings, file_secret_settings
        toml = TomlConfigSettingsSource(settings_cls)
        return init_settings, env_settings, _FileSource(settings_cls), toml, _RuntimeSource(settings_cls)

    @field_validator("redis_url", "broker_url", "sandbox_url", "receiver_url", "callback_broker_url")
    @classmethod
    def _is_url(cls, url: str, told: ValidationInfo) -> str:
        name = told.field_name or ""
        if url and not _well_formed(url, _SCHEMES.get(name, ())):
            raise ValueError(f"is no URL of its kind; write it like {_EXAMPLES[name]}")
        return url

    @field_validator("budgets", mode="before")
    @classmethod
    def _are_rules(cls, told: Any) -> list[str]:
        written = _rules(told, "tenant=* messages=10000/day")
        parse_budgets(written)
        return written

    @field_validator("quiet_hours", mode="before")
    @classmethod
    def _are_hours(cls, told: Any) -> list[str]:
        written = _rules(told, "country=FR 20:00-09:00 sun holidays")
        parse_quiet(written)
        return written

    @field_validator("routes", mode="before")
    @classmethod
    def _are_routes(cls, told: Any) -> list[str]:
        written = _rules(told, "category=otp -> textgoto, clubtexting")
        parse_routes(written)
        return written

    @field_validator("max_attempts", "retry_for", mode="before")
    @classmethod
    def _by_category(cls, told: Any, field: ValidationInfo) -> str:
        words = ",".join(f"{name}={value}" for name, value in told.items()) if isinstance(told, dict) else str(told)
        for number in _each_category(words).values():
            if field.field_name == "max_attempts" and not number.is_integer():
                raise ValueError(_CATEGORIES)
        return words

    @field_validator("retention", mode="before")
    @classmethod
    def _is_retention(cls, told: Any) -> float | str:
        words = ",".join(f"{name}={value}" for name, value in told.items()) if isinstance(told, dict) else str(told)
        kept = _each(words, _KEPT, _RETENTION)
        return words if "=" in words else kept[Category.OTP]

    @field_validator("callback_secret")
    @classmethod
    def _signs(cls, told: SecretStr) -> SecretStr:
        notices.secrets(told.get_secret_value())
        return told

    @field_validator("callback_url")
    @classmethod
    def _can_be_called(cls, url: str) -> str:
        # Over http or not: another setting allows that.
        if url and (why := notices.wrong_url(url, private=True)):
            raise ValueError(why)
        return url

    @field_validator("callback_events")
    @classmethod
    def _are_events(cls, told: str) -> str:
        notices.patterns(told)
        return told

    @field_validator("callback_queue")
    @classmethod
    def _is_queue(cls, told: str) -> str:
        if not notices.is_queue(told):
            raise ValueError("must be the name of a queue, such as celery")
        return told

    @field_validator("guards")
    @classmethod
    def _are_guards(cls, told: str) -> str:
        parse_guards(told)
        return told

    @field_validator("verify_refuse_types")
    @classmethod
    def _are_ranges(cls, told: str) -> str:
        ranges(told)
        return told

    @field_validator("test_numbers", "guard_allow")
    @classmethod
    def _are_numbers(cls, told: str, field: ValidationInfo) -> str:
        listed(told, keys=field.field_name == "guard_allow")
        return told

    @field_validator("countries", "verify_countries")
    @classmethod
    def _are_countries(cls, told: str) -> str:
        for one in _listed(told):
            if not phone.is_country(one):
                raise ValueError(f"names {one!r}, and a country is two letters of ISO 3166; write it like GB,US")
        return told

    @field_validator("languages")
    @classmethod
    def _are_languages(cls, told: str) -> str:
        chosen(told)
        return told

    @field_validator("providers", mode="before")
    @classmethod
    def _text_only(cls, providers: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Take numbers from TOML as the text they are."""
        if not isinstance(providers, dict) or not all(isinstance(one, dict) for one in providers.values()):
            raise ValueError("must be a table of accounts, each a table of its settings")
        for name in providers:
            if not _ACCOUNT.fullmatch(name.lower()):
                raise ValueError(f"holds an account named {name!r}; a name has letters, digits, _ and -")
            if name.lower() == notices.NOTIFY:
                raise ValueError(
                    f"holds an account named {name!r}, which is the queue of callbacks; give it another name, and say "
                    "with adapter which provider it is at"
                )
        return {name.lower(): _as_text(one) for name, one in providers.items()}

    @model_validator(mode="after")
    def _lease_outlives_deadline(self) -> Self:
        if self.lease <= self.deadline:
            raise ValueError(
                f"DISPATCHER_LEASE ({self.lease:g} s) must be longer than DISPATCHER_DEADLINE ({self.deadline:g} s), "
                "or jobs on the wire would be taken for lost"
            )
        return self

    @model_validator(mode="after")
    def _callbacks_are_encrypted(self) -> Self:
        if self.callback_url and (
            why := notices.wrong_url(self.callback_url, private=self.callback_private, loopback=self.sandbox)
        ):
            raise ValueError(f"DISPATCHER_CALLBACK_URL {why}")
        return self

    @model_validator(mode="after")
    def _jobs_outlive_their_keys(self) -> Self:
        if self.keep_idempotency > self.longest_kept:
            raise ValueError(
                f"DISPATCHER_IDEMPOTENCY_RETENTION ({self.keep_idempotency:g} s) must not be longer than "
                f"DISPATCHER_RETENTION ({self.longest_kept:g} s), or a key would name a job that is forgotten"
            )
        return self

    @model_validator(mode="after")
    def _answers_are_no_words(self) -> Self:
        for name in ("stop_text", "start_text", "help_text"):
            if self.words.verdict(getattr(self, name)):
                raise ValueError(
                    f"DISPATCHER_{name.upper()} is one of the words that are answered, and two machines would talk for "
                    "ever; say more"
                )
        return self

    @cached_property
    def attempts(self) -> dict[str, int]:
        """Attempts at a job before it is given up, by category."""
        told = {**self._usual("max_attempts"), **_each_category(self.max_attempts)}
        return {name: int(number) for name, number in told.items()}

    @cached_property
    def retried_for(self) -> dict[str, float]:
        """Seconds in which a job is tried again, by category."""
        return {**self._usual("retry_for"), **_each_category(self.retry_for)}

    @cached_property
    def _kept(self) -> dict[str, float]:
        return _retention(str(self.retention), float(type(self).model_fields["retention"].default))

    @cached_property
    def longest_kept(self) -> float:
        """Seconds that those jobs are kept after they settled which are kept the longest."""
        return max(self._kept.values())

    def kept_for(self, kind: str, category: str) -> float:
        """Return the seconds that a job is kept after it settled."""
        # Another category than its kind's own says more: what judges a code goes with the code.
        usual = self._kept[category]
        return self._kept.get(kind, usual) if category == Category.TRANSACTIONAL else usual

    @classmethod
    def _usual(cls, field: str) -> dict[str, float]:
        return _each_category(cls.model_fields[field].default)

    @cached_property
    def routing(self) -> tuple[Route, ...]:
        """The rules of `DISPATCHER_ROUTES`."""
        return parse_routes(self.routes)

    @cached_property
    def quiet(self) -> tuple[Quiet, ...]:
        """The rules of `DISPATCHER_QUIET_HOURS`."""
        return parse_quiet(self.quiet_hours)

    @cached_property
    def words(self) -> Words:
        """What people text to stop, to start again and to get help."""
        return chosen(self.languages, self.stop_words, self.start_words, self.help_words)

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The rules of `DISPATCHER_BUDGETS`."""
        return parse_budgets(self.budgets)

    @cached_property
    def allowed_countries(self) -> frozenset[str]:
        """The countries that are texted; none stands for all."""
        return frozenset(_listed(self.countries))

    @cached_property
    def guarding(self) -> Guards:
        """The rules of `DISPATCHER_GUARDS`."""
        return parse_guards(self.guards)

    @cached_property
    def verified_countries(self) -> frozenset[str]:
        """The countries that codes are sent to; none stands for all."""
        return frozenset(_listed(self.verify_countries))

    @cached_property
    def refused_types(self) -> frozenset[str]:
        """The ranges of numbers that no code is sent to."""
        return ranges(self.verify_refuse_types)

    @cached_property
    def exempt(self) -> Listed:
        """Whom no guard refuses or counts."""
        return listed(self.test_numbers, keys=False)

    @cached_property
    def favoured(self) -> Listed:
        """Whom no guard refuses."""
        return listed(self.guard_allow, keys=True)

    @property
    def keep_idempotency(self) -> float:
        """Seconds that an idempotency key is kept."""
        return self.longest_kept if self.idempotency_retention is None else self.idempotency_retention

    @property
    def redis(self) -> str:
        """Redis' URL. Raises `ConfigurationError` when there is none."""
        self.require_redis()
        return self.redis_url

    def require_redis(self) -> None:
        """Raise `ConfigurationError` when there is no Redis to talk to."""
        if not self.redis_url:
            raise ConfigurationError(
                "DISPATCHER_REDIS_URL is not set; point it at your Redis, e.g. redis://127.0.0.1:6379/0 "
                "(or run `dispatcher up`, which brings its own; from elsewhere set DISPATCHER_DATA to its .dispatcher)"
            )

    @property
    def in_memory(self) -> bool:
        """Whether the job store is within this process, as in an application's tests."""
        return inmemory.is_memory(self.redis_url)

    @property
    def _texts_nobody(self) -> bool:
        return self.sandbox or self.in_memory

    def require_server(self, what: str) -> None:
        """Raise `ConfigurationError` where `what` would find nobody's jobs, since they are another process's."""
        if self.in_memory:
            raise ConfigurationError(
                f"DISPATCHER_REDIS_URL is memory://, a store within one process, and {what} is another one; point it "
                "at a Redis, e.g. redis://127.0.0.1:6379/0 (in tests dispatcher.testing plays the workers)"
            )

    @property
    def fsync(self) -> bool:
        """Whether what a caller was told, and each claim, must be on the disk before anything follows from it."""
        return self.durability == "fsync" and not self.in_memory

    @property
    def broker(self) -> str:
        """The Celery broker's URL: the same Redis unless told otherwise."""
        return self.broker_url or _as_broker(self.redis)

    @property
    def redis_shown(self) -> str:
        """Redis' address without user or password, for messages."""
        if self.in_memory:
            return self.redis_url
        parts = urlsplit(self.redis_url)
        return f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path

    def sealer(self) -> Sealer:
        """Return what seals payloads with `DISPATCHER_SECRET_KEY`."""
        secret = self.secret_key.get_secret_value() or (_SANDBOX_KEY if self._texts_nobody else "")
        return Sealer([key.strip() for key in secret.split(",") if key.strip()])

    def hashed(self, *parts: str) -> str:
        """Return the keyed hash of `parts`, or "" when there is no `DISPATCHER_HASH_KEY`."""
        key = self.hash_key.get_secret_value() or (_SANDBOX_KEY if self._texts_nobody else "")
        return keyed_hash(key, *parts) if key else ""

    def keyed(self, *parts: str) -> str:
        """Return a hash of `parts`, under `DISPATCHER_HASH_KEY` where there is one.

        For what is not found by it alone: without a key, the request itself lies beside it in clear.
        """
        return self.hashed(*parts) or keyed_hash("", *parts)

    def require_secrets(self, what: str) -> None:
        """Raise `ConfigurationError` where `what` would put a secret into Redis without a key."""
        for name, key in (("SECRET_KEY", self.secret_key), ("HASH_KEY", self.hash_key)):
            if not key.get_secret_value() and not self._texts_nobody:
                raise ConfigurationError(
                    f"DISPATCHER_{name} is not set and {what} carries a secret; "
                    "make one with `openssl rand -base64 32` and give the same to every process"
                )

    def require_hash_key(self, what: str) -> None:
        """Raise `ConfigurationError` where `what` needs a hash key and there is none."""
        if not self.hashed("hash key"):
            raise ConfigurationError(
                f"DISPATCHER_HASH_KEY is not set and {what} needs it; "
                "make one with `openssl rand -base64 32` and give the same to every process"
            )

    def callback_token(self, account: str) -> str:
        """Return what stands in the URL of an account's callbacks: its `CALLBACK_TOKEN`, or what the hash key makes.

        Raises `ConfigurationError` where there is neither.
        """
        own = self.providers.get(account, {}).get("callback_token")
        if own is not None and own.get_secret_value():
            return own.get_secret_value()
        self.require_hash_key("the URL of a callback")
        return self.hashed("callback token", account)

    def account(self, name: str) -> dict[str, str]:
        """Return the settings of one account in clear, for its adapter alone."""
        return {key: value.get_secret_value() for key, value in self.providers.get(name, {}).items()}


def load(**overrides: Any) -> Settings:
    """Return the settings; `overrides` that are None count as not given.

    Raises `ConfigurationError` that names each setting at fault, never its value.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise ConfigurationError("; ".join(_told(one["loc"], one["msg"]) for one in error.errors())) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, PermissionError) as error:
        raise ConfigurationError(_told_of_toml(error)) from None


def usable() -> tuple[Settings, list[str]]:
    """Return the settings with what is at fault left out, and what that is, in the words of `load`; raises nothing.

    For those who go on nevertheless: `dispatcher doctor`, and the demonstration, which heeds hardly any.
    """
    unread = _unreadable()
    faults = dict.fromkeys(unread.values())
    toml = unread.pop(TOML, None)

    class Usable(Settings):
        """In which each fault counts as not given."""

        model_config = SettingsConfigDict(toml_file=None if toml else TOML)

        @field_validator("*", mode="wrap")
        @classmethod
        def _or_default(cls, value: Any, validate: ValidatorFunctionWrapHandler, told: ValidationInfo) -> Any:
            return _as_far_as_valid(told.field_name or "", value, validate, faults)

    apart: dict[str, Any] = {}
    with _unset(unread):
        while True:
            try:
                return Usable(**apart), list(faults)
            except ValidationError as error:
                # Each is well by itself; what does not go together is named in the words.
                words = [_told(one["loc"], one["msg"]) for one in error.errors()]
                named = {name.lower() for name in re.findall(rf"{PREFIX}([A-Z_]+)", " ".join(words))}
                more = {name: field.get_default() for name, field in Settings.model_fields.items() if name in named}
                if more.keys() <= apart.keys():
                    raise
                faults |= dict.fromkeys(words)
                apart |= more


def _as_far_as_valid(name: str, value: Any, validate: ValidatorFunctionWrapHandler, faults: dict[str, None]) -> Any:
    """Return a setting's value, or its default with a word in `faults`; of accounts each by itself."""
    try:
        return validate(value)
    except ValidationError as error:
        if isinstance(value, dict) and len(value) > 1:
            parts = [_as_far_as_valid(name, {key: one}, validate, faults) for key, one in value.items()]
            return {key: one for part in parts for key, one in part.items()}
        faults[_told((name,), error.errors()[0]["msg"])] = None
        return Settings.model_fields[name].get_default()


def secret_files() -> dict[str, Path]:
    """Return the files that the environment names secrets in (`DISPATCHER_SECRET_KEY_FILE`), by variable."""
    return {
        variable: Path(path)
        for variable, path in os.environ.items()
        if variable.upper().startswith(PREFIX) and variable.upper().endswith("_FILE") and path
    }


def _unreadable() -> dict[str, str]:
    """Return what is wrong with files that cannot be read, by variable or name."""
    wrong = {}
    for variable, path in secret_files().items():
        try:
            _read_secret(variable, path)
        except ConfigurationError as error:
            wrong[variable] = str(error)
    try:
        TomlConfigSettingsSource(Settings)
    except (ValueError, PermissionError) as error:
        wrong[TOML] = _told_of_toml(error)
    return wrong


@contextmanager
def _unset(variables: Iterable[str]) -> Iterator[None]:
    """Take variables out of the environment for a while."""
    kept = {name: os.environ.pop(name) for name in variables}
    try:
        yield
    finally:
        os.environ.update(kept)


def _well_formed(url: str, schemes: tuple[str, ...]) -> bool:
    """Say whether a URL has one of `schemes` (any, where none are given) and a port that can be."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for one that is none
        return bool(parts.scheme) and "://" in url and (not schemes or parts.scheme in schemes)
    except ValueError:
        return False


def _as_broker(redis_url: str) -> str:
    """Return Redis' URL as Celery wants it, which has words of its own for a socket file."""
    parts = urlsplit(redis_url)
    if parts.scheme != "unix":
        return redis_url
    told = dict(parse_qsl(parts.query))
    user, password = (told.pop(name, unquote(getattr(parts, name) or "")) for name in ("username", "password"))
    who = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
    database = f"?virtual_host={told['db']}" if "db" in told else ""
    return f"redis+socket://{who}{parts.path}{database}"


def _listed(countries: str) -> list[str]:
    return [one.strip().upper() for one in countries.split(",") if one.strip()]


def _each_category(told: str) -> dict[str, float]:
    """Read `otp=300,transactional=21600`, or one number for all categories."""
    return _each(told, tuple(Category), _CATEGORIES)


@cache
def _retention(told: str, usual: float) -> dict[str, float]:
    """Read `DISPATCHER_RETENTION`: once, since every job asks for it."""
    return {one.value: usual for one in Category} | _each(told, _KEPT, _RETENTION)


def _each(told: str, names: Collection[str], why: str) -> dict[str, float]:
    """Read a number for some of `names`, or one for all. Raises `ValueError` of `why`."""
    pairs = [one.partition("=") for one in told.split(",")]
    read: dict[str, float] = {}
    for name, _, value in pairs if "=" in told else [(one, "=", told) for one in names]:
        try:
            read[name.strip()] = float(value)
        except ValueError:
            raise ValueError(why) from None
    if not read.keys() <= {*names} or not all(0 < number < float("inf") for number in read.values()):
        raise ValueError(why)
    return read


def _rules(told: Any, example: str) -> list[str]:
    """Return rules as a list: the environment parts them by semicolons."""
    rules = told.split(";") if isinstance(told, str) else told
    if not isinstance(rules, list | tuple) or not all(isinstance(one, str) for one in rules):
        raise ValueError(f'must be rules, each a text, such as ["{example}"]')
    return [one.strip() for one in rules if one.strip()]


def _as_text(account: dict[str, Any]) -> dict[str, Any]:
    return {
        key.lower(): value if isinstance(value, str | SecretStr) else str(value)
        for key, value in account.items()
        # What is set to nothing is not set, as a compose file does it.
        if not key.lower().endswith("_file") and value != ""
    }


def _told_of_toml(error: ValueError | PermissionError) -> str:
    return f"{TOML} cannot be read: {error.strerror if isinstance(error, OSError) else f'it is no TOML: {error}'}"


def _told(location: tuple[int | str, ...], message: str) -> str:
    name = "__".join(str(part).upper() for part in location)
    words = message.removeprefix("Value error, ")
    if words.startswith(_MUST):
        # In pydantic's words, which tell no way out.
        usual = Settings.model_fields[str(location[0])].default
        unset = f"{usual:.10g}" if isinstance(usual, int | float) else usual
        must = words.removeprefix(_MUST).partition(", unable")[0].replace("a valid boolean", "0 or 1")
        words = f"must be {must}" + (f"; unset it is {unset}" if isinstance(usual, str | int | float) else "")
    return f"{PREFIX}{name} {words}" if name else words


class _FileSource(PydanticBaseSettingsSource):
    """Settings whose value lies in a file: `DISPATCHER_SECRET_KEY_FILE=/run/secrets/key`."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Unused: the sources are read whole."""
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for variable, path in secret_files().items():
            *tables, leaf = variable.upper().removeprefix(PREFIX).removesuffix("_FILE").lower().split("__")
            place = found
            for table in tables:
                place = place.setdefault(table, {})
            place[leaf] = _read_secret(variable, path)
        return found


class _RuntimeSource(PydanticBaseSettingsSource):
    """What a server started in the data folder left for others to find."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Unused: the sources are read whole."""
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        folder = Path(str(self.current_state.get("data") or Settings.model_fields["data"].default))
        try:
            told: dict[str, Any] = json.loads((folder / RUNTIME).read_text())
        except (OSError, ValueError):
            return {}
        # A server of one's own is not the sandbox's: its keys and its mode stay out of it.
        return told if isinstance(told, dict) and not self.current_state.get("redis_url") else {}


def _read_secret(variable: str, path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{variable} names {path}, which cannot be read: {error.__class__.__name__}") from None
