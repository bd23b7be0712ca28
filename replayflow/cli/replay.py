"""replay: steps through a past execution with the code at hand.

Nothing is written, no activity runs: the orchestrator's code goes over its history, as a worker would bring it back. What it prints goes to stderr.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from replayflow.cli.debugger import Debugger

from replayflow.archive import transfer
from replayflow.archive.lines import Archived, ArchivedExecution, whole_pieces
from replayflow.archive.verbs import read_export
from replayflow.cli import output, values
from replayflow.cli.access import open_client, shared_store
from replayflow.cli.check import what_next
from replayflow.cli.options import Count, store_options
from replayflow.cli.target import load_app
from replayflow.clock import to_datetime
from replayflow.codec import Codec
from replayflow.core.definitions import Environment, OrchestratorDefinition, version_mismatch
from replayflow.core.entity.ids import is_entity_id
from replayflow.core.events import HistoryEvent, OrchestratorStarted, describe
from replayflow.core.stepping import ReplayedEpisode, replayed
from replayflow.engine.built_in import add_built_ins
from replayflow.errors import InstanceNotFoundError, InvalidArgumentError, UnknownNameError
from replayflow.registry import App, own_names

_VALUE_CHARS_MAX = 200


@click.command()
@click.argument("source", metavar="FILE|ID")
@click.argument("target", metavar="MODULE:APP")
@click.option("--id", "instance_id", metavar="ID", help="Which instance of a file that has several.")
@click.option("--execution", metavar="ID", help="A past execution of the instance.  [default: the last]")
@click.option(
    "--until",
    metavar="EVENT",
    type=Count(min=1),
    help="Stop after the event with this number, and show the variables.",
)
@click.option("--pdb", "debugs", is_flag=True, help="Stop in the debugger, in the code, at --until or where it begins.")
@store_options
def replay(
    source: str,
    target: str,
    instance_id: str | None,
    execution: str | None,
    until: int | None,
    debugs: bool,
    store: str | None,
    as_json: bool,
) -> int:
    """Step through an execution with the code at hand, from a hub or from an export.

    Shows, episode by episode, what came, what the code decided, and at which line it waited then; numbers are those that `history` shows.
    Nothing is changed, and no activity runs. Exits with 1 where the code does not fit the history.
    """
    if debugs and as_json:
        raise InvalidArgumentError("--pdb and --json do not go together: a debugger talks to a person")
    app = add_built_ins(load_app(target))
    archived = _archived(source, instance_id, execution, store)
    part = archived.present
    count = len(part.start) + sum(map(len, part.pieces))
    if until is not None and until > count:
        raise InvalidArgumentError(f"--until is {until}, and the history has {count} events")
    definition = _definition(app, part)
    environment = Environment(
        Codec(payload_bytes_max=sys.maxsize), app.activities, app.orchestrators, entities=app.entities
    )
    pieces = list(whole_pieces(part))
    debugger = _debugger(_arrival(pieces, until or 1)) if debugs else None
    # What a user's code prints must not be taken for what this command says; in the debugger it is the user's own terminal.
    quiet = contextlib.nullcontext() if debugs else contextlib.redirect_stdout(sys.stderr)
    stdout = sys.stdout
    episodes = replayed(definition, part.started, pieces, environment, None if debugger is None else debugger.before)
    shown: list[dict[str, Any]] = []
    last: ReplayedEpisode | None = None
    variables: dict[str, str] = {}
    with quiet, contextlib.closing(episodes):
        for episode in episodes:
            if debugger is not None and debugger.quitting:
                return 0
            last = episode
            if as_json:
                shown.append(_document(episode))
            else:
                _print(episode, lambda line: output.line(line, stdout))
            if until is not None and episode.last >= until and debugger is None:
                variables = {name: _short(value) for name, value in episode.variables().items()}
                break
    return _conclude(archived, last, count, shown if as_json else None, variables)


def _archived(source: str, instance_id: str | None, execution: str | None, store: str | None) -> Archived:
    """The instance, from a file or from the hub; its last execution is the one that is wanted."""
    path = Path(source)
    if path.is_file():
        return _from_file(path, instance_id, execution)
    if instance_id is not None:
        raise InvalidArgumentError(f"--id is for a file, and there is no file {source} in {Path.cwd()}")

    async def read() -> Archived | None:
        async with open_client(store):  # refuses what is no hub, as every command does
            hub = shared_store(store)
            await hub.open()
            try:
                return await transfer.exported(hub, source, execution)
            finally:
                await hub.close()

    found = asyncio.run(read())
    if found is None:
        raise InstanceNotFoundError(
            f"no instance '{source}' is in the hub {shared_store(store).url}, and there is no such file in {Path.cwd()}"
        )
    return found


def _from_file(path: Path, instance_id: str | None, execution: str | None) -> Archived:
    ids: list[str] = []
    wanted: Archived | None = None
    for archived in read_export(path):
        ids.append(archived.id)
        if instance_id in (None, archived.id):
            wanted = archived if wanted is None else wanted
    if wanted is None or (instance_id is None and len(ids) > 1):
        listed = ", ".join(ids[:10]) + (", ..." if len(ids) > 10 else "")
        if instance_id is not None and ids:
            raise InstanceNotFoundError(f"{path} has no instance '{instance_id}'; it has {listed}")
        raise InvalidArgumentError(
            f"{path} has {len(ids)} instances; say which one with --id: {listed}" if ids else f"{path} has no instance"
        )
    if execution is not None:
        transfer.check_execution(wanted.id, execution, [one.id for one in wanted.executions])
        wanted.executions = [one for one in wanted.executions if one.id == execution]
    return wanted


def _definition(app: App, execution: ArchivedExecution) -> OrchestratorDefinition:
    name = execution.started.name
    if is_entity_id(execution.started.instance_id):
        raise InvalidArgumentError(
            f"'{execution.started.instance_id}' is an entity, which has no code that waits; `replayflow history` shows its operations"
        )
    if name not in app.orchestrators:
        raise UnknownNameError(
            f"the app has no orchestrator '{name}'; it has {', '.join(own_names(app.orchestrators)) or 'none'}"
        )
    version = execution.started.version
    definition = app.orchestrators.serving(name, version)
    if definition is None:
        raise version_mismatch(app.orchestrators, name, version)
    return definition


def _debugger(number: int) -> Debugger:
    from replayflow.cli.debugger import Debugger  # slow to import, and rarely wanted

    return Debugger(number)


def _arrival(pieces: Sequence[Sequence[HistoryEvent]], number: int) -> int:
    """The event that brought the code to do what stands at the number: itself, where it came from outside, or the last before it that did."""
    arrivals = [at for at, event in enumerate(chain.from_iterable(pieces), 1) if not event.is_decision]
    arrivals = [at for at in arrivals if at > 1] or [1]  # the first is a time, which the code does not hear of
    return max((at for at in arrivals if at <= number), default=arrivals[0])


# ---- what is said ----------------------------------------------------------------------------------------------


def _print(episode: ReplayedEpisode, say: Callable[[str], None]) -> None:
    began = episode.events[0]
    at = f"{to_datetime(began.now_microseconds):%H:%M:%S.%f}"[:-3] if isinstance(began, OrchestratorStarted) else ""
    say(f"events {episode.first} to {episode.last}, {at} UTC")
    for number, event in enumerate(episode.events[1:], episode.first + 1):
        say(f"  {number:>5}  {'decides' if event.is_decision else 'came   '}  {_what(event)}")
    if episode.stands is not None:
        say(f"         {episode.stands}")


def _what(event: HistoryEvent) -> str:
    """The event in words: a decision with its line, what came with its value."""
    if event.is_decision:
        site = getattr(event, "site", "")
        return f"{describe(event)}{f' at {site}' if site else ''}"
    about = getattr(event, "task_scheduled_id", getattr(event, "timer_id", None))
    of = f" of task {about}" if about is not None else ""
    name = getattr(event, "name", None)
    of += f" '{name}'" if isinstance(name, str) else ""
    return f"{type(event).__name__}{of}{_value(event)}"


def _value(event: HistoryEvent) -> str:
    failure = getattr(event, "failure_details", None)
    if failure is not None:
        return f": {failure}"[:_VALUE_CHARS_MAX]
    for field in ("result", "input", "output"):
        payload = getattr(event, field, None)
        if isinstance(payload, bytes):
            return f": {values.one_line(values.plain_payload(payload))}"[:_VALUE_CHARS_MAX]
    return ""


def _document(episode: ReplayedEpisode) -> dict[str, Any]:
    return {
        "first": episode.first,
        "last": episode.last,
        "events": [type(event).__name__ for event in episode.events],
        "stands": episode.stands,
        "problem": None if episode.problem is None else str(episode.problem),
    }


def _conclude(
    archived: Archived,
    last: ReplayedEpisode | None,
    count: int,
    documents: list[dict[str, Any]] | None,
    variables: dict[str, str],
) -> int:
    """What it came to; returns the exit code."""
    problem = None if last is None else last.problem
    if documents is not None:
        output.document(
            {
                "id": archived.id,
                "execution_id": archived.present.id,
                "fits": problem is None,
                "episodes": documents,
                "variables": variables,
            }
        )
    else:
        for name, value in variables.items():
            output.line(f"  {name} = {value}")
        if problem is not None:
            output.note(f"from event {last.first if last else 1} on the code does not fit: {problem}")
            advice = what_next(problem)
            if advice:
                output.note(f"what next: {advice}")
        elif last is None:
            output.note("nothing has happened to it yet")
        elif last.last < count:
            output.note(f"stopped after event {last.last} of {count}; the code fits so far")
        else:
            output.note(f"the code fits the history of '{archived.id}', {count} events")
    return 0 if problem is None else 1


def _short(value: object) -> str:
    try:
        return f"{value!r:.{_VALUE_CHARS_MAX}}"
    except Exception as error:  # a user's __repr__
        return f"<no text: {type(error).__name__} in {type(value).__name__}.__repr__>"
