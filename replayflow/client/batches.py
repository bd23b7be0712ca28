"""Many instances at once: the part of `Client` that starts a batch, sends an event to all of it, and waits for all of it.

What this spares is a task of the event loop for each instance, and the checks that are the same for all. Written it is like any start: many in a
transaction, each accepted or refused on its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, TypeVar, overload

from replayflow.client.access import Access
from replayflow.client.arguments import event_of, seconds
from replayflow.client.handle import Instance, refuse_for_entities
from replayflow.client.starting import creations
from replayflow.client.views import Views
from replayflow.clock import Clock
from replayflow.codec import Codec
from replayflow.core import events
from replayflow.core.commit import Message
from replayflow.core.context import OrchestrationContext
from replayflow.core.tasks import Orchestration
from replayflow.errors import OrchestrationEnded
from replayflow.store.base import OnExisting, Outcome, Post

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741


class _Starter(Protocol):
    """What these verbs need of the client."""

    _access: Access
    _clock: Clock
    _codec: Codec
    _views: Views

    async def _name_and_version(self, orchestrator: Any, version: str | None) -> tuple[str, str | None]: ...
    def _handle(self, instance_id: str, result_type: Any) -> Instance[Any]: ...


class BatchVerbs:
    """`start_many`, `raise_event_to_many` and `results` of a `Client`."""

    @overload
    async def start_many(
        self: _Starter,
        orchestrator: Callable[[OrchestrationContext, I], Orchestration[T]],
        inputs: Iterable[I],
        *,
        instance_ids: Iterable[str] | None = None,
        version: str | None = None,
        start_at: datetime | timedelta | None = None,
        tags: Mapping[str, str] | None = None,
        on_existing: OnExisting = "error",
    ) -> list[Instance[T]]: ...
    @overload
    async def start_many(
        self: _Starter,
        orchestrator: Callable[..., Any] | str,
        inputs: Iterable[object],
        *,
        instance_ids: Iterable[str] | None = None,
        version: str | None = None,
        start_at: datetime | timedelta | None = None,
        tags: Mapping[str, str] | None = None,
        on_existing: OnExisting = "error",
    ) -> list[Instance[Any]]: ...

    async def start_many(
        self: _Starter,
        orchestrator: Any,
        inputs: Iterable[Any],
        *,
        instance_ids: Iterable[str] | None = None,
        version: str | None = None,
        start_at: datetime | timedelta | None = None,
        tags: Mapping[str, str] | None = None,
        on_existing: OnExisting = "error",
    ) -> list[Instance[Any]]:
        """An orchestration for each input is durable and will run; returns their handles, in the order of the inputs.

        What is given besides is as for `start`, and holds for each; `instance_ids` has an id for each. A batch is no transaction: where this raises
        after it began to write, or its process dies, some have been started. With ids of your own and `on_existing="return"` the same call again
        starts those that are missing.

        Raises:
            UnknownNameError, VersionMismatchError, EncodeError, PayloadTooLargeError, InvalidArgumentError: as for `start`; none was started.
            InstanceExistsError: an id is taken, and `on_existing` refuses it. The others were started; a note says how many were not.
        """
        name, version = await self._name_and_version(orchestrator, version)
        ids, creates = creations(
            self._codec,
            name,
            list(inputs),
            now=self._clock.now(),
            instance_ids=None if instance_ids is None else list(instance_ids),
            version=version,
            start_at=start_at,
            tags=tags,
            on_existing=on_existing,
        )
        _raise_first(await self._access.submit_all(creates), "were not started")
        result_type = self._views.result_type(name, version)
        return [self._handle(id, result_type) for id in ids]

    async def raise_event_to_many(
        self: _Starter,
        instances: Iterable[Instance[Any]],
        name: str,
        payload: object = None,
        *,
        dedupe_key: str | None = None,
    ) -> None:
        """The event is durable in the inbox of each of the instances, and reaches whoever waits for its name there, as by `Instance.raise_event`.

        A batch is no transaction: where this raises after it began to write, or its process dies, some have the event. With a `dedupe_key`, which
        each instance knows for itself, the same call again reaches those that do not.

        Raises:
            EncodeError, InvalidArgumentError: the payload cannot travel, or the name is none; nobody has the event.
            InstanceNotFoundError, InstanceFinishedError: the first, in the order of the instances, that does not take it. The others have the event;
                a note says how many have not.
        """
        asked = list(instances)
        for one in asked:
            refuse_for_entities(one.id, "raise_event_to_many")
        encoded = events.encode([event_of(self._codec, name, payload, dedupe_key)])
        posts = (Post(Message(one.id, encoded), dedupe_key) for one in asked)
        _raise_first(await self._access.submit_all(posts), "did not take the event")

    @overload
    async def results(
        self: _Starter,
        instances: Iterable[Instance[T]],
        *,
        timeout: float | timedelta | None = None,
        return_exceptions: Literal[False] = False,
    ) -> list[T]: ...
    @overload
    async def results(
        self: _Starter,
        instances: Iterable[Instance[T]],
        *,
        timeout: float | timedelta | None = None,
        return_exceptions: Literal[True],
    ) -> list[T | OrchestrationEnded]: ...

    async def results(
        self: _Starter,
        instances: Iterable[Instance[Any]],
        *,
        timeout: float | timedelta | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """The outputs of the instances, in their order, when all have completed; each is waited for, as by `Instance.result`.

        With `return_exceptions` the error of an instance that ended otherwise stands in the place of its output.

        Raises:
            OrchestrationFailed, OrchestrationTerminated, OrchestrationCanceled: one ended so; of several, the first in the order of the instances.
            InstanceNotFoundError: there is none with the id of one.
            TimeoutError: they have not all finished within `timeout` (seconds); they go on.
        """
        asked = list(instances)
        for one in asked:
            refuse_for_entities(one.id, "results")
        outputs: list[Any] = []
        try:
            async with (
                asyncio.timeout(seconds(timeout)),
                aclosing(self._access.ends([one.id for one in asked])) as ends,
            ):
                async for end in ends:
                    try:
                        outputs.append(await asked[len(outputs)]._output(end))
                    except OrchestrationEnded as error:
                        if not return_exceptions:
                            raise
                        outputs.append(error)
        except TimeoutError:
            number = len(outputs)
            raise TimeoutError(
                f"not all of the {len(asked):,} instances have finished within the time limit: it ended in the wait for number {number + 1:,}, "
                f"'{asked[number].id}'; they go on"
            ) from None
        return outputs


def _raise_first(outcomes: Sequence[Outcome], what: str) -> None:
    """The first refusal, where there is one, with the number of all of them."""
    refusals = [outcome.error for outcome in outcomes if outcome.error is not None]
    if refusals:
        refusals[0].add_note(f"{len(refusals):,} of {len(outcomes):,} {what}")
        raise refusals[0]
