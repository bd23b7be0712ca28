"""The commands about entities: list them, read one, send a signal, clean up. Signals are durable when the command ends; a worker performs them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.text import Text

from replayflow.cli import output, values
from replayflow.cli.access import asked_of_a_hub, open_client
from replayflow.cli.options import Count, given_input, input_options, start_at, store_options
from replayflow.cli.target import load_app
from replayflow.client import Client
from replayflow.core.entity.ids import EntityInstanceId, check_operation
from replayflow.entities import EntityState
from replayflow.errors import InstanceNotFoundError


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        return list(self.commands)


@click.group("entity", cls=_InOrder)
def entity() -> None:
    """Look at entities, send them signals, clean up."""


# ---- list ------------------------------------------------------------------------------------------------------


@entity.command("list")
@click.option("--name", help="The entity's name.")
@click.option("--prefix", metavar="KEY", help="What the key begins with; with --name.")
@click.option("--all", "include_empty", is_flag=True, help="Those without a state, too.")
@click.option("--limit", type=Count(min=1), default=50, show_default=True, help="How many at most.")
@store_options
def list_(
    name: str | None, prefix: str | None, include_empty: bool, limit: int, store: str | None, as_json: bool
) -> None:
    """List entities, in the order of their ids."""

    async def read() -> list[EntityState]:
        async with open_client(store) as client:
            found: list[EntityState] = []
            async for shown in client.list_entities(name=name, key_prefix=prefix, include_empty=include_empty):
                found.append(shown)
                if len(found) > limit:
                    break
            return found

    found = asyncio.run(read())
    if as_json:
        output.document({"entities": [_document(shown) for shown in found[:limit]], "more": len(found) > limit})
        return
    if not found:
        output.note("no entities" if include_empty else "no entities with a state; --all lists the others, too")
        return
    rows = list(_rows(found[:limit]))
    output.table(output.console(), ["id", "waiting", "locked by", "updated (UTC)", "state"], rows, whole=1)
    for shown in found[:limit]:
        if shown.problem is not None:
            output.note(f"{shown.id} is parked: {shown.problem}")
    if len(found) > limit:
        output.note("there are more: --limit, --name and --prefix say which")


def _rows(found: list[EntityState]) -> Iterator[list[str | Text]]:
    for shown in found:
        yield [
            shown.id,
            str(shown.backlog or ""),
            shown.locked_by or "",
            values.moment(shown.updated_at),
            values.one_line(values.plain(shown.state)),
        ]


def _document(shown: EntityState) -> dict[str, Any]:
    return {
        "id": shown.id,
        "name": shown.name,
        "key": shown.key,
        "state": values.plain(shown.state),
        "locked_by": shown.locked_by,
        "backlog": shown.backlog,
        "problem": shown.problem,
        "created_at": shown.created_at.isoformat(),
        "updated_at": shown.updated_at.isoformat(),
    }


# ---- read, signal, clean ---------------------------------------------------------------------------------------


@entity.command()
@click.argument("id")
@store_options
def read(id: str, store: str | None, as_json: bool) -> None:
    """Print the state of an entity as JSON; with --json all that is known of it."""

    async def read() -> EntityState:
        async with open_client(store) as client:
            shown = await client.get_entity(id)
            if shown is None:
                raise InstanceNotFoundError(f"no entity '{id}' is in the hub: it begins with its first signal or call")
            return shown

    shown = asyncio.run(read())
    output.document(_document(shown) if as_json else values.plain(shown.state))


@entity.command()
@click.argument("id")
@click.argument("operation")
@click.option("--app", "target", metavar="MODULE:APP", help="Check name and operation against this app.")
@input_options
@click.option(
    "--at", metavar="TIME", help="When to perform it: an ISO time with its zone, or so long from now: +90, +3h."
)
@click.option("--dedupe-key", metavar="KEY", help="The same signal with the same key is taken once.")
@store_options
def signal(
    id: str,
    operation: str,
    target: str | None,
    input: str | None,
    input_file: str | None,
    at: str | None,
    dedupe_key: str | None,
    store: str | None,
    as_json: bool,
) -> None:
    """Ask an entity for an operation, and wait for nothing."""
    given = given_input(input, input_file)
    when = start_at(at)
    known = EntityInstanceId.parse(id)
    check_operation(operation)
    app = None if target is None else load_app(target)
    if app is not None:
        app.entity_named(known.entity).find(operation)

    async def send(client: Client) -> None:
        if isinstance(when, timedelta):
            await client.signal_entity(id, operation, given, delay=when, dedupe_key=dedupe_key)
        else:
            await client.signal_entity(id, operation, given, at=when, dedupe_key=dedupe_key)

    asyncio.run(asked_of_a_hub(store, app, send))
    output.done(as_json, f"signal '{operation}' was sent to '{id}'", id=id, operation=operation)


@entity.command()
@click.option("--name", help="Only entities of this name.")
@store_options
def clean(name: str | None, store: str | None, as_json: bool) -> None:
    """Remove entities that have no state and that nobody holds or waits for; the hub's worker does it."""

    async def ask() -> int:
        async with open_client(store) as client:
            return await client.clean_entities(name=name)

    asked = asyncio.run(ask())
    text = "1 empty entity is asked to go" if asked == 1 else f"{asked} empty entities are asked to go"
    output.done(as_json, text, asked=asked)
