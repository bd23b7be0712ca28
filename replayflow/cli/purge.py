"""purge: finished instances go, with their histories."""

from __future__ import annotations

import asyncio
from typing import Any

import click
import msgspec

from replayflow.cli import output
from replayflow.cli.access import open_client
from replayflow.cli.many import Many, instances, many_options
from replayflow.cli.options import store_options
from replayflow.client import BulkOutcome, Client, Lost
from replayflow.errors import InvalidArgumentError


@click.command()
@click.argument("id", required=False)
@click.option("--recursive/--no-recursive", default=True, help="With the finished instances that it started.")
@click.option("--damaged", is_flag=True, help="The one with the ID, whatever its status, because it cannot be read.")
@many_options
@store_options
def purge(id: str | None, recursive: bool, damaged: bool, many: Many, store: str | None, as_json: bool) -> None:
    """Remove a finished instance, or all finished ones that fit, with their histories.

    \b
      replayflow purge order-17
      replayflow purge --status COMPLETED --completed-to -30d --yes

    What has not finished is refused by its id, and passed over by a filter. A worker may go on meanwhile. To have it done as a rule, see
    `replayflow worker --retain`.

    With --damaged an instance goes that cannot be read any more, also one that runs. Keep a copy of the file first. What it started stays.
    """
    if damaged:
        if many.is_meant(id) or id is None:
            raise InvalidArgumentError("--damaged is for one instance: name it by its ID")
        _tell_lost(id, asyncio.run(_damaged(id, store)), as_json)
        return

    async def one(id: str) -> int:
        async with open_client(store) as client:
            return await client.get(id).purge(recursive)

    async def every(client: Client, options: dict[str, Any]) -> BulkOutcome:
        gone = await client.purge(recursive=recursive, **options)
        return BulkOutcome(found=gone, done=gone)

    if many.is_meant(id):
        many.ask(
            "purge",
            every,
            store,
            as_json,
            tell=lambda gone: (
                f"{instances(gone.done)} {'is' if gone.done == 1 else 'are'} gone",
                {"purged": gone.done},
            ),
        )
    elif id is not None:
        gone = asyncio.run(one(id))
        with_others = f" with {instances(gone - 1)} that it started" if gone > 1 else ""
        output.done(as_json, f"'{id}' is gone{with_others}", id=id, purged=gone)


async def _damaged(id: str, store: str | None) -> Lost:
    async with open_client(store) as client:
        return await client.get(id).purge_damaged()


def _tell_lost(id: str, lost: Lost, as_json: bool) -> None:
    output.done(as_json, f"'{id}' is gone, damaged as it was", id=id, purged=1, lost=msgspec.structs.asdict(lost))
    if as_json:
        return
    for fault in lost.faults:
        output.note(fault)
    output.note(
        f"lost: an instance of '{lost.name}', {lost.status}, pieces of history: {lost.pieces}, messages that it had not taken in: {lost.messages}"
    )
    if lost.parent_id is not None:
        output.note(
            f"it said that '{lost.parent_id}' had started it, which may wait for it for ever: look at it, and terminate or rewind it"
        )
    if lost.children:
        output.note(
            f"{instances(lost.children)} that it started {'stays' if lost.children == 1 else 'stay'}: --parent finds them"
        )
