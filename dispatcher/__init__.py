"""Send texts, verify numbers and look them up, through Celery workers that never lie about what became of it."""

from dispatcher.batches import Batch, Redriven, Refused
from dispatcher.client import Check, Dispatcher
from dispatcher.errors import (
    ConfigurationError,
    CursorExpired,
    DispatcherError,
    IdempotencyConflict,
    IllegalMove,
    InvalidNumber,
    InvalidRequest,
    NotBuilt,
    NotFound,
    StoreUnavailable,
    UnknownProvider,
    Unsupported,
    WaitTimeout,
)
from dispatcher.events import Event
from dispatcher.jobs import Category, Job, Kind, Lane, Message, OnUnknown
from dispatcher.outcomes import Failure, FailureKind
from dispatcher.settings import Settings
from dispatcher.states import State

__all__ = [
    "Batch",
    "Category",
    "Check",
    "ConfigurationError",
    "CursorExpired",
    "Dispatcher",
    "DispatcherError",
    "Event",
    "Failure",
    "FailureKind",
    "IdempotencyConflict",
    "IllegalMove",
    "InvalidNumber",
    "InvalidRequest",
    "Job",
    "Kind",
    "Lane",
    "Message",
    "NotBuilt",
    "NotFound",
    "OnUnknown",
    "Redriven",
    "Refused",
    "Settings",
    "State",
    "StoreUnavailable",
    "UnknownProvider",
    "Unsupported",
    "WaitTimeout",
]
