"""Durable execution in one SQLite file: generator orchestrations that survive kill -9."""

from replayflow.client import Client, Instance, InstancePage, InstanceState
from replayflow.codec import Codec
from replayflow.core.context import ActivityContext, OrchestrationContext
from replayflow.core.events import HistoryEvent
from replayflow.core.instance import Status
from replayflow.core.tasks import Orchestration, Task, TimerTask, race, when_all, when_any
from replayflow.engine import Limits
from replayflow.errors import (
    ActivityError,
    EntityError,
    FailureDetails,
    InstanceExistsError,
    InstanceFinishedError,
    InstanceNotFoundError,
    NonRetryableError,
    OrchestrationCanceled,
    OrchestrationCancelled,
    OrchestrationFailed,
    OrchestrationTerminated,
    ReplayflowError,
    RetryAfter,
    SubOrchestrationError,
    TaskCanceledError,
    TaskError,
)
from replayflow.hub import TaskHub, run
from replayflow.registry import App
from replayflow.retry import RetryPolicy
from replayflow.store import MemoryStore, SqliteStore

__version__ = "0.1.0"

__all__ = [
    "ActivityContext",
    "ActivityError",
    "App",
    "Client",
    "Codec",
    "EntityError",
    "FailureDetails",
    "HistoryEvent",
    "Instance",
    "InstanceExistsError",
    "InstanceFinishedError",
    "InstanceNotFoundError",
    "InstancePage",
    "InstanceState",
    "Limits",
    "MemoryStore",
    "NonRetryableError",
    "Orchestration",
    "OrchestrationCanceled",
    "OrchestrationCancelled",
    "OrchestrationContext",
    "OrchestrationFailed",
    "OrchestrationTerminated",
    "ReplayflowError",
    "RetryAfter",
    "RetryPolicy",
    "SqliteStore",
    "Status",
    "SubOrchestrationError",
    "Task",
    "TaskCanceledError",
    "TaskError",
    "TaskHub",
    "TimerTask",
    "race",
    "run",
    "when_all",
    "when_any",
]
