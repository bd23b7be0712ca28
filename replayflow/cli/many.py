"""What the verbs share when they are meant for many: a filter, a count of those that fit, and the question whether that is what was wanted."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import click

from replayflow.cli import output
from replayflow.cli.access import open_client
from replayflow.cli.options import filter_options
from replayflow.client import BulkOutcome, Client, Wanted
from replayflow.errors import InvalidArgumentError, InvalidStateError

F = TypeVar("F", bound=Callable[..., Any])
Tell = Callable[[BulkOutcome], tuple[str, dict[str, Any]]]
Ask = Callable[[Client, dict[str, Any]], Awaitable[BulkOutcome]]


@dataclass(frozen=True, slots=True)
class Many:
    """The options of a verb for many."""

    wanted: Wanted
    everybody: bool
    yes: bool
    dry_run: bool

    def is_meant(self, id: str | None) -> bool:
        """Whether many are meant, and not the one with the id.

        Raises:
            InvalidArgumentError: both are given.
            UsageError: nothing is given.
        """
        has_filter = self.everybody or any(self.wanted.values())
        if id is not None and has_filter:
            raise InvalidArgumentError("an id and a filter are both given; one of them says who is meant")
        if id is not None and self.dry_run:
            raise InvalidArgumentError(
                "--dry-run counts those that a filter finds; an id is one, or none: replayflow show ID"
            )
        if id is None and not has_filter:
            raise click.UsageError("Say who is meant: an ID, a filter such as --status or --name, or --all.")
        return id is None

    def ask(
        self,
        verb: str,
        ask: Ask,
        store: str | None,
        as_json: bool,
        *,
        phrase: str | None = None,
        tell: Tell | None = None,
    ) -> None:
        """All that fit are asked, once it is certain that they are meant, and it is said what became of it.

        `phrase` is what a person is asked, where it is more than the verb; `tell` says what became of it, for people and for scripts.

        Raises:
            InvalidStateError: there are some, and every one has refused.
        """

        async def run() -> tuple[BulkOutcome, bool]:
            async with open_client(store) as client:
                if not self.yes or self.dry_run:
                    counted = await ask(client, {**self.wanted, "dry_run": True})
                    if self.dry_run or not counted.found or not self._confirm(phrase or verb, counted.found, as_json):
                        return counted, False
                return await ask(client, {**self.wanted}), True

        outcome, is_done = asyncio.run(run())
        if not is_done:
            output.done(as_json, f"{_fit(outcome.found)}; nothing was asked", found=outcome.found)
            return
        text, fields = (tell or _tell)(outcome)
        output.done(as_json, f"{phrase or verb} {text}" if tell is None else text, requested=verb, **fields)
        if not as_json:
            for reason, times in outcome.reasons.most_common():
                output.note(f"  {times:,} time{'' if times == 1 else 's'}: {reason}")
        if outcome.refused and not outcome.done:
            raise InvalidStateError("every instance that fits has refused")

    def _confirm(self, verb: str, count: int, as_json: bool) -> bool:
        if as_json or not sys.stdin.isatty():
            raise click.UsageError(
                f"{_fit(count)}. Pass --yes to {verb} {'it' if count == 1 else 'them'}, or --dry-run to count only."
            )
        return click.confirm(output.printable(f"{verb} {instances(count)}?"), err=True)


def instances(count: int) -> str:
    """So many instances, in words."""
    return f"{count:,} instance{'' if count == 1 else 's'}"


def _fit(count: int) -> str:
    return f"{instances(count)} {'fits' if count == 1 else 'fit'}"


def _tell(outcome: BulkOutcome) -> tuple[str, dict[str, Any]]:
    return (
        f"{instances(outcome.found)}: {outcome.done:,} accepted, {outcome.refused:,} refused",
        {
            "found": outcome.found,
            "done": outcome.done,
            "refused": outcome.refused,
            "reasons": dict(outcome.reasons),
        },
    )


def many_options(command: F) -> F:
    """The filter's options, `--all`, `--yes` and `--dry-run`, as `many`."""

    @functools.wraps(command)
    def with_many(*args: Any, wanted: Wanted, everybody: bool, yes: bool, dry_run: bool, **given: Any) -> Any:
        return command(*args, many=Many(wanted, everybody, yes, dry_run), **given)

    decorated = click.option("--dry-run", is_flag=True, help="Count those that fit, and ask nobody.")(with_many)
    decorated = click.option("--yes", "-y", is_flag=True, help="Do not ask whether that is what is wanted.")(decorated)
    decorated = click.option("--all", "everybody", is_flag=True, help="All that the verb has a meaning for.")(decorated)
    return cast("F", filter_options(decorated))
