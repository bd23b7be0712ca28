"""The instance cannot do that now."""

from __future__ import annotations

from replayflow.errors.base import ReplayflowError
from replayflow.errors.failures import FailureDetails


class StateError(ReplayflowError):
    """The instance is not in a state in which the request makes sense; nothing was changed."""

    code = "RF200"


class InstanceNotFoundError(StateError, LookupError):
    """No instance with that id is in the hub.

    Check the id and the store: `replayflow list --store URL` shows what is there.
    """

    code = "RF201"


class InstanceExistsError(StateError):
    """An instance with that id exists already.

    Choose another id, or say what you want with `on_existing=`: "return", "replace_finished" or "terminate_and_replace".
    """

    code = "RF202"


class InstanceFinishedError(StateError):
    """The instance has finished and takes no more messages.

    Its output and history can still be read; restart it to do the work again, or rewind it where it has failed.
    """

    code = "RF203"


class InvalidStateError(StateError):
    """The verb does not fit the instance's present status, which the message names.

    Only a suspended instance, or a parked one, can be resumed, only one that has not finished can be suspended or terminated, only one that has
    failed can be rewound, and only one that has finished, and whose last activities have all had their run, can be purged. A rewind or a fork to
    where an instance cannot go on says from which event it can.
    """

    code = "RF204"


class NoTransactionError(StateError):
    """What was to become part of a transaction found none: `replayflow.sqlite` commits nothing by itself.

    Execute `BEGIN IMMEDIATE` on the connection, or write your own rows first, then start or signal, then commit.
    """

    code = "RF208"


class OrchestrationEnded(StateError):
    """The base of what `result()` raises when an orchestration ended in any other way than by returning."""

    code = "RF210"


class OrchestrationFailed(OrchestrationEnded):
    """The orchestration ended with an error that it did not catch.

    `.details` has its type, message, stack and causes.
    """

    code = "RF211"

    def __init__(self, message: str, details: FailureDetails) -> None:
        super().__init__(message)
        self.details = details

    def is_caused_by(self, *classes: type[BaseException]) -> bool:
        """Whether the error, or any error that it came from, was one of the classes."""
        return self.details.is_caused_by(*classes)

    def _handed_on(self) -> FailureDetails:
        return self.details


class OrchestrationTerminated(OrchestrationEnded):
    """The orchestration was terminated from outside; the message has the reason that was given."""

    code = "RF212"


class OrchestrationCanceled(OrchestrationEnded):
    """The orchestration ended by a request to cancel; the message has the reason that was given."""

    code = "RF213"


class StuckError(StateError):
    """In a `VirtualHub`, where time passes only while a test waits: nothing is under way and no timer is set, so that the wait would last for ever.

    Raise the event that the instance waits for before you wait for its end; or look at why it is parked.
    """

    code = "RF214"
