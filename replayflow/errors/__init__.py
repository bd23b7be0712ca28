"""Everything that can go wrong, as one tree: who must act is the branch, a stable code is the name to look up.

`UserError`: fix the code or the input. `StateError`: the instance cannot do that now. `StoreError`: the durable store refused; retry or call the
operator. `TaskError`: what an orchestrator catches at a `yield`. The docstring of each class is what `replayflow explain CODE` prints.
"""

from replayflow.errors.base import ReplayflowError
from replayflow.errors.catalogue import every, find
from replayflow.errors.failures import (
    CAUSE_DEPTH_MAX,
    MESSAGE_CHARS_MAX,
    NESTED_CHARS_MAX,
    STACK_CHARS_MAX,
    ErrorClass,
    FailureDetails,
    qualified_name,
)
from replayflow.errors.raised import (
    RETRY_AFTER_SECONDS_MAX,
    ActivityCancelled,
    NonRetryableError,
    OrchestrationCancelled,
    RetryAfter,
)
from replayflow.errors.state import (
    InstanceExistsError,
    InstanceFinishedError,
    InstanceNotFoundError,
    InvalidStateError,
    NoTransactionError,
    OrchestrationCanceled,
    OrchestrationEnded,
    OrchestrationFailed,
    OrchestrationTerminated,
    StateError,
    StuckError,
)
from replayflow.errors.store import (
    HubOwnedError,
    LeaseLostError,
    NewerSchemaError,
    NotAHubError,
    StarvedError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreMovedError,
    StoreReadOnlyError,
    StoreUnavailableError,
    starved,
)
from replayflow.errors.tasks import (
    ActivityError,
    EntityError,
    MapError,
    RecordError,
    SubOrchestrationError,
    TaskCanceledError,
    TaskError,
)
from replayflow.errors.user import (
    CipherError,
    CompensationError,
    DecodeError,
    EncodeError,
    EntityStateError,
    ForbiddenStatementError,
    InvalidArgumentError,
    NonDeterminismError,
    NotATaskError,
    OrchestratorError,
    PayloadError,
    PayloadTooLargeError,
    PoisonError,
    RegistrationError,
    ScheduleError,
    SealedError,
    TransactionTimeoutError,
    UnknownNameError,
    UserError,
    VersionMismatchError,
)

__all__ = [
    "CAUSE_DEPTH_MAX",
    "MESSAGE_CHARS_MAX",
    "NESTED_CHARS_MAX",
    "RETRY_AFTER_SECONDS_MAX",
    "STACK_CHARS_MAX",
    "ActivityCancelled",
    "ActivityError",
    "CipherError",
    "CompensationError",
    "DecodeError",
    "EncodeError",
    "EntityError",
    "EntityStateError",
    "ErrorClass",
    "FailureDetails",
    "ForbiddenStatementError",
    "HubOwnedError",
    "InstanceExistsError",
    "InstanceFinishedError",
    "InstanceNotFoundError",
    "InvalidArgumentError",
    "InvalidStateError",
    "LeaseLostError",
    "MapError",
    "NewerSchemaError",
    "NoTransactionError",
    "NonDeterminismError",
    "NonRetryableError",
    "NotAHubError",
    "NotATaskError",
    "OrchestrationCanceled",
    "OrchestrationCancelled",
    "OrchestrationEnded",
    "OrchestrationFailed",
    "OrchestrationTerminated",
    "OrchestratorError",
    "PayloadError",
    "PayloadTooLargeError",
    "PoisonError",
    "RecordError",
    "RegistrationError",
    "ReplayflowError",
    "RetryAfter",
    "ScheduleError",
    "SealedError",
    "StarvedError",
    "StateError",
    "StoreBusyError",
    "StoreCorruptError",
    "StoreError",
    "StoreFullError",
    "StoreMovedError",
    "StoreReadOnlyError",
    "StoreUnavailableError",
    "StuckError",
    "SubOrchestrationError",
    "TaskCanceledError",
    "TaskError",
    "TransactionTimeoutError",
    "UnknownNameError",
    "UserError",
    "VersionMismatchError",
    "every",
    "find",
    "qualified_name",
    "starved",
]


def _name_as_imported() -> None:
    """Histories know an error by this name, for ever; in which file it stands may change."""
    for cls in every():
        cls.__module__ = __name__


_name_as_imported()
