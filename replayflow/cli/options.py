"""Options that several commands share, and what their texts mean."""

from __future__ import annotations

import functools
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from replayflow.cli.values import JsonText
from replayflow.client import Wanted
from replayflow.core.instance import Status
from replayflow.errors import InvalidArgumentError

F = TypeVar("F", bound=Callable[..., Any])
STDIN = "-"
_COUNT_MAX = 2**53
_GRACE_SECONDS_MAX = 366 * 24 * 3600.0


def store_options(command: F) -> F:
    """`--store` and `--json`, as `store` and `as_json`: on every command that talks to a store."""
    return _all(
        command,
        click.option(
            "--store",
            metavar="URL",
            envvar="REPLAYFLOW_STORE",
            show_envvar=True,
            help="The store: a path or sqlite:///path.  [default: replayflow.db]",
        ),
        json_option,
    )


def json_option(command: F) -> F:
    """`--json`, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; errors as JSON, too.")(
        command
    )


def input_options(command: F) -> F:
    """`--input` and `--input-file`, as `input` and `input_file`; `given_input` reads them."""
    return _all(
        command,
        click.option("--input", metavar="JSON", help="The input; - reads it from stdin."),
        click.option("--input-file", metavar="PATH", help="A file that has the input as JSON."),
    )


class Seconds(click.FloatRange):
    """A length of time in seconds: none that is less than nothing, and not the number that is none."""

    def __init__(self, max: float | None = None) -> None:
        super().__init__(min=0, max=max)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if seconds != seconds:
            self.fail(f"{value!r} is no length of time.", param, ctx)
        return seconds


class Count(click.IntRange):
    """A whole number that a store, and whoever counts so far, can take."""

    def __init__(self, min: int) -> None:
        super().__init__(min=min, max=_COUNT_MAX)


def grace_option(command: F) -> F:
    """`--grace`, as `grace`: a timedelta."""
    return click.option(
        "--grace",
        metavar="SECONDS",
        type=Seconds(max=_GRACE_SECONDS_MAX),
        default=10.0,
        show_default=True,
        callback=lambda _context, _option, value: timedelta(seconds=value),
        help="How long running activities get to end when the worker stops.",
    )(command)


def tag_option(what: str, option: str = "--tag", name: str = "tags") -> Callable[[F], F]:
    """`--tag KEY=VALUE`, many times, as `tags`, or as the option and the name given: a dict."""
    return click.option(
        option, name, metavar="KEY=VALUE", multiple=True, callback=lambda _c, _o, texts: tags(texts), help=what
    )


_STATUSES = [str(status) for status in Status if status is not Status.CONTINUED_AS_NEW]
_WHEN = "An ISO time with its zone, or so long ago: -90, -3h, -2d."


def filter_options(command: F) -> F:
    """The options that say which instances, as `wanted`: what `Client.list` takes."""

    @functools.wraps(command)
    def with_filter(*args: Any, **given: Any) -> Any:
        wanted: Wanted = {
            "status": given.pop("statuses") or None,
            "name": given.pop("name"),
            "id_prefix": given.pop("prefix"),
            "tags": given.pop("tags"),
            "parent": given.pop("parent"),
            "parked": given.pop("parked") or None,
            "include_entities": given.pop("entities"),
            "created_from": given.pop("created_from"),
            "created_to": given.pop("created_to"),
            "completed_from": given.pop("completed_from"),
            "completed_to": given.pop("completed_to"),
        }
        return command(*args, wanted=wanted, **given)

    return _all(
        cast("F", with_filter),
        click.option(
            "--status",
            "statuses",
            multiple=True,
            type=click.Choice(_STATUSES, case_sensitive=False),
            help="Many times for any of them.",
        ),
        click.option("--name", help="The orchestrator's name."),
        click.option("--prefix", help="What the id begins with."),
        tag_option("A tag that it has; many times for all of them."),
        click.option("--parent", metavar="ID", help="The instance whose sub-orchestrations they are."),
        click.option(
            "--parked",
            is_flag=True,
            help="Only those set aside with a problem: code that does not fit, a compensation that failed for good, the death of workers, ...",
        ),
        click.option("--entities", is_flag=True, help="Entities, too."),
        *(
            click.option(f"--{what}-{end}", metavar="TIME", callback=_past_moment, help=f"{text} {_WHEN}")
            for what, end, text in (
                ("created", "from", "Created then or later."),
                ("created", "to", "Created before then."),
                ("completed", "from", "Ended then or later."),
                ("completed", "to", "Ended before then."),
            )
        ),
    )


def _past_moment(_context: click.Context, option: click.Parameter, text: str | None) -> datetime | None:
    if text is None:
        return None
    name = f"--{option.name}".replace("_", "-")
    try:
        if text.startswith("-"):
            return datetime.now(UTC) - span(text[1:])
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise InvalidArgumentError(
            f"{name} is {text!r:.80}; write an ISO time with its zone, 2030-01-31T08:00:00+01:00, or a time ago: {name} -90, {name} -3h"
        ) from None
    if moment.tzinfo is None:
        whole = moment.isoformat()
        raise InvalidArgumentError(
            f"{name} is {text!r}, which has no time zone: write {whole}Z for UTC, or {whole}+01:00"
        )
    return moment


_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def span(text: str) -> timedelta:
    """The length of time that a text gives: seconds, or numbers with their units: `90`, `15m`, `1h30m`, `2d`.

    Raises:
        ValueError: it gives none.
        OverflowError: it is too long.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdw])", text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError(text)
    return timedelta(seconds=seconds)


