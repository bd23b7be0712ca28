"""The handle of one instance: what can be asked of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any, Generic, Literal, TypeVar, overload

from replayflow.client.access import Access
from replayflow.client.arguments import event_of, seconds
from replayflow.client.forking import UNCHANGED, Changes, ForkCheck, forking, restart
from replayflow.client.purging import purge_one
from replayflow.client.rewinding import rewind
from replayflow.client.tree import Lineage, lineage
from replayflow.client.views import InstanceState, Views
from replayflow.client.waits import Wait
from replayflow.codec import Codec
from replayflow.core import admission, events, rows
from replayflow.core.commit import Ending
from replayflow.core.entity.ids import is_entity_id
from replayflow.core.events import (
    ExecutionCancelRequested,
    ExecutionResumed,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
)
from replayflow.core.instance import COMPLETED, Status
from replayflow.core.map.progress import MapState, MapStates
from replayflow.errors import (
    InstanceFinishedError,
    InvalidArgumentError,
    InvalidStateError,
    OrchestrationCanceled,
    OrchestrationFailed,
    OrchestrationTerminated,
)
from replayflow.store.base import InstanceRecord

T = TypeVar("T")


class Instance(Generic[T]):
    """The handle of one instance: `id`, and everything that can be asked of it."""

    def __init__(self, access: Access, codec: Codec, views: Views, id: str, result_type: Any) -> None:
        self._access = access
        self._codec = codec
        self._views = views
        self._result_type = result_type
        self.id = id

    def __repr__(self) -> str:
        return f"<Instance '{self.id}'>"

    async def status(self) -> InstanceState:
        """The instance as it is now.

        Raises:
            InstanceNotFoundError: there is none with the id. So do all methods of the handle.
        """
        return self._views.state(await self._access.whole_record(await self._access.record(self.id)))

    async def wait(self, timeout: float | timedelta | None = None) -> InstanceState:
        """The instance as it is when it has finished, in whatever way.

        Raises:
            TimeoutError: it has not finished within `timeout` (seconds); it goes on.
        """
        refuse_for_entities(self.id, "wait")
        await self._access.end(self.id, seconds(timeout))
        return await self.status()

    async def result(self, timeout: float | timedelta | None = None) -> T:
        """The output, when the instance has completed.

        Raises:
            OrchestrationFailed: it ended with an error; `.details` has it.
            OrchestrationTerminated, OrchestrationCanceled: it was ended from outside.
            TimeoutError: it has not finished within `timeout` (seconds); it goes on.
        """
        refuse_for_entities(self.id, "result")
        return await self._output(await self._access.end(self.id, seconds(timeout)))

    async def _output(self, end: InstanceRecord | Ending) -> T:
        """What `result` comes to."""
        if end.status is COMPLETED:
            output = await self._access.whole(end.output)
            result: T = self._codec.decode(output, self._type(end), f"result of instance '{self.id}'")
            return result
        match end.status:
            case Status.FAILED:
                assert end.failure is not None  # noqa: S101 - what failed has a failure
                details = rows.decode_failure(end.failure)
                raise OrchestrationFailed(f"instance '{self.id}' failed: {details}", details)
            case Status.CANCELED:
                raise OrchestrationCanceled(f"instance '{self.id}' was cancelled{_because(await self._reason(end))}")
            case _:
                raise OrchestrationTerminated(f"instance '{self.id}' was terminated{_because(await self._reason(end))}")

    async def raise_event(self, name: str, payload: object = None, *, dedupe_key: str | None = None) -> None:
        """The event is durable in the instance's inbox, and reaches whoever waits for its name (case does not matter), now or later.

        Raises:
            InstanceNotFoundError: there is no such instance.
            InstanceFinishedError: it has finished; unless it has had this `dedupe_key` before, which succeeds silently.
            EncodeError, InvalidArgumentError: the payload cannot travel, or the name is none.
        """
        refuse_for_entities(self.id, "raise_event")
        event = event_of(self._codec, name, payload, dedupe_key)
        await self._access.post(self.id, event, is_control=False, dedupe_key=dedupe_key)

    async def suspend(self, reason: str = "") -> None:
        """The orchestrator runs no further until `resume`; what comes for it meanwhile waits.

        Raises:
            InvalidStateError: it has finished, or is suspended already.
        """
        record = await self._open("suspend")
        if record.status is Status.SUSPENDED:
            raise InvalidStateError(f"instance '{self.id}' is suspended already")
        await self._ask("suspend", ExecutionSuspended(self._reasoned(reason)))

    async def resume(self, reason: str = "") -> None:
        """A suspended instance goes on; one that is parked is tried again.

        Raises:
            InvalidStateError: it is not suspended or parked, and no request to suspend it is under way.
        """
        record = await self._open("resume")
        if record.problem is None and record.status is not Status.SUSPENDED and not await self._is_being_suspended():
            raise InvalidStateError(
                f"instance '{self.id}' is {record.status}: only a suspended instance, or a parked one, can be resumed"
            )
        await self._ask("resume", ExecutionResumed(self._reasoned(reason)))

    async def terminate(self, reason: str = "", recursive: bool = True) -> None:
        """The instance ends as soon as a worker sees the request, its running activities are cancelled, and with `recursive` its children end, too.

        Raises:
            InvalidStateError: it has finished.
            InvalidArgumentError: it is an entity, which has no end. So it is for `cancel`, `wait`, `result` and `raise_event`.
        """
        refuse_for_entities(self.id, "terminate")
        if not isinstance(recursive, bool):  # it would be stored as it is, where nobody could read it back
            raise InvalidArgumentError(f"recursive is {recursive!r:.80}; it is True or False")
        await self._open("terminate")
        await self._ask("terminate", ExecutionTerminated(self._reasoned(reason), recursive))

    async def cancel(self, reason: str = "") -> None:
        """`OrchestrationCancelled` is raised at the orchestrator's current yield, so that it can undo what it did.

        Raises:
            InvalidStateError: it has finished.
        """
        refuse_for_entities(self.id, "cancel")
        await self._open("cancel")
        await self._ask("cancel", ExecutionCancelRequested(self._reasoned(reason)), is_control=False)

    async def purge(self, recursive: bool = True) -> int:
        """The instance is gone, with its history and all else, and its id is free; with `recursive` also the finished ones that it started.

        Returns how many instances went: the leaves of the tree first, in batches, so that after a crash in the middle the same call goes on. What it
        started and has not finished stays.

        Raises:
            InvalidStateError: it has not finished, or an activity that it scheduled last has not had its run; nothing was changed.
        """
        refuse_for_entities(self.id, "purge")
        return await purge_one(self._access, self.id, self._access.clock.now(), recursive=recursive)

    # ---- going back

    async def rewind(self, reason: str = "", *, at: int | None = None) -> None:
        """A failed instance goes on from before its failure: what failed runs again, what had completed stays as it is.

        It goes back to before the episode in which the failure was delivered that ended it, or, with `at`, to before the one that has the event of
        that number in `history()`. Of what was scheduled before, results stay, also those that came later, and what failed or has no result runs
        again, with all its attempts and under the same idempotency key; children that failed are rewound, too, and those that still run are
        waited for. What was scheduled after is left behind: activities of it that are at work run to their end, children are asked to cancel.
        Where a saga undid what it had done, it runs again as a whole.

        The instance has a new execution then, which begins with what was kept; the one that failed can be read under its execution id. Id, input,
        tags, parent and keys stay. What the code itself did about the failure, outside of sagas, is not undone.

        Raises:
            InvalidStateError: it has not failed; or it would have to go on where that is impossible: inside a critical section, or where an
                operation of an entity has no known answer. Nothing was changed.
            InvalidArgumentError: there is no event of that number.
        """
        refuse_for_entities(self.id, "rewind")
        _check_event_number(at)
        await rewind(self._access, self.id, reason, at)

    async def restart(
        self,
        *,
        instance_id: str | None = None,
        input: object = UNCHANGED,
        tags: Mapping[str, str] | None = None,
        version: str | None = None,
    ) -> Instance[T]:
        """The same orchestration begins anew, with the input of the present execution or another; returns its handle.

        Under its own id where no other is given: then it must have finished, and the new execution takes its place, as a `start` with
        `on_existing="replace_finished"` does. Name, tags and version stay where no others are given. It is nobody's child.

        Raises:
            InvalidStateError: it is to bear the same id, and has not finished.
            InstanceExistsError: the other id is taken.
            EncodeError, InvalidArgumentError: as for `start`.
        """
        refuse_for_entities(self.id, "restart")
        id = await restart(self._access, self._codec, self.id, Changes(instance_id, input, tags, version))
        return Instance(self._access, self._codec, self._views, id, self._result_type)

    @overload
    async def fork(
        self,
        *,
        at: int | None = None,
        instance_id: str | None = None,
        input: object = UNCHANGED,
        results: Mapping[int, object] | None = None,
        tags: Mapping[str, str] | None = None,
        version: str | None = None,
        reason: str = "",
        execution_id: str | None = None,
        dry_run: Literal[False] = False,
    ) -> Instance[T]: ...
    @overload
    async def fork(
        self,
        *,
        at: int | None = None,
        instance_id: str | None = None,
        input: object = UNCHANGED,
        results: Mapping[int, object] | None = None,
        tags: Mapping[str, str] | None = None,
        version: str | None = None,
        reason: str = "",
        execution_id: str | None = None,
        dry_run: Literal[True],
    ) -> ForkCheck: ...

    @overload
    async def fork(
        self,
        *,
        at: int | None = None,
        instance_id: str | None = None,
        input: object = UNCHANGED,
        results: Mapping[int, object] | None = None,
        tags: Mapping[str, str] | None = None,
        version: str | None = None,
        reason: str = "",
        execution_id: str | None = None,
        dry_run: bool,
    ) -> Instance[T] | ForkCheck: ...

    async def fork(
        self,
        *,
        at: int | None = None,
        instance_id: str | None = None,
        input: object = UNCHANGED,
        results: Mapping[int, object] | None = None,
        tags: Mapping[str, str] | None = None,
        version: str | None = None,
        reason: str = "",
        execution_id: str | None = None,
        dry_run: bool = False,
    ) -> Instance[T] | ForkCheck:
        """A new instance goes on from a point of this one's history, which it has as its own past; returns its handle.

        It keeps what had happened up to the event number `at` of `history()`, that included; without `at` all but the end, or, with `results`,
        all up to the last of these. Of an episode of which the event is not the last, only what came from outside is kept: the code at hand decides
        upon it anew. `results` gives tasks, by their ids, other results; `input` the fork another input. `execution_id` forks a past execution.

        What the kept part has done is not done again: no activity with a result, no child that has ended, no message, no operation of an entity.
        What was under way there is: activities run in the fork, too, and children begin under the fork's own ids. The fork shares what the kept part
        did to the world with its source: what it undoes is undone for both. It is nobody's child, and tells nobody of its end but who asks.

        With `dry_run` nothing is written: returns whether the code of this client's app does what the kept part says, and the first difference.
        A fork that does not fit is parked with that difference.

        Raises:
            InvalidStateError: the event lies inside a critical section, or where an operation of an entity has no known answer.
            InvalidArgumentError: there is no such event or task; another input comes without `at`; a dry run without an app.
            InstanceNotFoundError: there is no such instance or execution.
            InstanceExistsError, EncodeError: as for `start`.
        """
        refuse_for_entities(self.id, "fork")
        _check_event_number(at)
        changes = Changes(instance_id or (self.id if dry_run else None), input, tags, version)
        fork = await forking(self._access, self._codec, self.id, execution_id, at, changes, results or {})
        if not dry_run:
            await fork.write(self._access, reason)
            return Instance(self._access, self._codec, self._views, fork.started.instance_id, self._result_type)
        if self._views.app is None:
            raise InvalidArgumentError("a dry run needs the code: give the client an app, Client(store, app)")
        return fork.check(self._views.app, self._codec)

    async def history(self, execution_id: str | None = None) -> AsyncIterator[HistoryEvent]:
        """The events of the present execution, or of a past one of the instance, in order.

        Inputs and results are values, as they come without an annotation: dataclasses and models as dicts, enums as their values.
        """
        async for event in self._access.history(self.id, execution_id):
            yield self._views.with_values(event)

    async def maps(self) -> list[MapState]:
        """How far each `ctx.map` of the present execution is, in the order in which they were asked for. Reads the instance's history."""
        states = MapStates()
        async for event in self._access.history(self.id, None):
            states.take(event)
        return states.now()

    async def waits(self) -> list[Wait]:
        """What the instance waits for, and since when: first what is not of its own making (no worker, a problem, a suspension, messages that it has
        not taken in), then its tasks in the order in which they were asked for; nothing when it has finished.

        Which events it listens for is known to its code alone: a client with an app runs that over the history, as every replay does, in a thread.
        Reads the instance's history.
        """
        return await self._access.waits(self.id, self._codec, self._views.app)

    async def tree(self, *, depth: int = 10, children_max: int = 20) -> Lineage:
        """The instance with its sub-orchestrations, so many generations deep, and with its ancestors.

        Of each instance at most `children_max` children are shown, those that need a look before those that completed; the others are counted.

        Raises:
            InvalidArgumentError: `depth` or `children_max` is negative.
        """
        if depth < 0 or children_max < 0:
            raise InvalidArgumentError(f"depth is {depth} and children_max {children_max}; neither is less than 0")
        return await lineage(self._access.store, self._views, await self._access.record(self.id), depth, children_max)

    async def _open(self, verb: str) -> InstanceRecord:
        record = await self._access.record(self.id)
        if record.status.is_finished:
            raise InvalidStateError(
                f"instance '{self.id}' has finished, with status {record.status}: there is nothing to {verb}"
            )
        return record

    async def _ask(self, verb: str, request: HistoryEvent, *, is_control: bool = True) -> None:
        """The request is durable. An instance that has ended since it was looked at refuses it like one that had ended before."""
        try:
            await self._access.post(self.id, request, is_control=is_control)
        except InstanceFinishedError as error:
            raise InvalidStateError(f"{error}: there is nothing to {verb}") from None

    async def _is_being_suspended(self) -> bool:
        for loaded in await self._access.store.load([self.id]):
            # An execution that has not begun may have been handed the suspension by the one before.
            told = [loaded.record.start] if loaded.piece_count == 0 else []
            told += [delivery.event for delivery in loaded.inbox if delivery.event is not None]
            if any(isinstance(event, ExecutionSuspended) for encoded in told for event in events.decode(encoded)):
                return True
        # The request may have become history between the two looks.
        return (await self._access.record(self.id)).status is Status.SUSPENDED

    async def _is_being_terminated(self) -> bool:
        """Whether a request to terminate waits that nothing will take the place of."""
        last: HistoryEvent | None = None
        for loaded in await self._access.store.load([self.id]):
            for delivery in loaded.inbox:
                event = None if delivery.event is None else events.decode(delivery.event)[0]
                last = event if isinstance(event, admission.ENDS) else last
        return isinstance(last, ExecutionTerminated)

    def _reasoned(self, reason: str) -> bytes | None:
        return self._codec.encode(reason or None, "reason")

    async def _reason(self, end: InstanceRecord | Ending) -> str:
        reason = self._codec.decode(await self._access.whole(end.output)) if end.output is not None else None
        if reason is None and end.failure is not None:
            return rows.decode_failure(end.failure).message
        return reason if isinstance(reason, str) else ""

    def _type(self, end: InstanceRecord | Ending) -> Any:
        return self._views.result_type(end.name, end.version) if self._result_type is Any else self._result_type


def _check_event_number(at: object) -> None:
    if at is not None and (not isinstance(at, int) or isinstance(at, bool)):
        raise InvalidArgumentError(f"at is {at!r:.80}; it is the number of an event in the history, from 1")


def refuse_for_entities(instance_id: str, verb: str) -> None:
    """
    Raises:
        InvalidArgumentError: the id is that of an entity, for which the verb has no meaning.
    """
    if is_entity_id(instance_id):
        raise InvalidArgumentError(
            f"{verb}: '{instance_id}' is an entity, which has no end and takes no events: signal it, or read it; "
            "where its state has to go, signal it a 'delete'"
        )


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""
