"""purge: finished instances go, with their histories."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from replayflow.cli import output
from replayflow.cli.access import open_client
from replayflow.cli.many import Many, instances, many_options
from replayflow.cli.options import store_options
from replayflow.client import BulkOutcome, Client


@click.command()
@click.argument("id", required=False)
@click.option("--recursive/--no-recursive", default=True, help="With the finished instances that it started.")
@many_options
@store_options
def purge(id: str | None, recursive: bool, many: Many, store: str | None, as_json: bool) -> None:
    """Remove a finished instance, or all finished ones that fit, with their histories.

    \b
      replayflow purge order-17
      replayflow purge --status COMPLETED --completed-to -30d --yes

    What has not finished is refused by its id, and passed over by a filter. A worker may go on meanwhile. To have it done as a rule, see
    `replayflow worker --retain`.
    """

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