def given_input(text: str | None, file: str | None) -> JsonText | None:
    """The input that the options give; None where they give none.

    Raises:
        InvalidArgumentError: it is not JSON, or cannot be read, or is given twice.
    """
    if text is not None and file is not None:
        raise InvalidArgumentError("--input and --input-file are both given; one of them says what the input is")
    if text == STDIN:
        return _json(_stdin(), "the text on stdin")
    if file is not None:
        return _json(_content(file), f"the content of {file}")
    return None if text is None else json_text(text, "--input")


def json_text(text: str, option: str) -> JsonText:
    """The JSON that an option has.

    Raises:
        InvalidArgumentError: it is not JSON; the message shows how to quote it.
    """
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip()[:1] in ("{", "[", '"'):
            hint = f"""{error}; in a shell, keep it together with single quotes: {option} '{{"id": "o-1"}}'"""
        else:
            hint = f"a text is quoted twice, once for the shell and once for JSON: {option} {shlex.quote(json.dumps(text, ensure_ascii=False))}"
        raise InvalidArgumentError(f"{option} is not JSON: {text!r:.80}: {hint}") from None
    return JsonText(text)


def tags(texts: Iterable[str]) -> dict[str, str]:
    """The tags of `KEY=VALUE` texts.

    Raises:
        InvalidArgumentError: one has no `=`.
    """
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InvalidArgumentError(f"--tag is {text!r:.80}; write it as --tag key=value")
        found[key] = value
    return found


def start_at(text: str | None) -> datetime | timedelta | None:
    """The time that `--at` gives: so long from now, `+90`, `+3h`, or an ISO time with its zone.

    Raises:
        InvalidArgumentError: it is neither.
    """
    if text is None:
        return None
    try:
        if text.startswith("+"):
            return span(text[1:])
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise InvalidArgumentError(
            f"--at is {text!r:.80}; write +90 (seconds from now), +15m, +3h, or an ISO time with its zone: 2030-01-31T08:00:00+01:00"
        ) from None
    if moment.tzinfo is None:
        raise InvalidArgumentError(f"--at is {text!r}, which has no time zone: write {text}Z for UTC, or {text}+01:00")
    return moment


def _all(command: F, *decorators: Callable[[F], F]) -> F:
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"the text on stdin is not UTF-8: {error}") from None


def _content(file: str) -> str:
    try:
        return Path(file).read_text("utf-8-sig")
    except OSError as error:
        raise InvalidArgumentError(f"--input-file {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"--input-file {file} is not UTF-8: {error}") from None


def _json(text: str, where: str) -> JsonText:
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"{where} is not JSON: {error}") from None
    return JsonText(text)
