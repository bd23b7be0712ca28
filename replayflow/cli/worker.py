"""worker: serves an app on a hub until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Literal, TypeAlias

import click

from replayflow.cli import output
from replayflow.cli.failures import Interrupted
from replayflow.cli.options import grace_option, span, store_options
from replayflow.cli.signals import run_until_signal
from replayflow.cli.target import load_app
from replayflow.core.versions import VersionFailureStrategy, VersioningOptions, VersionMatchStrategy
from replayflow.engine import Limits, Retention
from replayflow.errors import HubOwnedError, InvalidArgumentError
from replayflow.hub import TaskHub
from replayflow.registry import App, own_names
from replayflow.store import store_at

_RETAINED = ("finished", "completed", "failed", "terminated", "canceled", "executions")
_WhenOwned: TypeAlias = Literal["error", "wait", "take-over"]
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def _choice(strategies: type[StrEnum]) -> click.Choice[str]:
    return click.Choice([str(strategy).replace("_", "-") for strategy in strategies])


@click.command()
@click.argument("target", metavar="MODULE:APP")
@click.option(
    "--when-owned",
    type=click.Choice(["error", "wait", "take-over"]),
    default="error",
    show_default=True,
    help="What to do where another worker owns the store: give up, wait until it ends, or take it by force, which is for a worker that does nothing "
    "and cannot be ended: what it was doing is done again here, at the same time if it wakes.",
)
@click.option(
    "--retain",
    metavar="WHAT=AGE",
    multiple=True,
    callback=lambda _context, _option, texts: _retention(texts),
    help="How long finished instances stay: finished=30d, or by their end, completed=7d, failed, terminated, canceled; executions=3 keeps as many "
    "past executions of each. Many times for several.  [default: all for ever]",
)
@click.option("--version", metavar="VERSION", help="The version of this worker, for --match.")
@click.option(
    "--match",
    type=_choice(VersionMatchStrategy),
    default="none",
    show_default=True,
    help="Which instances it takes: of any version, of its own alone, of its own and older ones.",
)
@click.option(
    "--on-mismatch",
    type=_choice(VersionFailureStrategy),
    default="reject",
    show_default=True,
    help="What becomes of instances of another version: they wait for another worker, or fail.",
)
@click.option("--default-version", metavar="VERSION", help="For children started without one.  [default: the newest]")
@grace_option
@store_options
def worker(
    target: str,
    when_owned: _WhenOwned,
    retain: Retention | None,
    version: str | None,
    match: str,
    on_mismatch: str,
    default_version: str | None,
    grace: timedelta,
    store: str | None,
    as_json: bool,
) -> None:
    """Run what is started on a store, until Ctrl-C or SIGTERM.

    The first Ctrl-C lets running activities end, the second ends at once; nothing is lost either way. With --json a
    document on stdout says what is served, once it is. What the code prints goes to stderr.
    """
    versioning = VersioningOptions(version, default_version, match.replace("-", "_"), on_mismatch)
    app = load_app(target)
    _log_to_stderr()
    stdout = sys.stdout

    def announce() -> None:
        served = _served(app, store)
        if as_json:
            output.document(served, stdout)
        else:
            _tell(target, served)

    try:
        with contextlib.redirect_stdout(sys.stderr):
            hub = partial(TaskHub, store, app, limits=Limits(grace=grace), retention=retain, versioning=versioning)
            run_until_signal(_serve(hub, when_owned, announce), lambda: _stopping(grace))
    except Interrupted:
        output.note("stopped")


async def _serve(make: Callable[..., TaskHub], when_owned: _WhenOwned, announce: Callable[[], None]) -> None:
    try:
        async with make(when_owned="take_over" if when_owned == "take-over" else "error") as hub:
            announce()
            await hub.serve()
    except HubOwnedError as owned:
        if when_owned != "wait":
            raise
        output.note(f"waiting: {str(owned).partition(':')[0]}")
        async with make(when_owned="wait") as hub:
            announce()
            await hub.serve()


def _retention(texts: Sequence[str]) -> Retention | None:
    """The retention that the texts give; None without any.

    Raises:
        InvalidArgumentError: one of them is none.
    """
    given: dict[str, Any] = {}
    for text in texts:
        what, _, age = text.partition("=")
        try:
            if what not in _RETAINED:
                raise ValueError(what)
            given[what] = int(age) if what == "executions" else span(age)
        except (ValueError, OverflowError):
            raise InvalidArgumentError(
                f"--retain is {text!r:.80}; write {', '.join(f'{each}=7d' for each in _RETAINED[:-1])} (s, m, h or d), or executions=3"
            ) from None
    return Retention(**given) if given else None


def _served(app: App, store: str | None) -> dict[str, Any]:
    return {
        "store": store_at(store).url,
        "process_id": os.getpid(),
        "orchestrators": own_names(app.orchestrators),
        "activities": own_names(app.activities),
        "entities": sorted(app.entities),
    }


def _tell(target: str, served: dict[str, Any]) -> None:
    output.note(f"serving {target} on {served['store']}, process {served['process_id']}; Ctrl-C stops")
    for what in ("orchestrators", "activities", *(["entities"] if served["entities"] else [])):
        output.note(f"  {what}: {', '.join(served[what]) or 'none'}")


def _stopping(grace: timedelta) -> None:
    output.note(f"stopping: running activities have {grace.total_seconds():g} s to end; again ends at once")


def _log_to_stderr() -> None:
    """Warnings of all, and what replayflow and its contexts' loggers say; where the user's module has set up logging, that holds."""
    if not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(output.LogLines(_LOG_FORMAT))
        logging.basicConfig(handlers=[handler], level=logging.WARNING)
        logging.getLogger("replayflow").setLevel(logging.INFO)
