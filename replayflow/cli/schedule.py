"""schedule: makes, lists and steers schedules, from any process. A worker that serves the store sees to what they ask."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import click

from replayflow.cli import output, values
from replayflow.cli.access import asked_of_a_hub, open_client
from replayflow.cli.options import given_input, input_options, span, start_at, store_options, tag_option
from replayflow.client import Client
from replayflow.errors import InvalidArgumentError
from replayflow.patterns.schedule_handle import Schedule, ScheduleState

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
_OVERLAPS = ("skip", "buffer_one", "allow", "cancel", "terminate")
_MISFIRES = ("run_once", "skip", "catch_up")


@click.group()
def schedule() -> None:
    """Start orchestrations by the clock: create, list, show, pause, resume, trigger, update, delete, backfill."""


def duration(text: str) -> timedelta:
    """The length of time: `90s`, `5m`, `1h30m`, `2d`.

    Raises:
        InvalidArgumentError: it is none.
    """
    try:
        if not text[-1:].isalpha():
            raise ValueError(text)  # of a time that comes again and again the unit is said
        return span(text)
    except ValueError:
        raise InvalidArgumentError(f"{text!r:.80} is no length of time: write it like 90s, 5m, 1h30m or 2d") from None
    except OverflowError:
        raise InvalidArgumentError(f"{text!r:.80} is too long a time") from None


def _length(_context: object, _option: object, text: str | None) -> timedelta | None:
    return None if text is None else duration(text)


def _moment(_context: object, option: click.Parameter, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = start_at(text)
    except InvalidArgumentError as error:
        reason = str(error).replace("--at", option.opts[0]).replace("+90 (seconds from now), +15m, +3h, or ", "")
        raise InvalidArgumentError(reason) from None
    if isinstance(found, timedelta):
        raise InvalidArgumentError(f"{text!r} is no time: write an ISO time with its zone, 2030-01-31T08:00:00+01:00")
    return found


def _choice(names: tuple[str, ...]) -> click.Choice[str]:
    return click.Choice([*names, *(name.replace("_", "-") for name in names if "_" in name)])


def _plan_options(command: F, *, is_new: bool = True) -> F:
    """When, and what to do where that does not go smoothly: as keywords of `create_schedule` and `update`; None where not given.

    The defaults are those of a new schedule: an update leaves what it is not given.
    """

    def defaulting(help: str, default: str) -> str:
        return f"{help}  [default: {default}]" if is_new else help

    for option in reversed(
        (
            click.option("--every", metavar="LENGTH", callback=_length, help="An interval: 90s, 5m, 1h30m."),
            click.option("--cron", metavar="EXPRESSION", help="Five fields: minute, hour, day, month, weekday."),
            click.option(
                "--zone", metavar="ZONE", help=defaulting("The time zone of --cron, such as Europe/Berlin.", "UTC")
            ),
            click.option(
                "--start-at", metavar="TIME", callback=_moment, help="The first time, an ISO time with its zone."
            ),
            click.option("--end-at", metavar="TIME", callback=_moment, help="No run after this time."),
            click.option("--jitter", metavar="LENGTH", callback=_length, help="Delay each run by up to so much."),
            click.option(
                "--overlap", type=_choice(_OVERLAPS), help=defaulting("Where the run before has not ended.", "skip")
            ),
            click.option("--misfire", type=_choice(_MISFIRES), help=defaulting("Where times were missed.", "run_once")),
            click.option(
                "--catch-up-max", type=int, metavar="N", help=defaulting("How many --misfire catch_up runs.", "10")
            ),
            click.option("--grace", metavar="LENGTH", callback=_length, help=defaulting("How late is on time.", "1m")),
            click.option(
                "--version", metavar="VERSION", help=defaulting("The version of its runs.", "the newest at each")
            ),
        )
    ):
        command = option(command)
    return command


def _given(options: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in options.items() if value is not None}
    for name in ("overlap", "misfire"):
        if name in found:
            found[name] = found[name].replace("-", "_")
    return found


@schedule.command()
@click.argument("name")
@click.argument("orchestrator")
@_plan_options
@input_options
@tag_option("A tag of its runs; many times for several.")
@click.option("--paused", is_flag=True, help="Begin paused.")
@click.option(
    "--on-existing",
    type=click.Choice(["error", "return", "update"]),
    default="error",
    show_default=True,
    help="What to do where there is a schedule of the name.",
)
@store_options
def create(
    name: str,
    orchestrator: str,
    input: str | None,
    input_file: str | None,
    tags: dict[str, str],
    paused: bool,
    on_existing: str,
    store: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Start an orchestration at its times, by its name, from now on."""
    if (options["every"] is None) == (options["cron"] is None):
        raise InvalidArgumentError(
            "a schedule has either an interval, --every 5m, or a cron expression, --cron '0 2 * * *'"
        )
    given = given_input(input, input_file)

    async def make(client: Client) -> ScheduleState:
        made: Any = client.create_schedule  # what click gives is checked there, and not by types
        found: Schedule = await made(
            name, orchestrator, given, tags=tags, paused=paused, on_existing=on_existing, **_given(options)
        )
        return await found.status()

    state = asyncio.run(asked_of_a_hub(store, None, make))
    next_at = "none" if state.next_at is None else f"{values.moment(state.next_at)} UTC"
    output.done(as_json, f"schedule '{name}': next {next_at}", **document(state))


