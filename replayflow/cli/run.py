"""run: one orchestration to its end, in this process, with a worker; begun anew or gone on with."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import sys
import time
from datetime import timedelta
from typing import Any

import click

from replayflow.cli import output, values
from replayflow.cli.failures import Interrupted
from replayflow.cli.options import Seconds, given_input, grace_option, input_options, store_options
from replayflow.cli.progress import ProgressLine, count
from replayflow.cli.signals import run_until_signal
from replayflow.cli.target import load_orchestrator
from replayflow.cli.values import InputCodec, JsonText, check_input
from replayflow.client import Instance, instance_id_for
from replayflow.codec import Codec
from replayflow.core.definitions import OrchestratorDefinition
from replayflow.core.ids import check_instance_id
from replayflow.engine import Limits
from replayflow.errors import InstanceExistsError, InstanceNotFoundError, InvalidStateError
from replayflow.hub import TaskHub
from replayflow.registry import App

_LOOK_SECONDS = 0.25
_LOOKING_SHARE = 1 / 20  # of the time, at most, however long the history is
_PARKED_LOOKS = 8


@click.command()
@click.argument("target", metavar="MODULE:ORCHESTRATOR")
@input_options
@click.option("--id", "instance_id", metavar="ID", help="The instance's id.  [default: made of name and input]")
@click.option("--timeout", metavar="SECONDS", type=Seconds(), help="Give up waiting after so long.")
@grace_option
@store_options
def run(
    target: str,
    input: str | None,
    input_file: str | None,
    instance_id: str | None,
    timeout: float | None,
    grace: timedelta,
    store: str | None,
    as_json: bool,
) -> None:
    """Run an orchestration to its end, and print its result.

    The result is JSON. After a crash or Ctrl-C the same command goes on where it was; after the end it prints the result again. MODULE is a
    dotted module or a file: flows:checkout, flows/orders.py:checkout. What the code prints goes to stderr.
    """
    given = given_input(input, input_file)
    app, definition = load_orchestrator(target)
    if given is not None:
        check_input(definition, given)
    id = check_instance_id(instance_id, "--id") if instance_id else default_id(definition, given)
    one = _Run(app, definition, given, id, timeout, grace, store, as_json)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            result = run_until_signal(one.to_its_end(), one.stopping)
    except Interrupted:
        raise Interrupted(_stays(target, id, store) if one.has_started else "nothing was started") from None
    output.document(values.plain(result))


def default_id(definition: OrchestratorDefinition, given: JsonText | None) -> str:
    """The id that `replayflow.run` would give; how the JSON is laid out makes no difference."""
    return instance_id_for(definition.name, Codec().encode(None if given is None else given.value))


class _Run:
    """One run: the hub, the instance, and the line that shows it."""

    def __init__(
        self,
        app: App,
        definition: OrchestratorDefinition,
        given: JsonText | None,
        id: str,
        timeout: float | None,
        grace: timedelta,
        store: str | None,
        as_json: bool,
    ) -> None:
        self._app = app
        self._definition = definition
        self._given = given
        self._id = id
        self._timeout = timeout
        self._grace = grace
        self._store = store
        self._as_json = as_json
        self._line: ProgressLine | None = None
        self.has_started = False

    async def to_its_end(self) -> Any:
        """The result, when the instance has completed and the hub is closed."""
        limits = Limits(grace=self._grace)
        async with TaskHub(self._store, self._app, limits=limits, codec=InputCodec()) as hub:
            if not await self._exists(hub.client.get(self._id)):
                check_input(self._definition, self._given)
            definition = self._definition
            is_newest = self._app.orchestrators[definition.name] is definition
            instance = await hub.client.start(
                definition.name if is_newest else definition.fn,
                self._given,
                instance_id=self._id,
                version=definition.version,
                on_existing="return",
            )
            self.has_started = True
            self._line = ProgressLine() if sys.stderr.isatty() and not self._as_json else None
            try:
                return await self._first(instance.result(self._timeout), self._watch(instance))
            finally:
                self._close_line()

    def stopping(self) -> None:
        """A signal came: the line goes, the person learns what happens now."""
        self._close_line()
        if not self._as_json:
            output.note(
                f"stopping: running activities have {self._grace.total_seconds():g} s to end; again ends at once"
            )

    def _close_line(self) -> None:
        if self._line is not None:
            self._line.close()

    async def _exists(self, instance: Instance[Any]) -> bool:
        try:
            state = await instance.status()
        except InstanceNotFoundError:
            return False
        if state.name != self._definition.name:
            raise InstanceExistsError(
                f"instance '{instance.id}' is one of '{state.name}', not of '{self._definition.name}': choose another --id"
            )
        if not self._as_json:
            what = f"has ended before, {state.status}" if state.status.is_finished else "goes on"
            output.note(f"instance '{instance.id}' {what}; --id gives another")
        return True

    async def _watch(self, instance: Instance[Any]) -> None:
        """Shows how far it is, until cancelled.

        Raises:
            InvalidStateError: the instance is parked, and stays so: only other code can go on with it.
        """
        parked_looks = 0
        while True:
            began = time.monotonic()
            state = await instance.status()
            parked_looks = 0 if state.problem is None else parked_looks + 1
            if parked_looks >= _PARKED_LOOKS:
                raise InvalidStateError(f"instance '{instance.id}' is parked: {state.problem}")
            if self._line is not None:
                self._line.show(state, await count(instance.history()))
            await asyncio.sleep(max(_LOOK_SECONDS, (time.monotonic() - began) / _LOOKING_SHARE))

    async def _first(self, ending: Any, watching: Any) -> Any:
        ended, watched = asyncio.ensure_future(ending), asyncio.ensure_future(watching)
        try:
            await asyncio.wait((ended, watched), return_when=asyncio.FIRST_COMPLETED)
            return (ended if ended.done() else watched).result()
        finally:
            ended.cancel()
            watched.cancel()
            await asyncio.gather(ended, watched, return_exceptions=True)


def _stays(target: str, id: str, store: str | None) -> str:
    command = ["replayflow", "run", target, "--id", id, *([] if store is None else ["--store", store])]
    return f"interrupted; instance '{id}' stays as it is, and goes on with: {shlex.join(command)}"
