"""export and import: instances with their histories, as lines of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkstemp
from typing import TextIO

import click

from replayflow.archive.verbs import read_export
from replayflow.cli import many, output
from replayflow.cli.access import open_client
from replayflow.cli.options import filter_options, store_options
from replayflow.client import Client
from replayflow.client.finding import Wanted
from replayflow.errors import InvalidArgumentError


@click.command("export")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--execution", metavar="ID", help="One execution of the instance alone.  [default: all of them]")
@filter_options
@click.option("--output", "-o", "file", metavar="FILE", help="Where to write.  [default: stdout]")
@store_options
def export(
    ids: Sequence[str],
    execution: str | None,
    wanted: Wanted,
    file: str | None,
    store: str | None,
    as_json: bool,
) -> None:
    """Write instances with their whole histories as lines of JSON.

    By id, by filter, or the whole hub. A file is there whole or not at all. `replayflow import` makes a hub of it again, and `replayflow replay`
    steps through it. It has all inputs and results in the clear: keep it as you keep the hub.
    """
    is_filtered = any(wanted.values())
    wanted["include_entities"] = True
    if ids and is_filtered:
        raise InvalidArgumentError("ids and a filter are both given; one of them says what to export")
    if execution is not None and len(ids) != 1:
        raise InvalidArgumentError("--execution is of one instance; name it by its id")

    async def lines(client: Client) -> AsyncIterator[str]:
        found = client.list(**wanted)
        async for line in client.export(ids or (found if is_filtered else None), execution_id=execution):
            yield line

    async def write(to: TextIO) -> int:
        count = 0
        is_utf = "utf" in (to.encoding or "").lower()
        async with open_client(store) as client:
            async for line in lines(client):
                # Where a character could not be written, it is escaped as JSON has it.
                to.write(output.printable_json(line) if is_utf else json.dumps(json.loads(line)) + "\n")
                count += line.startswith('{"instance"')
        return count

    if file is None:
        asyncio.run(write(sys.stdout))
        return
    with _whole(Path(file)) as to:
        count = asyncio.run(write(to))
    output.done(
        as_json, f"{many.instances(count)} {'is' if count == 1 else 'are'} in {file}", instances=count, file=file
    )


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """A text file that is there when all has been written, and as it was before otherwise."""
    partial: Path | None = None
    try:
        # A new file of a name that nobody could foresee, which only its owner can ever read.
        opened, name = mkstemp(prefix=f"{path.name[:100]}.partial-", dir=path.parent)
        partial = Path(name)
        with os.fdopen(opened, "w", encoding="utf-8") as file:
            yield file
        partial.replace(path)
        partial = None
    except OSError as error:
        raise InvalidArgumentError(f"--output {path} cannot be written: {error.strerror}") from None
    finally:
        if partial is not None:
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
    output.done(
        as_json,
        f"{many.instances(count)} {'was' if count == 1 else 'were'} imported",
        instances=count,
        unfinished=unfinished,
    )
    if unfinished and not as_json:
        output.note(
            f"not finished: {unfinished:,} of them; a worker on this hub would go on with them, and run their activities"
        )
