"""export and import: instances with their histories, as lines of JSON."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import click

from replayflow.archive.verbs import read_export
from replayflow.cli import output
from replayflow.cli.access import open_client
from replayflow.cli.inspect import STATUSES
from replayflow.cli.options import store_options, tag_option
from replayflow.client import Client
from replayflow.errors import InvalidArgumentError


@click.command("export")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--execution", metavar="ID", help="One execution of the instance alone.  [default: all of them]")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(STATUSES, case_sensitive=False),
    help="Many times for any of them.",
)
@click.option("--name", help="The orchestrator's name.")
@click.option("--prefix", help="What the id begins with.")
@tag_option("A tag that it has; many times for all of them.")
@click.option("--parked", is_flag=True, help="Only those set aside with a problem.")
@click.option("--output", "-o", "file", metavar="FILE", help="Where to write.  [default: stdout]")
@store_options
def export(
    ids: Sequence[str],
    execution: str | None,
    statuses: Sequence[str],
    name: str | None,
    prefix: str | None,
    tags: dict[str, str],
    parked: bool,
    file: str | None,
    store: str | None,
    as_json: bool,
) -> None:
    """Write instances with their whole histories as lines of JSON.

    By id, by filter, or the whole hub. A file is there whole or not at all. `replayflow import` makes a hub of it again, and `replayflow replay`
    steps through it. It has all inputs and results in the clear: keep it as you keep the hub.
    """
    is_filtered = bool(statuses or name or prefix or tags or parked)
    if ids and is_filtered:
        raise InvalidArgumentError("ids and a filter are both given; one of them says what to export")
    if execution is not None and len(ids) != 1:
        raise InvalidArgumentError("--execution is of one instance; name it by its id")

    async def lines(client: Client) -> AsyncIterator[str]:
        found = client.list(
            status=statuses or None,
            name=name,
            id_prefix=prefix,
            tags=tags,
            parked=parked or None,
            include_entities=True,
        )
        async for line in client.export(ids or (found if is_filtered else None), execution_id=execution):
            yield line

    async def write(to: TextIO) -> int:
        count = 0
        async with open_client(store) as client:
            async for line in lines(client):
                to.write(line)
                count += line.startswith('{"instance"')
        return count

    if file is None:
        asyncio.run(write(sys.stdout))
        return
    with _whole(Path(file)) as to:
        count = asyncio.run(write(to))
    output.done(as_json, f"{count} instances are in {file}", instances=count, file=file)


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """A text file that is there when all has been written, and as it was before otherwise."""
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            partial.chmod(0o600)
            yield file
        partial.replace(path)
    except OSError as error:
        raise InvalidArgumentError(f"--output {path} cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


@click.command("import")
@click.argument("file", metavar="FILE")
@store_options
def import_(file: str, store: str | None, as_json: bool) -> None:
    """Make a hub of an export, to look at it and to try things out.

    The store has to be new, or empty. A worker that is started on it goes on with what had not finished, and runs its activities for real.
    """

    for _ in read_export(Path(file)):
        pass  # what is wrong with it is said before there is a hub

    async def read() -> tuple[int, int]:
        async with open_client(store, creates=True) as client:
            came = await client.import_history(Path(file))
            return came.instances, came.unfinished

    count, unfinished = asyncio.run(read())
    output.done(as_json, f"{count} instances were imported", instances=count, unfinished=unfinished)
    if unfinished and not as_json:
        output.note(
            f"{unfinished} of them have not finished: a worker on this hub would go on with them, and run their activities"
        )
