"""start: hands an orchestration to whichever worker serves the hub."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import click

from replayflow.cli import output
from replayflow.cli.access import open_client
from replayflow.cli.options import given_input, input_options, start_at, store_options, tag_option
from replayflow.cli.target import load_app
from replayflow.cli.values import check_input
from replayflow.client import Instance
from replayflow.store.base import OnExisting

_CHOICES = ("error", "return", "replace_finished", "terminate_and_replace")


@click.command()
@click.argument("name")
@click.option("--app", "target", metavar="MODULE:APP", help="Check name and input against this app.")
@input_options
@click.option("--id", "instance_id", metavar="ID", help="The instance's id.  [default: a new one]")
@click.option("--version", metavar="VERSION", help="The version whose code it runs.  [default: the newest]")
@click.option("--at", metavar="TIME", help="When to start: an ISO time with its zone, or +SECONDS.")
@tag_option("A tag to find it by; many times for several.")
@click.option(
    "--on-existing",
    type=click.Choice([*_CHOICES, *(choice.replace("_", "-") for choice in _CHOICES if "_" in choice)]),
    metavar="|".join(_CHOICES),
    default="error",
    show_default=True,
    help="What to do where the id is taken.",
)
@store_options
def start(
    name: str,
    target: str | None,
    input: str | None,
    input_file: str | None,
    instance_id: str | None,
    version: str | None,
    at: str | None,
    tags: dict[str, str],
    on_existing: str,
    store: str | None,
    as_json: bool,
) -> None:
    """Start an orchestration by its name, and print its id.

    A worker runs it: one that serves this store now, or the next that does.
    """
    given = given_input(input, input_file)
    moment = start_at(at)
    app = None if target is None else load_app(target)
    if app is not None:
        definition = app.orchestrator_named(name)
        check_input(app.orchestrators.serving(name, version or definition.version) or definition, given)

    async def begin() -> Instance[Any]:
        async with open_client(store, app, creates=True) as client:
            return await client.start(
                name,
                given,
                instance_id=instance_id,
                version=version,
                start_at=moment,
                tags=tags,
                on_existing=cast("OnExisting", on_existing.replace("-", "_")),
            )

    id = asyncio.run(begin()).id
    output.done(as_json, id, id=id)
