"""`replayflow doctor`: what is stuck in a hub, or about to be, each with what to do next."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import click

from replayflow.cli import output
from replayflow.cli.access import open_client
from replayflow.cli.options import span, store_options
from replayflow.cli.target import load_app
from replayflow.client.doctor import Examination, Finding, Patience, size_text
from replayflow.errors import InvalidArgumentError

F = TypeVar("F", bound=Callable[..., Any])
PROBLEMS = 1
_WHAT = {
    "event": "an instance may wait for an event that has no time limit",
    "activity": "an attempt of an activity may take",
    "message": "a message may wait until its receiver takes it in",
    "suspended": "an instance may be suspended",
    "late": "a timer or a schedule may be late",
}


def _patience_options(command: F) -> F:
    for field in reversed(dataclasses.fields(Patience)):
        command = click.option(
            f"--{field.name}",
            metavar="LENGTH",
            callback=_given,
            help=f"How long {_WHAT[field.name]}: 90, 15m, 3h, 2d.  [default: {_short(field.default)}]",
        )(command)
    return command


def _given(_context: click.Context, option: click.Parameter, text: str | None) -> timedelta | None:
    try:
        return None if text is None else span(text)
    except (ValueError, OverflowError):
        raise InvalidArgumentError(f"--{option.name} is {text!r:.80}; write seconds, or 15m, 3h, 2d") from None


def _short(default: Any) -> str:
    seconds = int(default.total_seconds())
    number, unit = next(
        (seconds // size, unit) for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")) if seconds >= size
    )
    return f"{number}{unit}"


@click.command()
@click.argument("target", metavar="[MODULE:APP]", required=False)
@click.option(
    "--integrity", is_flag=True, help="Read and check the whole file, too: some 20 seconds for each gigabyte."
)
@_patience_options
@store_options
def doctor(target: str | None, integrity: bool, store: str | None, as_json: bool, **limits: timedelta | None) -> None:
    """Find what is stuck in the hub, or about to be.

    With MODULE:APP also what waits for code that the app does not have. Exits with 1 where there are problems.
    """
    app = None if target is None else load_app(target)
    patience = Patience(**{name: limit for name, limit in limits.items() if limit is not None})

    async def read() -> Examination:
        async with open_client(store, app) as client:
            return await client.examine(patience=patience, is_thorough=integrity)

    found = asyncio.run(read())
    if as_json:
        output.document(_document(found))
    else:
        _tell(found, integrity)
    if found.problems:
        click.get_current_context().exit(PROBLEMS)


def _tell(found: Examination, integrity: bool) -> None:
    counts = ", ".join(f"{count:,} {status}" for status, count in sorted(found.counts.items())) or "none"
    whole = ", whole" if integrity and not found.condition.faults else ""
    rows = [
        ("worker", found.worker or "none"),
        ("instances", counts),
        ("store", f"{size_text(found.condition.size)}, format {found.condition.format}{whole}"),
    ]
    output.pairs(output.console(), rows)
    for finding in found.findings:
        output.line()
        label = (
            click.style("problem", fg="red", bold=True) if finding.is_problem else click.style("notice", fg="yellow")
        )
        click.echo(f"{label}: {output.printable(f'{finding.text}{_examples(finding)}')}")
        output.line(f"  {finding.advice}")
    output.line()
    problems = len(found.problems)
    output.line(f"{problems} {'problem' if problems == 1 else 'problems'}" if problems else "no problems")


def _examples(finding: Finding) -> str:
    if not finding.examples or finding.topic == "schedule":
        return ""
    more = ", ..." if finding.count > len(finding.examples) else ""
    return f" ({', '.join(finding.examples)}{more})"


def _document(found: Examination) -> dict[str, Any]:
    return {
        "problems": len(found.problems),
        "findings": [dataclasses.asdict(finding) for finding in found.findings],
        "worker": found.worker,
        "instances": found.counts,
        "store": {
            "size": found.condition.size,
            "free": found.condition.free,
            "log": found.condition.log,
            "format": found.condition.format,
            "faults": list(found.condition.faults),
        },
    }
