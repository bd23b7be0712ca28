"""rewind, restart, fork: an instance goes on from an earlier point, or begins anew. What they ask for is durable, and a worker runs it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import click

from replayflow.cli import output
from replayflow.cli.access import open_client
from replayflow.cli.many import Many, many_options
from replayflow.cli.options import given_input, input_options, store_options, tag_option
from replayflow.cli.target import load_app
from replayflow.cli.values import JsonText, check_input
from replayflow.client import ForkCheck, Instance
from replayflow.errors import InvalidArgumentError
from replayflow.registry import App

T = TypeVar("T")
_reason_option = click.option("--reason", default="", help="Why; it is kept in the history.")
_app_option = click.option("--app", "target", metavar="MODULE:APP", help="Check the input against this app.")
_set_tag_option = tag_option("Its tags in the place of the old ones; many times for several.", "--set-tag", "new_tags")
_version_option = click.option("--version", metavar="VERSION", help="The version that it bears.  [default: the same]")


@click.command()
@click.argument("id", required=False)
@click.option(
    "--at",
    metavar="EVENT",
    type=int,
    help="Go back to before this event, by its number in `history`.  [default: before the failure]",
)
@_reason_option
@many_options
@store_options
def rewind(id: str | None, at: int | None, reason: str, many: Many, store: str | None, as_json: bool) -> None:
    """Let a failed instance, or all that fit, go on from before the failure.

    What failed runs again, and so do the instances that it started and that failed; what had completed stays as it is.
    """
    if many.is_meant(id):
        _refuse_for_many(at=at)
        many.ask("rewind", lambda client, options: client.rewind_all(reason=reason, **options), store, as_json)
        return
    _with(store, None, id, lambda instance: instance.rewind(reason, at=at))
    output.done(as_json, f"'{id}' was rewound; the hub's worker goes on with it", id=id, rewound=True)


@click.command()
@click.argument("id", required=False)
@click.option("--id", "other", metavar="ID", help="The id of the new instance.  [default: the same]")
@_app_option
@input_options
@_set_tag_option
@_version_option
@many_options
@store_options
def restart(
    id: str | None,
    other: str | None,
    target: str | None,
    input: str | None,
    input_file: str | None,
    new_tags: dict[str, str],
    version: str | None,
    many: Many,
    store: str | None,
    as_json: bool,
) -> None:
    """Begin an orchestration anew, with its input or another, and print the id; or all that fit.

    Under its own id it must have finished; its history so far stays readable. Of those that fit the failed ones begin anew,
    or those of a --status, as they are.
    """
    if many.is_meant(id):
        _refuse_for_many(
            id=other, app=target, input=input, input_file=input_file, set_tag=new_tags or None, version=version
        )
        many.ask("restart", lambda client, options: client.restart_all(**options), store, as_json)
        return
    given = given_input(input, input_file)
    app = None if target is None else load_app(target)

    async def begin(instance: Instance[Any]) -> Instance[Any]:
        changes = await _checked_input(instance, app, given)
        return await instance.restart(instance_id=other, tags=new_tags or None, version=version, **changes)

    begun = _with(store, app, id, begin)
    output.done(as_json, begun.id, id=begun.id)


@click.command()
@click.argument("id")
@click.option("--id", "other", metavar="ID", help="The fork's id.  [default: a new one]")
@click.option(
    "--at",
    metavar="EVENT",
    type=int,
    help="The last event to keep, by its number in `history`.  [default: the last before the end, or of --set-result]",
)
@click.option(
    "--set-result",
    "texts",
    metavar="TASK=JSON",
    multiple=True,
    help="Another result for a task, by its number in `history`; many times for several.",
)
@click.option("--execution", metavar="ID", help="A past execution of the instance.  [default: the present one]")
@click.option("--dry-run", is_flag=True, help="Only say whether the code of --app does what would be kept.")
@click.option("--app", "target", metavar="MODULE:APP", help="The code for --dry-run; it checks --input, too.")
@input_options
@_set_tag_option
@_version_option
@_reason_option
@store_options
@click.pass_context
def fork(
    context: click.Context,
    id: str,
    other: str | None,
    at: int | None,
    texts: tuple[str, ...],
    execution: str | None,
    dry_run: bool,
    target: str | None,
    input: str | None,
    input_file: str | None,
    new_tags: dict[str, str],
    version: str | None,
    reason: str,
    store: str | None,
    as_json: bool,
) -> None:
    """Begin a new instance with the history of another up to an event, and print its id.

    What was done up to there is not done again: the fork has its results, or those that --set-result gives. With --dry-run
    it is checked alone, and the exit code is 1 where the code parts from the history.
    """
    given = given_input(input, input_file)
    results = set_results(texts)
    if dry_run and target is None:
        raise InvalidArgumentError("--dry-run needs the code: --app MODULE:APP")
    app = None if target is None else load_app(target)

    async def begin(instance: Instance[Any]) -> Instance[Any] | ForkCheck:
        changes = await _checked_input(instance, app, given)
        return await instance.fork(
            at=at,
            instance_id=other,
            results=results,
            tags=new_tags or None,
            version=version,
            reason=reason,
            execution_id=execution,
            dry_run=dry_run,
            **changes,
        )

    begun = _with(store, app, id, begin)
    if isinstance(begun, Instance):
        output.done(as_json, begun.id, id=begun.id)
        return
    output.done(as_json, _said(id, begun), **dataclasses.asdict(begun))
    context.exit(0 if begun.fits else 1)


def set_results(texts: Iterable[str]) -> dict[int, JsonText]:
    """The results that `TASK=JSON` texts give, by task.

    Raises:
        InvalidArgumentError: one has no task before an `=`, or no JSON behind it; or a task has two.
    """
    found: dict[int, JsonText] = {}
    for text in texts:
        task, equals, value = text.partition("=")
        if not equals or not (task.isascii() and task.isdecimal()) or len(task) > 18:
            raise InvalidArgumentError(
                f"--set-result is {text!r:.80}; write it as --set-result '3=\"a text\"', with the number of a task"
            )
        if int(task) in found:
            raise InvalidArgumentError(f"--set-result gives task {task} two results")
        try:
            json.loads(value)
        except (ValueError, RecursionError) as error:
            hint = f"a text is quoted, for the shell and for JSON: --set-result '{task}=\"a text\"'"
            raise InvalidArgumentError(
                f"--set-result {text!r:.80}: what is behind the = is not JSON: {error}; {hint}"
            ) from None
        found[int(task)] = JsonText(value)
    return found


def _said(id: str, check: ForkCheck) -> str:
    if check.fits:
        return f"the code does what the {check.kept} events say that would be kept of '{id}'"
    return f"the code parts from the history of '{id}' in the episode that begins with event {check.event}: {check.difference}"


async def _checked_input(instance: Instance[Any], app: App | None, given: JsonText | None) -> dict[str, Any]:
    """The input as a keyword, where one is given and the app, if there is one, takes it."""
    if given is None:
        return {}
    if app is not None:
        check_input(app.orchestrator_named((await instance.status()).name), given)
    return {"input": given}


def _refuse_for_many(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise InvalidArgumentError(
                f"--{name.replace('_', '-')} is for one instance: give its ID in the place of a filter"
            )


def _with(store: str | None, app: App | None, id: str | None, ask: Callable[[Instance[Any]], Awaitable[T]]) -> T:
    assert id is not None  # noqa: S101 - many are meant otherwise

    async def work() -> T:
        async with open_client(store, app) as client:
            return await ask(client.get(id))

    return asyncio.run(work())
