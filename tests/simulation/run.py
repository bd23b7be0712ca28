"""One seed: its world is made, lived through, calmed down, and judged."""

from __future__ import annotations

import asyncio
import atexit
import gc
import logging
import os
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any
from unittest import mock

from replayflow.core.entity import entity
from replayflow.engine.watchdog import Watchdog
from tests.simulation import code, faults, workloads
from tests.simulation.disk import Disk
from tests.simulation.laws import Watch
from tests.simulation.loop import SimLoop, SimulationStuck
from tests.simulation.world import Manner, SimClock, World

STEPS = 500
CALM_STEPS_MAX = 30_000
CALM_DAYS_MAX = 60
WORLDS_BURIED_TOGETHER = 10
MakeDisk = Callable[..., Disk]


@dataclass(slots=True)
class Report:
    """What came of a seed."""

    seed: int
    digest: str
    steps: int
    all_steps: int
    events: int
    workloads: int
    faults: Counter[str] = field(default_factory=Counter)
    problem: str | None = None
    trace: list[str] = field(default_factory=list)


def run_seed(
    seed: int, steps: int = STEPS, *, keeps_trace: bool = False, disk_of: MakeDisk = Disk, only: str | None = None
) -> Report:
    """The world of the seed has been lived through. `disk_of` makes its store, `only` is the one workload that it has."""
    setting, happening, entropy = (Random(f"{seed}/{part}") for part in ("setting", "happening", "entropy"))
    mixture, manner = faults.drawn(setting), Manner.drawn(setting)
    loop = SimLoop(manner.bunch_seconds)
    watch = Watch(loop, keeps_all=keeps_trace)
    large = {} if manner.large_over_bytes is None else {"large_over_bytes": manner.large_over_bytes}
    world = World(loop, happening, mixture, manner, watch, disk_of(watch, **large), SimClock(loop), code.app_of)
    kinds = workloads.chosen(setting, only)
    watch.note(f"seed {seed}: {mixture} {manner} {[kind.__name__ for kind in kinds]}")
    problem: str | None = None
    shorter = mock.patch.object(entity, "SNAPSHOT_AFTER_PIECES", manner.snapshot_after_pieces)
    with shorter, _no_chance_from_outside(entropy), _listening(watch), _without_collector():
        try:
            loop.run_until_complete(_live(world, kinds, steps))
        except SimulationStuck as stuck:
            problem = f"stuck: {stuck}"
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            if not isinstance(error, AssertionError):
                watch.lines.append("".join(traceback.format_exception(error)))
        if watch.broken is not None:
            problem = str(watch.broken)
        report = Report(
            seed,
            watch.digest,
            min(loop.steps, steps),
            loop.steps,
            watch.events,
            world.begun,
            watch.faults,
            problem=problem,
            trace=list(watch.lines),
        )
        loop.close()
        _bury(world)
    return report


def described(report: Report, steps: int = STEPS) -> str:
    """What broke, what happened last, and how to see it again."""
    if report.problem is None:
        return f"seed {report.seed}: {report.all_steps} steps, {report.events} events, {report.workloads} workloads, digest {report.digest}"
    command = f"python -m tests.simulation --seed {report.seed} --steps {steps} --trace"
    return "\n".join(
        [f"seed {report.seed} FAILED: {report.problem}", *report.trace[-40:], f"to see it again: {command}"]
    )


def run_one(work: tuple[int, int, str | None]) -> Report:
    """`run_seed`, for a pool."""
    seed, steps, only = work
    return run_seed(seed, steps, only=only)


async def _live(world: World, kinds: list[workloads.Workload], steps: int) -> None:
    loop, watch = world.loop, world.watch
    loop.set_exception_handler(lambda _, context: _unhandled(world, context))
    keeping = asyncio.ensure_future(world.keep_working())
    storms = world.begin_faults()
    begun: set[asyncio.Task[None]] = set()
    while loop.steps < steps and watch.broken is None:
        if len(begun) < world.chance.randint(2, 8):
            kind = world.chance.choice(kinds)
            world.begun += 1
            begun.add(loop.create_task(kind(world), name=kind.__name__))
        await world.pause(0.3)
        begun = _still(world, begun)
    for storm in storms:
        storm.cancel()
    world.calm_down()
    deadline, last = loop.time() + CALM_DAYS_MAX * 86_400, loop.steps + CALM_STEPS_MAX
    while begun and watch.broken is None:
        await asyncio.wait(begun, timeout=3_600, return_when="FIRST_COMPLETED")
        begun = _still(world, begun)
        if begun and (loop.time() > deadline or loop.steps > last):
            raise watch.fail(
                f"nothing comes of {sorted(task.get_name() for task in begun)}; open are {watch.open_ids()}"
            )
    if watch.broken is None:
        await workloads.settle(world)
    if watch.broken is None:
        watch.check_end(world.disk, world.app_of_edition(world.edition))
    keeping.cancel()


def _still(world: World, begun: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Those that have not ended; one that ended with an error ends the world."""
    for task in begun:
        if task.done():
            error = task.exception()
            if error is not None and world.watch.broken is None:
                raise error
    return {task for task in begun if not task.done()}


def _unhandled(world: World, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if world.watch.broken is None and not isinstance(error, AssertionError):
        world.watch.fail(f"nobody has handled: {context.get('message')}: {error!r}")


@contextmanager
def _no_chance_from_outside(entropy: Random) -> Iterator[None]:
    """Ids and jitter come from the seed, and no thread is begun."""

    def seeded() -> Random:
        return Random(entropy.random())

    with (
        mock.patch.object(os, "urandom", entropy.randbytes),
        mock.patch("replayflow.engine.engine.Random", seeded),
        mock.patch.object(Watchdog, "start"),
        mock.patch.object(Watchdog, "stop"),
    ):
        yield


class _Heard(logging.Handler):
    """The engine says so itself where it has come upon an error of its own."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(logging.WARNING)
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().partition("\n")[0]
        self._watch.note(f"log: {text[:300]}")
        if record.exc_info and record.exc_info[1] is not None and "error of its own" in text:
            self._watch.fail(f"{text}: {record.exc_info[1]!r}")


@contextmanager
def _listening(watch: Watch) -> Iterator[None]:
    logger, heard = logging.getLogger("replayflow"), _Heard(watch)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(heard)
    try:
        yield
    finally:
        logger.removeHandler(heard)
        logger.propagate = propagates


_dead_worlds: list[World] = []


@contextmanager
def _without_collector() -> Iterator[None]:
    """What nobody refers to closes itself at moments that no seed decides: so it does between worlds."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _bury(world: World) -> None:
    """The world is kept for a while, and thrown away with others: to look for what is left of one takes as long as for twenty."""
    _dead_worlds.append(world)
    if len(_dead_worlds) >= WORLDS_BURIED_TOGETHER:
        bury_all()


def bury_all() -> None:
    """Nothing is left of the worlds until now. Their generators are closed, and what they say then is heard by nobody."""
    hook, logger = sys.unraisablehook, logging.getLogger("replayflow")
    sys.unraisablehook = lambda _: None
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with _no_chance_from_outside(Random(0)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of coroutines that had not begun
            _dead_worlds.clear()
            gc.collect()
    finally:
        sys.unraisablehook, logger.disabled = hook, was_disabled


atexit.register(bury_all)
