"""The commands that look: list, count, show, history, result. They change nothing, and create nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.text import Text

from replayflow.cli import failures, output, values, waiting
from replayflow.cli.access import open_client
from replayflow.cli.options import Count, Seconds, filter_options, store_options
from replayflow.cli.target import load_app
from replayflow.cli.timeline import about, task_of
from replayflow.client import Instance, InstancePage, InstanceState, LargeValue, Wait
from replayflow.client.finding import Wanted
from replayflow.codec.sealed import EncryptedValue
from replayflow.core.events import HistoryEvent
from replayflow.core.map.progress import MapState
from replayflow.errors import InvalidStateError
from replayflow.store.base import Grouping

_WIDE_COLUMNS = 100
_SHOWN_CHARS_MAX = 2_000


# ---- list ------------------------------------------------------------------------------------------------------


@click.command("list")
@filter_options
@click.option("--newest", is_flag=True, help="The newest first.")
@click.option("--limit", type=Count(min=1), default=50, show_default=True, help="How many at most.")
@click.option("--cursor", help="Where to read on: what the page before ended with.")
@store_options
def list_(wanted: Wanted, newest: bool, limit: int, cursor: str | None, store: str | None, as_json: bool) -> None:
    """List instances, the oldest first.

    In the order of their creation; with --completed-from or --completed-to of their completion; with nothing but --prefix
    of their ids.
    """

    async def read() -> InstancePage:
        async with open_client(store) as client:
            return await client.list_page(newest_first=newest, limit=limit, cursor=cursor, **wanted)

    page = asyncio.run(read())
    if as_json:
        output.document({"instances": [values.state(state) for state in page.states], "cursor": page.cursor})
    elif page.states:
        _draw(page)
    else:
        output.note("no instances")


def _draw(page: InstancePage) -> None:
    now = datetime.now(UTC)
    to = output.console()
    is_wide = to.width >= _WIDE_COLUMNS
    headings = ["id", "name", "status", *(["created (UTC)"] if is_wide else []), "time", "custom status"]
    rows: Iterator[list[str | Text]] = (
        [
            state.id,
            state.name,
            output.status(state),
            *([values.moment(state.created_at)] if is_wide else []),
            _time(state, now),
            values.one_line(values.text_of(state.custom_status)),
        ]
        for state in page.states
    )
    output.table(to, headings, rows, whole=1)
    for state in page.states:
        if state.damage is not None:
            output.note(f"{state.id}: {state.damage}")
        elif state.problem is not None:
            output.note(f"{state.id} is parked: {state.problem}")
    if page.cursor is not None:
        output.note(f"there are more: --cursor {shlex.quote(page.cursor)}")


def _time(state: InstanceState, now: datetime) -> str:
    length = values.duration(values.lifetime(state, now))
    return f"took {length}" if state.status.is_finished else f"for {length}"


# ---- count -----------------------------------------------------------------------------------------------------


@click.command()
@filter_options
@click.option("--by", type=click.Choice(["status", "name"]), help="A count for each.  [default: one for all]")
@store_options
def count(wanted: Wanted, by: Grouping | None, store: str | None, as_json: bool) -> None:
    """Count instances."""

    async def read() -> dict[str, int]:
        async with open_client(store) as client:
            return await client.count(by=by, **wanted)

    counted = asyncio.run(read())
    total = sum(counted.values())
    if as_json:
        output.document({"total": total, **({} if by is None else {"by": by, "counts": counted})})
    elif by is None:
        output.line(str(total))
    else:
        rows = [(f"{number:,}", what) for what, number in counted.items()]
        output.table(output.console(), ["count", by], [*rows, (f"{total:,}", "in all")], whole=1)


# ---- show ------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("id")
@click.option("--app", "target", metavar="MODULE:APP", help="Its code, which knows what events it waits for.")
@store_options
def show(id: str, target: str | None, store: str | None, as_json: bool) -> None:
    """Show all that is known of an instance, and what it waits for."""
    app = None if target is None else load_app(target)

    async def read() -> tuple[InstanceState, list[MapState], list[Wait]]:
        async with open_client(store, app) as client:
            instance = client.get(id)
            return await instance.status(), await instance.maps(), await instance.waits()

    state, maps, waits = asyncio.run(read())
    if as_json:
        shown = {"maps": [dataclasses.asdict(one) for one in maps], "waits": waiting.documents(waits)}
        output.document(values.state(state) | shown)
        return
    rows = [*_lines(state), *_map_lines(maps), *waiting.lines(waits, id, store, app is not None)]
    output.pairs(output.console(), [(label, text) for label, text in rows if text])
    if state.failure is not None:
        output.line("failure")
        click.echo("\n".join(f"  {line}" for line in failures.failure_lines(state.failure)))


def _lines(state: InstanceState) -> Iterator[tuple[str, Any]]:
    took = values.duration(values.lifetime(state, datetime.now(UTC)))
    yield "id", state.id
    yield "name", state.name
    yield "version", state.version
    yield "status", output.status(state)
    yield "problem", state.problem
    yield "custom status", _block(state.custom_status)
    yield "input", _block(state.input)
    yield "output", _block(state.output)
    yield "tags", ", ".join(f"{key}={value}" for key, value in sorted(state.tags.items()))
    yield "parent", state.parent_instance_id
    yield "execution", state.execution_id
    yield "created", f"{values.moment(state.created_at)} UTC"
    yield "updated", f"{values.moment(state.updated_at)} UTC"
    if state.completed_at is not None:
        yield "completed", f"{values.moment(state.completed_at)} UTC, took {took}"


def _map_lines(maps: list[MapState]) -> Iterator[tuple[str, str]]:
    for one in maps:
        total = f"{one.total:,}" if one.is_whole else f"{one.total:,} or more"
        failed = f", {one.failed:,} failed" if one.failed else ""
        over = "" if not one.is_over else ", over"
        yield "map", f"{one.name} (task {one.task_id}): {one.done:,} of {total} items done{failed}{over}"


def _block(value: object) -> str:
    if isinstance(value, LargeValue | EncryptedValue):
        return str(value)
    shown = values.plain(value)
    if shown is None:
        return ""
    text = json.dumps(shown, ensure_ascii=False)
    if len(text) > 60:
        try:
            text = json.dumps(shown, ensure_ascii=False, indent=2)
        except RecursionError:
            pass  # Python 3.12 indents no thousand levels: in one line it is shown all the same
    if len(text) > _SHOWN_CHARS_MAX:
        text = f"{text[:_SHOWN_CHARS_MAX]} ...\n({len(text):,} characters; --json shows them all)"
    return text


# ---- history ---------------------------------------------------------------------------------------------------


@click.command()
@click.argument("id")
@click.option("--execution", metavar="ID", help="A past execution of the instance.  [default: the present one]")
@click.option("--limit", type=Count(min=1), help="How many events at most.  [default: all]")
@click.option("--cursor", type=Count(min=0), default=0, help="The number of the event to read on after.")
@store_options
def history(id: str, execution: str | None, limit: int | None, cursor: int, store: str | None, as_json: bool) -> None:
    """Show what has happened in an instance, event by event."""

    async def read() -> list[HistoryEvent]:
        async with open_client(store) as client:
            return [event async for event in client.get(id).history(execution)]

    every = list(enumerate(asyncio.run(read()), 1))
    page = list(islice(every, cursor, None if limit is None else cursor + limit))
    more = page[-1][0] if page and page[-1][0] < len(every) else None
    if as_json:
        output.document({"events": [values.event(number, event) for number, event in page], "cursor": more})
        return
    scheduled = {event.event_id: event for _, event in every if event.event_id > 0}
    rows = [
        (
            str(number),
            event.timestamp.strftime("%H:%M:%S.%f")[:-3],
            type(event).__name__,
            task_of(event),
            *about(event, scheduled),
        )
        for number, event in page
    ]
    output.table(output.console(), ("#", "time (UTC)", "event", "task", "about", "line", "value"), rows, whole=4)
    if more is not None:
        output.note(f"there are more: --cursor {more}")


# ---- result ----------------------------------------------------------------------------------------------------


@click.command()
@click.argument("id")
@click.option("--wait", metavar="SECONDS", type=Seconds(), help="How long to wait for its end.")
@store_options
def result(id: str, wait: float | None, store: str | None, as_json: bool) -> None:  # noqa: ARG001 - JSON in any case
    """Print the result of an instance as JSON.

    Exits with 1 where it failed, was terminated or cancelled; with 5 where it has not finished, and with 124 where it
    has not within the time that --wait gives.
    """

    async def read() -> Any:
        async with open_client(store) as client:
            instance = client.get(id)
            if wait is None:
                await _require_end(instance)
            return await instance.result(wait)

    output.document(values.plain(asyncio.run(read())))


async def _require_end(instance: Instance[Any]) -> None:
    state = await instance.status()
    if not state.status.is_finished:
        parked = "" if state.problem is None else f", parked: {state.problem}"
        raise InvalidStateError(
            f"instance '{instance.id}' has no result yet, it is {state.status}{parked}; --wait SECONDS waits for its end"
        )
