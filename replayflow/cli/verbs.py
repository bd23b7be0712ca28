"""The commands that ask something of an instance, or of many: events, suspend, resume, cancel, terminate.

A request is durable when the command ends; a worker sees to it, now or when it starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import click

from replayflow.cli import output
from replayflow.cli.access import open_client
from replayflow.cli.many import Many, many_options
from replayflow.cli.options import json_text, store_options
from replayflow.client import Instance

_reason_option = click.option("--reason", default="", help="Why; it is kept in the history.")


@click.command("raise-event")
@click.argument("words", metavar="[ID] NAME", nargs=-1)
@click.option("--payload", metavar="JSON", help="What the event carries.")
@click.option("--dedupe-key", metavar="KEY", help="The same event with the same key is taken once.")
@many_options
@store_options
def raise_event(
    words: Sequence[str],
    payload: str | None,
    dedupe_key: str | None,
    many: Many,
    store: str | None,
    as_json: bool,
) -> None:
    """Send an event to an instance, or to all that fit."""
    *ids, name = words or [""]
    if not words or len(ids) > 1:
        raise click.UsageError("raise-event takes an ID and the event's NAME, or a NAME and a filter")
    given = None if payload is None else json_text(payload, "--payload")
    if many.is_meant(ids[0] if ids else None):
        many.ask(
            "raise-event",
            lambda client, options: client.raise_event_to_all(name, given, dedupe_key=dedupe_key, **options),
            store,
            as_json,
            phrase=f"send '{name}' to",
        )
        return
    _ask(store, ids[0], lambda instance: instance.raise_event(name, given, dedupe_key=dedupe_key))
    output.done(as_json, f"event '{name}' was sent to '{ids[0]}'", id=ids[0], event=name)


@click.command()
@click.argument("id", required=False)
@_reason_option
@many_options
@store_options
def suspend(id: str | None, reason: str, many: Many, store: str | None, as_json: bool) -> None:
    """Let an instance, or all that fit, run no further until resumed."""
    if many.is_meant(id):
        many.ask("suspend", lambda client, options: client.suspend_all(reason=reason, **options), store, as_json)
    else:
        _request("suspend", store, id, as_json, lambda instance: instance.suspend(reason))


@click.command()
@click.argument("id", required=False)
@_reason_option
@many_options
@store_options
def resume(id: str | None, reason: str, many: Many, store: str | None, as_json: bool) -> None:
    """Let a suspended instance go on, or try a parked one again; or all that fit.

    Of those that fit the suspended ones go on; with --parked, the parked ones are tried again.
    """
    if many.is_meant(id):
        many.ask("resume", lambda client, options: client.resume_all(reason=reason, **options), store, as_json)
    else:
        _request("resume", store, id, as_json, lambda instance: instance.resume(reason))


@click.command()
@click.argument("id", required=False)
@_reason_option
@many_options
@store_options
def cancel(id: str | None, reason: str, many: Many, store: str | None, as_json: bool) -> None:
    """Ask an instance, or all that fit, to end, and let it undo what it did."""
    if many.is_meant(id):
        many.ask("cancel", lambda client, options: client.cancel_all(reason=reason, **options), store, as_json)
    else:
        _request("cancel", store, id, as_json, lambda instance: instance.cancel(reason))


@click.command()
@click.argument("id", required=False)
@_reason_option
@click.option("--no-recursive", is_flag=True, help="Leave the instances that it started running.")
@many_options
@store_options
def terminate(id: str | None, reason: str, no_recursive: bool, many: Many, store: str | None, as_json: bool) -> None:
    """End an instance, or all that fit, at once, and the instances that it started."""
    recursive = not no_recursive
    if many.is_meant(id):
        many.ask(
            "terminate",
            lambda client, options: client.terminate_all(reason=reason, recursive=recursive, **options),
            store,
            as_json,
        )
    else:
        _request("terminate", store, id, as_json, lambda instance: instance.terminate(reason, recursive=recursive))


def _request(
    verb: str, store: str | None, id: str | None, as_json: bool, request: Callable[[Instance[Any]], Awaitable[None]]
) -> None:
    assert id is not None  # noqa: S101 - many are meant otherwise
    _ask(store, id, request)
    output.done(as_json, f"{verb} '{id}': accepted; the hub's worker does it", id=id, requested=verb)


def _ask(store: str | None, id: str, request: Callable[[Instance[Any]], Awaitable[None]]) -> None:
    async def ask() -> None:
        async with open_client(store) as client:
            await request(client.get(id))

    asyncio.run(ask())
