"""What goes to stdout: JSON documents for scripts, tables for people; and notes for people on stderr.

1. Nothing that was stored, or given, steers a terminal: what is written here, and all that the other modules of this room write, is `printable`.
2. rich is imported where a table is drawn, and nowhere else: `--json` and completion do not wait for it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

from replayflow.client import InstanceState
from replayflow.core.instance import Status

_PIPE_COLUMNS = 200
# Control characters but the tab and the line feed, of the C1 set as well, and those that turn the direction in which a text is read.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_COLORS = {
    Status.PENDING: "cyan",
    Status.RUNNING: "blue",
    Status.SUSPENDED: "yellow",
    Status.COMPLETED: "green",
    Status.FAILED: "red",
    Status.TERMINATED: "magenta",
    Status.CANCELED: "magenta",
    Status.CONTINUED_AS_NEW: "cyan",
}


def document(value: Any, to: TextIO | None = None) -> None:
    """One JSON document is on stdout, or where `to` says; indented where a person looks at it."""
    stream = to or sys.stdout
    is_utf = "utf" in (getattr(stream, "encoding", None) or "").lower()
    text = json.dumps(value, ensure_ascii=not is_utf, indent=2 if stream.isatty() else None)
    click.echo(printable_json(text), file=stream)


def printable(text: str) -> str:
    """The text as a terminal may have it: a character that would steer it stands there as its escape, such as `\\x1b`."""
    return _STEERING.sub(lambda found: repr(found[0])[1:-1], text)


def printable_json(text: str) -> str:
    """The same JSON, with JSON's own escapes."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def line(text: str = "", to: TextIO | None = None) -> None:
    """A line for people is on stdout, or where `to` says."""
    click.echo(printable(text), file=to)


def note(text: str) -> None:
    """A line for people is on stderr."""
    click.echo(printable(text), err=True)


class LogLines(logging.Formatter):
    """Lines of a log, printable."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def done(as_json: bool, text: str, **fields: Any) -> None:
    """A request was accepted: the text for people, the fields for scripts."""
    if as_json:
        document(fields)
    else:
        line(text)


def console() -> Console:
    """A console on stdout. A pipe is wide, unless $COLUMNS says how wide: what is filtered must not be cut."""
    from rich.console import Console

    is_narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(
        file=sys.stdout, width=None if is_narrow else _PIPE_COLUMNS, markup=False, highlight=False, emoji=False
    )


def table(
    to: Console, headings: Sequence[str], rows: Iterable[Sequence[str | Text]], whole: int, *, cuts_last: bool = True
) -> None:
    """The rows as a table. The first `whole` columns are not broken, the last one is cut where it does not fit, those between are folded.

    Without `cuts_last` the last one is folded, too.
    """
    from rich.table import Table

    cells = [[cell(value) for value in row] for row in rows]
    for row in cells if cuts_last else []:
        row[-1].no_wrap, row[-1].overflow = True, "ellipsis"
    drawn = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for number, heading in enumerate(headings):
        widest = max((row[number].cell_len for row in cells), default=0)
        drawn.add_column(heading, no_wrap=number < whole and widest <= to.width // 2, overflow="fold")
    for row in cells:
        drawn.add_row(*row)
    to.print(drawn)


def pairs(to: Console, rows: Iterable[tuple[str, str | Text]]) -> None:
    """The rows as labels and texts, in full."""
    from rich.table import Table

    drawn = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    drawn.add_column(no_wrap=True, style="bold")
    drawn.add_column(overflow="fold")
    for label, text in rows:
        drawn.add_row(label, cell(text))
    to.print(drawn)


def cell(value: str | Text) -> Text:
    """The text as it is: nothing in it is markup, and nothing steers the terminal."""
    from rich.text import Text

    return Text(printable(value)) if isinstance(value, str) else value


def status(state: InstanceState) -> Text:
    """The status in its colour, with a mark when the instance is parked."""
    from rich.text import Text

    text = Text(str(state.status), style=_COLORS[state.status])
    if state.damage is not None:
        text.append(" damaged", style="bold red")
    elif state.problem is not None:
        text.append(" parked", style="bold red")
    return text
