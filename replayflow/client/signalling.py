"""An event and a start in one: the part of `Client` for instances that begin with what is sent to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, Protocol

from replayflow.client.arguments import event_of
from replayflow.client.handle import Instance
from replayflow.client.starting import signal_with_start
from replayflow.client.views import Views
from replayflow.clock import Clock
from replayflow.codec import Codec
from replayflow.store.base import Create, Outcome, Post


class _Asker(Protocol):
    """What this needs of the client."""

    _clock: Clock
    _codec: Codec
    _views: Views

    def _submit(self, operation: Create | Post) -> Awaitable[Outcome]: ...
    def _name(self, orchestrator: Any) -> tuple[str, str | None]: ...
    def _handle(self, instance_id: str, result_type: Any) -> Instance[Any]: ...


class SignalVerbs:
    """`signal_with_start` of a `Client`."""

    async def signal_with_start(
        self: _Asker,
        orchestrator: Callable[..., Any] | str,
        input: object,
        event: str,
        payload: object = None,
        *,
        instance_id: str,
        version: str | None = None,
        tags: Mapping[str, str] | None = None,
        on_existing: Literal["error", "replace_finished"] = "error",
        dedupe_key: str | None = None,
    ) -> Instance[Any]:
        """The event is durable in the inbox of the instance, which is started for it in the same transaction where there is none; returns its handle.

        Of several callers at once exactly one starts it, and every event is delivered once; `input`, `version` and `tags` are those of the one that
        starts it. Where the instance has finished, `on_existing` says what to do: "error" refuses, "replace_finished" starts it anew. A `dedupe_key`
        that the instance has had before neither delivers nor starts anything again, also after the end.

        Raises:
            UnknownNameError: this client's app has no such orchestrator.
            EncodeError, PayloadTooLargeError: the input or the payload cannot travel.
            InvalidArgumentError: an id, a tag, an event's name, a key or a choice that is none.
            InstanceFinishedError: the instance has finished, and `on_existing` is "error".
        """
        name, default_version = self._name(orchestrator)
        post = signal_with_start(
            self._codec,
            name,
            input,
            event_of(self._codec, event, payload, dedupe_key),
            now=self._clock.now(),
            instance_id=instance_id,
            version=default_version if version is None else version,
            tags=tags,
            on_existing=on_existing,
            dedupe_key=dedupe_key,
        )
        outcome = await self._submit(post)
        if outcome.error is not None:
            raise outcome.error
        return self._handle(
            post.message.instance_id, self._views.result_type(name, default_version if version is None else version)
        )
