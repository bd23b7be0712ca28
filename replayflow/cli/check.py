"""check: replays every open history of a store against the code at hand, before that code is deployed. It changes nothing, and creates nothing."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from replayflow.cli import output
from replayflow.cli.access import open_store
from replayflow.cli.options import Count, store_options
from replayflow.cli.target import load_app
from replayflow.codec import Codec
from replayflow.engine.checking import Verdict, check_open
from replayflow.errors import (
    DecodeError,
    EntityStateError,
    NonDeterminismError,
    ReplayflowError,
    SealedError,
    UnknownNameError,
    VersionMismatchError,
)
from replayflow.registry import App

_IDS_SHOWN = 10
_ENDS_UNREAD = "FAILED (DecodeError: input of orchestrator"
_NEXT: tuple[tuple[type[ReplayflowError], str], ...] = (
    (
        NonDeterminismError,
        (
            "put the old code back; or keep it beside the new one as another version, @app.orchestrator(name='...', version='...'); "
            "or ask ctx.patched('...') where they part"
        ),
    ),
    (
        VersionMismatchError,
        "keep the code of that version beside the others, or register code without a version for all that have none of their own",
    ),
    (
        UnknownNameError,
        "register the name, or include the app that has it; or end those that nobody needs: replayflow terminate ID",
    ),
    (
        EntityStateError,
        "give a new field of the state a default, and keep an old one until every entity has been performed once",
    ),
    (SealedError, "nothing is known of these yet: check them again with the key"),
    (DecodeError, "let the annotation take the old input, too, or give a changed field a default"),
)


@dataclass(slots=True)
class _Group:
    """The open instances of one orchestrator in one version: how many, and those that do not fit, by what is wrong."""

    name: str
    version: str | None
    open: int = 0
    parked: int = 0
    warned: int = 0
    differing: dict[tuple[str, ...], list[Verdict]] = field(default_factory=dict)

    @property
    def misfits(self) -> int:
        return sum(map(len, self.differing.values()))

    def take(self, verdict: Verdict) -> None:
        self.open += 1
        self.parked += verdict.parked is not None
        self.warned += bool(verdict.warnings)
        if verdict.problem is not None:
            what = (verdict.then, verdict.now) if verdict.then else (_without_id(verdict),)
            self.differing.setdefault(what, []).append(verdict)


@click.command()
@click.argument("target", metavar="MODULE:APP")
@click.option("--name", help="Only this orchestrator's instances; @NAME for those of an entity.")
@click.option("--version", metavar="VERSION", help="Only those of this version; '' for those without one.")
@click.option("--limit", type=Count(min=1), help="Check so many at most.  [default: all]")
@click.option("--all", "shows_all", is_flag=True, help="Name those that fit, too.")
@store_options
def check(
    target: str,
    name: str | None,
    version: str | None,
    limit: int | None,
    shows_all: bool,
    store: str | None,
    as_json: bool,
) -> None:
    """Say which open instances this code no longer fits.

    Each open history is replayed, whether it waits, sleeps, is suspended or parked; nothing is written, and a worker may
    run meanwhile. Exits with 1 where an instance does not fit.
    """
    app = load_app(target)
    with contextlib.redirect_stdout(sys.stderr):  # what the user's code prints
        verdicts = asyncio.run(_verdicts(app, store, name, version, limit, tells=sys.stderr.isatty() and not as_json))
    groups = _grouped(verdicts)
    if as_json:
        output.document(_document(verdicts, groups))
    elif not verdicts:
        output.note("nothing that is open fits these options" if name or version is not None else "nothing is open")
    else:
        _tell(verdicts, groups, shows_all=shows_all)
    if any(not verdict.fits for verdict in verdicts):
        click.get_current_context().exit(1)


async def _verdicts(
    app: App, url: str | None, name: str | None, version: str | None, limit: int | None, *, tells: bool
) -> list[Verdict]:
    found: list[Verdict] = []
    async with open_store(url) as store:
        async for batch in check_open(store, app, Codec(), name=name, version=version, limit=limit):
            found += batch
            if tells:
                click.echo(f"\rchecked {len(found):,}", nl=False, err=True)
    if tells:
        click.echo("\r\x1b[K", nl=False, err=True)
    return found


def _grouped(verdicts: Iterable[Verdict]) -> list[_Group]:
    groups: dict[tuple[str, str], _Group] = {}
    for verdict in verdicts:
        key = (verdict.name, verdict.version or "")
        groups.setdefault(key, _Group(verdict.name, verdict.version)).take(verdict)
    return [groups[key] for key in sorted(groups)]


# ---- for people ------------------------------------------------------------------------------------------------


def _tell(verdicts: Sequence[Verdict], groups: Sequence[_Group], *, shows_all: bool) -> None:
    rows = [
        [
            group.name,
            group.version or "",
            *(f"{count:,}" for count in (group.open, group.open - group.misfits, group.misfits, group.parked)),
        ]
        for group in groups
    ]
    output.table(output.console(), ("name", "version", "open", "fit", "do not fit", "parked"), rows, whole=2)
    if shows_all:
        output.line()
        output.line("\n".join(f"{one.instance_id} fits" for one in verdicts if one.fits))
    for group in groups:
        _tell_group(group)
    misfits = sum(group.misfits for group in groups)
    instances = f"{len(verdicts):,} open instance{'s' if len(verdicts) > 1 else ''}"
    output.line(
        f"\nthe code fits {instances}" if not misfits else f"\nthe code does not fit {misfits:,} of {instances}"
    )


def _tell_group(group: _Group) -> None:
    title = group.name if group.version is None else f"{group.name}, version {group.version}"
    for what, those in group.differing.items():
        ids = ", ".join(one.instance_id for one in those[:_IDS_SHOWN])
        more = f", and {len(those) - _IDS_SHOWN:,} more" if len(those) > _IDS_SHOWN else ""
        output.line(f"\n{title}: {len(those):,} of {group.open:,}")
        for line in what:
            output.line(f"  {line}")
        output.line(f"  instances: {ids}{more}")
        advice = _advice(those[0])
        if advice:
            output.line(f"  what next: {advice}")
    if group.warned:
        output.note(
            f"{title}: {group.warned:,} fit, but ask for something with another input or target than then; --json says what"
        )


def _advice(verdict: Verdict) -> str:
    return what_next(verdict.problem)


def what_next(problem: BaseException | None) -> str:
    """What to do where the code does not fit an instance."""
    if isinstance(problem, NonDeterminismError) and _ENDS_UNREAD in problem.now:
        return dict(_NEXT)[DecodeError]
    return next((text for kind, text in _NEXT if isinstance(problem, kind)), "")


def _without_id(verdict: Verdict) -> str:
    """The problem, as it is the same for many."""
    return str(verdict.problem).replace(f"instance '{verdict.instance_id}'", "instance '...'")


# ---- for scripts -----------------------------------------------------------------------------------------------


def _document(verdicts: Sequence[Verdict], groups: Sequence[_Group]) -> dict[str, Any]:
    return {
        "checked": len(verdicts),
        "misfits": sum(group.misfits for group in groups),
        "groups": [
            {
                "name": group.name,
                "version": group.version,
                "open": group.open,
                "fit": group.open - group.misfits,
                "misfits": group.misfits,
                "parked": group.parked,
            }
            for group in groups
        ],
        "instances": [
            {
                "id": one.instance_id,
                "name": one.name,
                "version": one.version,
                "status": str(one.status),
                "fits": one.fits,
                "code": None if one.problem is None else one.problem.code,
                "problem": None if one.problem is None else str(one.problem),
                "then": one.then or None,
                "now": one.now or None,
                "warnings": list(one.warnings),
                "parked": one.parked,
                "what_next": _advice(one) or None,
            }
            for one in verdicts
        ],
    }
