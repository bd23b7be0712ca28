"""start: hands an orchestration to whichever worker serves the hub."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import click

from replayflow.cli import output
from replayflow.cli.access import asked_of_a_hub
from replayflow.cli.options import given_input, input_options, json_text, start_at, store_options, tag_option
from replayflow.cli.target import load_app
from replayflow.cli.values import check_input
from replayflow.client import Client, Instance
from replayflow.errors import InvalidArgumentError
from replayflow.store.base import OnExisting

_CHOICES = ("error", "return", "replace_finished", "terminate_and_replace")


@click.command()
@click.argument("name")
@click.option("--app", "target", metavar="MODULE:APP", help="Check name and input against this app.")
@input_options
@click.option("--id", "instance_id", metavar="ID", help="The instance's id.  [default: a new one]")
@click.option("--version", metavar="VERSION", help="The version whose code it runs.  [default: the newest]")
@click.option("--at", metavar="TIME", help="When to start: an ISO time with its zone, or so long from now: +90, +3h.")
@tag_option("A tag to find it by; many times for several.")
@click.option(
    "--on-existing",
    type=click.Choice([*_CHOICES, *(choice.replace("_", "-") for choice in _CHOICES if "_" in choice)]),
    metavar="|".join(_CHOICES),
    default="error",
    show_default=True,
    help="What to do where the id is taken.",
)
@click.option(
    "--signal",
    metavar="EVENT",
    help="Send the instance with the --id this event, and start it only where there is none: one transaction, whoever else does the same.",
)
@click.option("--payload", metavar="JSON", help="What the event of --signal carries.")
@click.option("--dedupe-key", metavar="KEY", help="The same event of --signal with the same key is taken once.")
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
    signal: str | None,
    payload: str | None,
    dedupe_key: str | None,
    store: str | None,
    as_json: bool,
) -> None:
    """Start an orchestration by its name, and print its id.

    A worker runs it: one that serves this store now, or the next that does.
    """
    given = given_input(input, input_file)
    moment = start_at(at)
    carried = None if payload is None else json_text(payload, "--payload")
    choice = cast("OnExisting", on_existing.replace("-", "_"))
    if signal is None and (payload is not None or dedupe_key is not None):
        raise InvalidArgumentError("--payload and --dedupe-key are those of an event: name it with --signal")
    if signal is not None and (instance_id is None or at is not None):
        raise InvalidArgumentError(
            "--signal is for the instance with an --id, and not with --at: it begins with the event"
        )
    app = None if target is None else load_app(target)
    if app is not None:
        definition = app.orchestrator_named(name)
        check_input(app.orchestrators.serving(name, version or definition.version) or definition, given)

    async def begin(client: Client) -> Instance[Any]:
        if signal is not None and instance_id is not None:
            return await client.signal_with_start(
                name,
                given,
                signal,
                carried,
                instance_id=instance_id,
                version=version,
                tags=tags,
                on_existing=cast("Any", choice),
                dedupe_key=dedupe_key,
            )
        return await client.start(
            name,
            given,
            instance_id=instance_id,
            version=version,
            start_at=moment,
            tags=tags,
            on_existing=choice,
        )

    id = asyncio.run(asked_of_a_hub(store, app, begin)).id
    output.done(as_json, id, id=id)
