"""Send texts, verify numbers and look them up, through Celery workers that never lie about what became of it."""

from dispatcher.asynchronous import AsyncBatch, AsyncDispatcher
from dispatcher.batches import Batch, Redriven, Refused
from dispatcher.client import Check, Dispatcher
from dispatcher.errors import (
    ConfigurationError,
    CountryLimited,
    CountryRefused,
    CursorExpired,
    DispatcherError,
    IdempotencyConflict,
    IllegalMove,
    InvalidNumber,
    InvalidRequest,
    KeyLimited,
    NotFound,
    NumberLimited,
    NumberTypeRefused,
    PrefixClosed,
    PrefixLimited,
    ResendTooSoon,
    StoreUnavailable,
    UnknownProvider,
    Unsupported,
    VerificationRefused,
    WaitTimeout,
)
from dispatcher.events import Event
from dispatcher.forgetting import Forgotten
from dispatcher.groups import Delivery, EventGroup
from dispatcher.jobs import Category, Job, Kind, Lane, Message, OnUnknown
from dispatcher.optout_rows import Imported
from dispatcher.optouts import OptOutEntry
from dispatcher.outcomes import Failure, FailureKind
from dispatcher.quiet import Hours
from dispatcher.settings import Settings
from dispatcher.states import State
from dispatcher.verifications import ClosedPrefix

__all__ = [
    "AsyncBatch",
    "AsyncDispatcher",
    "Batch",
    "Category",
    "Check",
    "ClosedPrefix",
    "ConfigurationError",
    "CountryLimited",
    "CountryRefused",
    "CursorExpired",
    "Delivery",
    "Dispatcher",
    "DispatcherError",
    "Event",
    "EventGroup",
    "Failure",
    "FailureKind",
    "Forgotten",
    "Hours",
    "IdempotencyConflict",
    "IllegalMove",
    "Imported",
    "InvalidNumber",
    "InvalidRequest",
    "Job",
    "KeyLimited",
    "Kind",
    "Lane",
    "Message",
    "NotFound",
    "NumberLimited",
    "NumberTypeRefused",
    "OnUnknown",
    "OptOutEntry",
    "PrefixClosed",
    "PrefixLimited",
    "Redriven",
    "Refused",
    "ResendTooSoon",
    "Settings",
    "State",
    "StoreUnavailable",
    "UnknownProvider",
    "Unsupported",
    "VerificationRefused",
    "WaitTimeout",
]
