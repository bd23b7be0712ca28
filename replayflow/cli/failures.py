"""Errors as people and scripts meet them on the command line: the exit code, the sentence, and what to do next.

1. Each error has one exit code, whatever the command (`exit_code`).
2. A `ReplayflowError` is shown with its code and `replayflow explain CODE`; nothing of what it tells steers a terminal.
3. With `--json` the same is one JSON document on stderr: `{"error": {"code", "type", "message"}}`.
"""

from __future__ import annotations

import errno
import io
import json
import re
import traceback
from collections.abc import Iterator
from typing import Any

import click

from replayflow import errors
from replayflow.cli import values
from replayflow.cli.output import note, printable
from replayflow.errors import FailureDetails, OrchestrationFailed

EXIT_CODES = {
    0: "done; for run and result: the orchestration completed",
    1: "the orchestration failed, or was terminated or cancelled; check, lint, doctor, replay, fork --dry-run: something is not as it has to be",
    2: "wrong usage or bad input",
    3: "the store refused: owned by another worker, damaged, newer, full, ...",
    4: "not found: the instance, or the store's file",
    5: "the instance is not in a state for that",
    70: "a defect in replayflow itself",
    124: "not finished within the time limit",
    130: "interrupted",
}
DEFECT = 70
_NO_FILE_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)
_ENGINE_FRAME = re.compile(r'  File ".*[/\\]replayflow[/\\](?:codec|core|engine|store)[/\\][^"]*"')
_HINTS: dict[type[BaseException], str] = {
    errors.HubOwnedError: (
        "give its worker work with `replayflow start`, stop it, or wait until it ends with `replayflow worker --when-owned wait`; "
        "where it does nothing and cannot be ended, `--when-owned take-over`"
    ),
    errors.LeaseLostError: (
        "what this worker had not committed is done again there; to stand by for it: `replayflow worker --when-owned wait`"
    ),
}


class StoreMissingError(errors.StoreUnavailableError):
    """There is no task hub at the address, and this command does not make one."""


class ImportFailedError(errors.InvalidArgumentError):
    """The user's module raised when it was imported; `trace` is its traceback, without our frames."""

    def __init__(self, message: str, trace: str) -> None:
        super().__init__(message)
        self.trace = trace


class Interrupted(Exception):
    """A signal ended the command; the text says what stays, and how to go on."""


def exit_code(error: BaseException) -> int:
    """The exit code of a command that ended with the error."""
    match error:
        case click.ClickException():
            return error.exit_code
        case StoreMissingError() | errors.InstanceNotFoundError():
            return 4
        case errors.OrchestrationEnded():
            return 1
        case errors.StateError():
            return 5
        case errors.StoreError():
            return 3
        case errors.ReplayflowError():
            return 2
        case TimeoutError():
            return 124
        case OSError() if error.errno in _NO_FILE_NAME:
            return 2
        case Interrupted() | KeyboardInterrupt() | click.Abort():
            return 130
        case _:
            return DEFECT


def report(error: BaseException, as_json: bool) -> int:
    """The error is on stderr; returns its exit code."""
    error = errors.starved(error) or error
    if as_json:
        click.echo(json.dumps({"error": _document(error)}, default=str), err=True)
    elif isinstance(error, click.UsageError):
        shown = io.StringIO()
        error.show(shown)
        note(shown.getvalue().rstrip("\n"))
    else:
        _tell(error)
    return exit_code(error)


def _tell(error: BaseException) -> None:
    code = _code(error)
    if isinstance(error, Interrupted):
        note(str(error))
        return
    label = f"{click.style('error', fg='red', bold=True)}{f' {code}' if code else ''}"
    click.echo(f"{label}: {printable(_message(error))}", err=True)
    for each in getattr(error, "__notes__", ()):
        note(f"  {each}")
    if isinstance(error, OrchestrationFailed):
        click.echo("\n".join(f"  {line}" for line in failure_lines(error.details)), err=True)
    if isinstance(error, ImportFailedError):
        note(error.trace.rstrip())
    if exit_code(error) == DEFECT:
        note("".join(traceback.format_exception(error)).rstrip())
    hint = _HINTS.get(type(error))
    if hint is not None:
        click.secho(f"  {hint}", err=True, dim=True)
    if code:
        click.secho(f"  more: replayflow explain {code}", err=True, dim=True)


def _document(error: BaseException) -> dict[str, Any]:
    document: dict[str, Any] = {"code": _code(error), "type": _type(error), "message": _message(error)}
    if isinstance(error, OrchestrationFailed):
        document["details"] = values.failure(error.details)
    if isinstance(error, ImportFailedError):
        document["traceback"] = error.trace
    return document


def failure_lines(details: FailureDetails) -> Iterator[str]:
    """A failure for people: type and message of each error in the chain, each with its frames in user code."""
    for depth, each in enumerate(details.chain()):
        message = each.message if each.inner is None else each.message.removesuffix(f": {each.inner}")
        head = click.style(printable(each.type), fg="red") + (f": {printable(message)}" if message else "")
        yield head if depth == 0 else f"caused by {head}"
        yield from map(printable, user_stack(each.stack))


def user_stack(stack: str) -> Iterator[str]:
    """The lines of a formatted stack, without the frames of the engine."""
    is_kept = False
    for line in stack.splitlines():
        if line.startswith('  File "'):
            is_kept = _ENGINE_FRAME.match(line) is None
        if is_kept and line.strip(" ^~"):
            yield line


def _code(error: BaseException) -> str | None:
    return str(getattr(error, "code")) if isinstance(error, errors.ReplayflowError) else None  # noqa: B009


def _type(error: BaseException) -> str:
    """The class as `replayflow.errors` names it, where it is one of ours."""
    public = next((cls for cls in type(error).__mro__ if cls.__module__ == errors.__name__), type(error))
    return public.__name__


def _message(error: BaseException) -> str:
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, errors.HubOwnedError):
        return str(error).partition(": stop it")[0]  # the hint says it in words of the command line
    if isinstance(error, OrchestrationFailed):
        return str(error).removesuffix(f": {error.details}")
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return "interrupted"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {str(error.filename)!r:.200}"
    return str(error) or type(error).__name__