@schedule.command()
@click.argument("name")
@partial(_plan_options, is_new=False)
@input_options
@store_options
def update(
    name: str, input: str | None, input_file: str | None, store: str | None, as_json: bool, **options: Any
) -> None:
    """Change what is given of a schedule, and leave the rest."""
    changes = _given(options)
    given = given_input(input, input_file)
    if given is not None:
        changes["input"] = given
    if not changes:
        raise InvalidArgumentError("there is nothing to update: give what is to change, such as --every 5m")
    _ask(store, name, lambda found: found.update(**changes))
    _accepted(as_json, name, "update")


@schedule.command("list")
@store_options
def list_(store: str | None, as_json: bool) -> None:
    """List the schedules, in the order of their creation."""

    async def read(client: Client) -> list[ScheduleState]:
        return [state async for state in client.list_schedules()]

    states = _with_client(store, read)
    if as_json:
        output.document({"schedules": [document(state) for state in states]})
    elif not states:
        output.note("no schedules")
    else:
        rows = [
            [state.name, state.orchestrator, when(state), _next(state), str(state.runs), state.last_run or ""]
            for state in states
        ]
        output.table(
            output.console(), ("name", "orchestrator", "when", "next (UTC)", "runs", "last run"), rows, whole=1
        )
        for state in states:
            if state.problem is not None:
                output.note(f"{state.name} is parked: {state.problem}")


@schedule.command()
@click.argument("name")
@store_options
def show(name: str, store: str | None, as_json: bool) -> None:
    """Show all that is known of a schedule."""
    state = _with_client(store, lambda client: client.get_schedule(name).status())
    shown = document(state)
    if as_json:
        output.document(shown)
        return
    lines = {"name": state.name, "when": when(state), "next (UTC)": _next(state)} | shown
    for told in ("every_seconds", "cron", "zone", "next_at", "is_paused"):
        lines.pop(told, None)
    output.pairs(
        output.console(), [(key.replace("_", " "), values.one_line(value)) for key, value in lines.items() if value]
    )


@schedule.command()
@click.argument("name")
@click.option("--reason", default="", help="Why; `show` tells it.")
@store_options
def pause(name: str, reason: str, store: str | None, as_json: bool) -> None:
    """Let no time have a run until it is resumed."""
    _ask(store, name, lambda found: found.pause(reason))
    _accepted(as_json, name, "pause")


@schedule.command()
@click.argument("name")
@click.option("--reason", default="", help="Why; `show` tells it.")
@store_options
def resume(name: str, reason: str, store: str | None, as_json: bool) -> None:
    """Let times have their runs again, from now on."""
    _ask(store, name, lambda found: found.resume(reason))
    _accepted(as_json, name, "resume")


@schedule.command()
@click.argument("name")
@click.option("--overlap", type=_choice(_OVERLAPS), help="Where another run has not ended.  [default: the schedule's]")
@store_options
def trigger(name: str, overlap: str | None, store: str | None, as_json: bool) -> None:
    """Start a run now, and print its id."""
    options = _given({"overlap": overlap})
    id = _ask(store, name, lambda found: found.trigger(**options)).id
    output.done(as_json, id, id=id, name=name)


@schedule.command()
@click.argument("name")
@click.option("--from", "start", metavar="TIME", required=True, callback=_moment, help="An ISO time with its zone.")
@click.option("--to", "end", metavar="TIME", required=True, callback=_moment, help="An ISO time with its zone.")
@click.option("--overlap", type=_choice(_OVERLAPS), help="Where another run has not ended.  [default: allow]")
@store_options
def backfill(name: str, start: datetime, end: datetime, overlap: str | None, store: str | None, as_json: bool) -> None:
    """Run the times of a past range that have not run."""
    options = _given({"overlap": overlap})
    count = _ask(store, name, lambda found: found.backfill(start, end, **options))
    output.done(as_json, f"backfill '{name}': accepted, {count} times", name=name, times=count)


@schedule.command()
@click.argument("name")
@click.option("--reason", default="", help="Why; it is kept in the history.")
@store_options
def delete(name: str, reason: str, store: str | None, as_json: bool) -> None:
    """End a schedule; runs that have begun go on."""
    _ask(store, name, lambda found: found.delete(reason))
    _accepted(as_json, name, "delete")


def when(state: ScheduleState) -> str:
    """The times of a schedule in a few words."""
    if state.every is not None:
        return f"every {values.duration(state.every)}"
    return f"{state.cron} {state.zone}"


def document(state: ScheduleState) -> dict[str, Any]:
    """A schedule as `--json` shows it: the fields of `ScheduleState`, lengths in seconds."""
    shown: dict[str, Any] = {}
    for field in dataclasses.fields(state):
        value = getattr(state, field.name)
        if field.name in ("every", "jitter", "grace"):
            shown[f"{field.name}_seconds"] = None if value is None else value.total_seconds()
        elif isinstance(value, datetime):
            shown[field.name] = value.isoformat()
        elif field.name == "tags":
            shown[field.name] = dict(value)
        else:
            shown[field.name] = values.plain(value)
    return shown | {"status": str(state.status)}


def _next(state: ScheduleState) -> str:
    if state.is_paused:
        return "paused" + (f": {state.reason}" if state.reason else "")
    return "none" if state.next_at is None else values.moment(state.next_at)


def _with_client(store: str | None, work: Callable[[Client], Awaitable[T]]) -> T:
    async def main() -> T:
        async with open_client(store) as client:
            return await work(client)

    return asyncio.run(main())


def _ask(store: str | None, name: str, request: Callable[[Schedule], Awaitable[T]]) -> T:
    return _with_client(store, lambda client: request(client.get_schedule(name)))


def _accepted(as_json: bool, name: str, verb: str) -> None:
    output.done(as_json, f"{verb} '{name}': accepted; the hub's worker does it", name=name, requested=verb)
