"""The front door: a hub that works and can be asked, and the one blocking call."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from replayflow.client import Client, instance_id_for
from replayflow.clock import Clock, SystemClock
from replayflow.codec import Codec
from replayflow.codec.cipher import Cipher
from replayflow.core.context import OrchestrationContext
from replayflow.core.ids import check_instance_id
from replayflow.core.tasks import Orchestration
from replayflow.core.versions import VersioningOptions
from replayflow.engine import Engine, Limits, Retention
from replayflow.errors import HubOwnedError, InvalidArgumentError, UnknownNameError
from replayflow.registry import App, app_of
from replayflow.store import Store, store_at
from replayflow.store.base import Owner

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741
WhenOwned = Literal["error", "wait", "client", "take_over"]
_TAKEOVER_LOOK_SECONDS = 0.1


class TaskHub:
    """A durable store with a worker on it: `async with TaskHub("orders.db", app) as hub`.

    On entry the store is open and a worker runs what the app has; on exit both are closed in good order: running activities get
    `limits.grace` to end, and what has not ended runs again when a worker starts. `hub.client` is a client of the hub.

    `when_owned` says what to do where another process's worker owns the hub: "error" raises `HubOwnedError`, "wait" waits until it is free,
    "client" goes without a worker (`hub.is_worker` tells). "take_over" takes the hub from it, which is for a process that does nothing and that
    nobody can end: it writes nothing any more, and what it was doing is done again here, at the same time if it wakes
    (`docs/decisions/0027-taking-a-hub-by-force.md`).

    An instance runs the code of its version; `versioning` says which versions this worker takes, and what becomes of the others.

    With a `retention` finished instances go when they are old enough; without one all stay.


    Payloads of more than `large_over_bytes` (64 KiB) are kept out of line, once for all who refer to them. With a `cipher` (without one, that of
    `$REPLAYFLOW_CIPHER`) values are sealed before they are stored; a worker without the key parks what it cannot open.

    Where the code no longer fits an instance's history, the instance is parked; with `$REPLAYFLOW_ON_MISMATCH` set to `fail` it fails instead.
    """

    def __init__(
        self,
        store: str | Path | Store | None = None,
        app: App | None = None,
        *,
        when_owned: WhenOwned = "error",
        limits: Limits | None = None,
        codec: Codec | None = None,
        clock: Clock | None = None,
        versioning: VersioningOptions | None = None,
        retention: Retention | None = None,
        large_over_bytes: int | None = None,
        cipher: Cipher | None = None,
    ) -> None:
        if when_owned not in ("error", "wait", "client", "take_over"):
            raise InvalidArgumentError(f"when_owned is {when_owned!r}; it is 'error', 'wait', 'client' or 'take_over'")
        if retention is not None and not isinstance(retention, Retention):
            raise InvalidArgumentError(
                f"retention is {retention!r:.80}; it is a Retention, such as Retention(completed=timedelta(days=7))"
            )
        self._store = store_at(store, large_over_bytes=large_over_bytes, cipher=cipher)
        self._app = app or App()
        self._when_owned = when_owned
        self._limits = limits or Limits()
        self._codec = codec or Codec()
        self._clock = clock or SystemClock()
        self._versioning = versioning
        self._retention = retention
        self._engine: Engine | None = None
        self._running: asyncio.Task[None] | None = None
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """A client of this hub; its calls go through the hub's own worker."""
        if self._client is None:
            raise InvalidArgumentError("the hub is not open: use it inside `async with TaskHub(...) as hub`")
        return self._client

    @property
    def is_worker(self) -> bool:
        """Whether this hub runs instances; false where another worker owns it and `when_owned` is "client"."""
        return self._engine is not None

    async def __aenter__(self) -> Self:
        await self._store.open()
        try:
            epoch = await self._acquire()
            if epoch is not None:
                self._engine = Engine(
                    self._store,
                    self._app,
                    self._codec,
                    epoch,
                    self._limits,
                    self._clock,
                    fails_on_mismatch=_fails_on_mismatch(),
                    versioning=self._versioning,
                    retention=self._retention,
                )
                self._running = asyncio.create_task(self._engine.run(), name="replayflow engine")
        except BaseException:
            await self._store.close()
            raise
        self._client = Client(
            self._store,
            self._app,
            codec=self._codec,
            clock=self._clock,
            door=self._engine,
            default_version=None if self._versioning is None else self._versioning.default_version,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client = None
        engine, self._engine = self._engine, None
        try:
            if engine is not None and self._running is not None:
                try:
                    await engine.stop()
                finally:
                    self._running.cancel()
                    await asyncio.wait([self._running])
                    engine.abandon()
                    if not self._running.cancelled():
                        self._running.exception()  # told through `engine.failure`; here it only counts as seen
        finally:
            await self._store.close()
        if engine is not None and engine.failure is not None and error is None:
            raise engine.failure

    async def serve(self) -> None:
        """Works until it is cancelled, or until the process gets a SIGTERM, which this makes an orderly end where nobody else has seen to it.

        Raises:
            StoreError: the worker has lost its store.
        """
        told_to_end = asyncio.Event()
        with _sigterm_sets(told_to_end):
            ended = asyncio.ensure_future(told_to_end.wait())
            try:
                await asyncio.wait(
                    {ended, self._running} if self._running is not None else {ended}, return_when="FIRST_COMPLETED"
                )
            finally:
                ended.cancel()
        if self._running is not None and self._running.done():
            self._running.result()

    async def _acquire(self) -> int | None:
        owner = Owner(os.getpid(), socket.gethostname(), self._clock.now())
        while True:
            try:
                return await self._store.acquire(owner, by_force=self._when_owned == "take_over")
            except HubOwnedError:
                if self._when_owned == "client":
                    return None
                if self._when_owned != "wait":
                    raise
            await asyncio.sleep(_TAKEOVER_LOOK_SECONDS)


def _fails_on_mismatch() -> bool:
    choice = os.environ.get("REPLAYFLOW_ON_MISMATCH") or "park"
    if choice not in ("park", "fail"):
        raise InvalidArgumentError(f"$REPLAYFLOW_ON_MISMATCH is {choice!r}; it is 'park' or 'fail'")
    return choice == "fail"


@contextmanager
def _sigterm_sets(event: asyncio.Event) -> Iterator[None]:
    """While this lasts a SIGTERM sets the event, unless the program has a handler of its own or is not in the main thread."""
    loop = asyncio.get_running_loop()
    is_ours = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if is_ours:
        try:
            loop.add_signal_handler(signal.SIGTERM, event.set)
        except NotImplementedError:
            is_ours = False  # Windows has no such signal to handle
    try:
        yield
    finally:
        if is_ours:
            loop.remove_signal_handler(signal.SIGTERM)


@overload
def run(
    orchestrator: Callable[[OrchestrationContext, I], Orchestration[T]],
    input: I,
    *,
    store: str | Path | Store | None = None,
    instance_id: str | None = None,
    app: App | None = None,
    timeout: float | timedelta | None = None,
    limits: Limits | None = None,
) -> T: ...
@overload
def run(
    orchestrator: Callable[[OrchestrationContext], Orchestration[T]],
    input: None = None,
    *,
    store: str | Path | Store | None = None,
    instance_id: str | None = None,
    app: App | None = None,
    timeout: float | timedelta | None = None,
    limits: Limits | None = None,
) -> T: ...
@overload
def run(
    orchestrator: Callable[..., Any],
    input: object = None,
    *,
    store: str | Path | Store | None = None,
    instance_id: str | None = None,
    app: App | None = None,
    timeout: float | timedelta | None = None,
    limits: Limits | None = None,
) -> Any: ...


def run(
    orchestrator: Any,
    input: Any = None,
    *,
    store: str | Path | Store | None = None,
    instance_id: str | None = None,
    app: App | None = None,
    timeout: float | timedelta | None = None,
    limits: Limits | None = None,
) -> Any:
    """One orchestration has run to its end; returns its result. Called again after a crash it goes on where it was; after the end it returns at once.

    Without an `instance_id` the instance is the one of this orchestrator with this input. Blocks; inside a running event loop use `TaskHub`.

    Raises:
        UnknownNameError: the function is registered with no app, and `app` is not given.
        EncodeError, PayloadTooLargeError, InvalidArgumentError: the input or the id is none; no store was made.
        OrchestrationFailed, OrchestrationTerminated, TimeoutError: as for `Instance.result`.
    """
    served = app or app_of(orchestrator)
    if served is None:
        raise UnknownNameError(
            f"{getattr(orchestrator, '__name__', orchestrator)!r} is registered with no app: decorate it with @app.orchestrator, or pass app="
        )
    definition = served.orchestrator_named(orchestrator)
    hub = TaskHub(store, served, limits=limits)
    # Before there is a hub: what is refused leaves no file.
    encoded = hub._codec.encode(input, f"input of orchestrator '{definition.name}'")
    id = instance_id_for(definition.name, encoded) if instance_id is None else check_instance_id(instance_id)

    async def main() -> Any:
        async with hub:
            instance = await hub.client.start(orchestrator, input, instance_id=id, on_existing="return")
            return await instance.result(timeout)

    return asyncio.run(main())
