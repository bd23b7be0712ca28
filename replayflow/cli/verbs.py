"""The commands that ask something of an instance: events, suspend, resume, cancel, terminate.

A request is durable when the command ends; a worker sees to it, now or when it starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import click

from replayflow.cli import output
from replayflow.cli.access import open_client
from replayflow.cli.options import json_text, store_options
from replayflow.client import Instance

_reason_option = click.option("--reason", default="", help="Why; it is kept in the history.")


@click.command("raise-event")
@click.argument("id")
@click.argument("name")
@click.option("--payload", metavar="JSON", help="What the event carries.")
@click.option("--dedupe-key", metavar="KEY", help="The same event with the same key is taken once.")
@store_options
def raise_event(
    id: str, name: str, payload: str | None, dedupe_key: str | None, store: str | None, as_json: bool
) -> None:
    """Send an event to an instance."""
    given = None if payload is None else json_text(payload, "--payload")
    _ask(store, id, lambda instance: instance.raise_event(name, given, dedupe_key=dedupe_key))
    output.done(as_json, f"event '{name}' was sent to '{id}'", id=id, event=name)


@click.command()
@click.argument("id")
@_reason_option
@store_options
def suspend(id: str, reason: str, store: str | None, as_json: bool) -> None:
    """Let an instance run no further until it is resumed."""
    _ask(store, id, lambda instance: instance.suspend(reason))
    _accepted(as_json, id, "suspend")


@click.command()
@click.argument("id")
@_reason_option
@store_options
def resume(id: str, reason: str, store: str | None, as_json: bool) -> None:
    """Let a suspended instance go on, or try a parked one again."""
    _ask(store, id, lambda instance: instance.resume(reason))
    _accepted(as_json, id, "resume")


@click.command()
@click.argument("id")
@_reason_option
@store_options
def cancel(id: str, reason: str, store: str | None, as_json: bool) -> None:
    """Ask an instance to end, and let it undo what it did."""
    _ask(store, id, lambda instance: instance.cancel(reason))
    _accepted(as_json, id, "cancel")


@click.command()
@click.argument("id")
@_reason_option
@click.option("--no-recursive", is_flag=True, help="Leave the instances that it started running.")
@store_options
def terminate(id: str, reason: str, no_recursive: bool, store: str | None, as_json: bool) -> None:
    """End an instance at once, and the instances that it started."""
    _ask(store, id, lambda instance: instance.terminate(reason, recursive=not no_recursive))
    _accepted(as_json, id, "terminate")


def _ask(store: str | None, id: str, request: Callable[[Instance[Any]], Awaitable[None]]) -> None:
    async def ask() -> None:
        async with open_client(store) as client:
            await request(client.get(id))

    asyncio.run(ask())


def _accepted(as_json: bool, id: str, verb: str) -> None:
    output.done(as_json, f"{verb} '{id}': accepted; the hub's worker does it", id=id, requested=verb)
