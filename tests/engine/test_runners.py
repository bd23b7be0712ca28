"""Runners: each item goes down a lane, in order; one that waits keeps its runner and nobody else."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from typing import Any

import pytest

from replayflow.engine.runners import DONE, Lane, Runners
from tests.engine.kit import until

_seen: ContextVar[str] = ContextVar("seen", default="nothing")


class _Lanes:
    """Runners of coroutines: each item makes one."""

    def __init__(self, of: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        self.waiting: dict[str, asyncio.Task[None]] = {}
        self.made = 0
        self._of = of
        self.runners: Runners[str] = Runners(self._new, self.waiting.__setitem__)

    def _new(self) -> Lane[str]:
        self.made += 1
        return self._lane()

    def _lane(self) -> Generator[Any, str, None]:
        while True:
            item = yield DONE
            yield from self._of(item).__await__()


async def test_whoever_does_not_wait_is_done_in_order_in_one_task() -> None:
    tasks: list[asyncio.Task[Any] | None] = []
    order: list[str] = []

    async def work(item: str) -> None:
        tasks.append(asyncio.current_task())
        order.append(item)

    lanes = _Lanes(work)
    items = [str(number) for number in range(250)]
    for item in items:
        lanes.runners.put(item)
    await until(lambda: not lanes.runners.has_line)
    assert order == items
    assert len(set(tasks)) == 1
    assert not lanes.waiting
    await lanes.runners.close()


async def test_whoever_waits_holds_up_nobody_and_goes_on_in_its_own_task() -> None:
    gate = asyncio.Event()
    done: list[tuple[str, asyncio.Task[Any] | None]] = []

    async def work(item: str) -> None:
        if item.startswith("waits"):
            await gate.wait()
        done.append((item, asyncio.current_task()))

    lanes = _Lanes(work)
    for item in ("waits 1", "a", "waits 2", "b"):
        lanes.runners.put(item)
    await until(lambda: len(done) == 2)
    assert [item for item, _ in done] == ["a", "b"]
    assert lanes.waiting.keys() == {"waits 1", "waits 2"}
    gate.set()
    await until(lambda: len(done) == 4)
    assert done[2:] == [("waits 1", lanes.waiting["waits 1"]), ("waits 2", lanes.waiting["waits 2"])]
    lanes.runners.put("c")
    await until(lambda: len(done) == 5)
    assert lanes.made <= 3  # a runner whose item has ended serves others
    await lanes.runners.close()


async def test_a_runner_that_has_nothing_to_do_keeps_nothing() -> None:
    class Value:
        pass

    gate: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
    held: list[asyncio.Future[Value]] = [gate]

    async def work(_: str) -> None:
        await held[0]

    lanes = _Lanes(work)
    lanes.runners.put("a")
    await until(lambda: lanes.waiting)
    value = Value()
    alive = weakref.ref(value)
    gate.set_result(value)
    held.clear()
    del value, gate
    await until(lambda: alive() is None)
    await lanes.runners.close()


async def test_what_one_sets_in_its_context_no_other_sees() -> None:
    found: list[str] = []

    async def work(item: str) -> None:
        found.append(_seen.get())
        _seen.set(item)
        await asyncio.sleep(0)
        found.append(_seen.get())

    lanes = _Lanes(work)
    for item in ("a", "b", "c"):
        lanes.runners.put(item)
    await until(lambda: len(found) == 6)
    assert sorted(found) == ["a", "b", "c", "nothing", "nothing", "nothing"]
    assert _seen.get() == "nothing"
    await lanes.runners.close()


async def test_a_cancellation_reaches_whoever_waits() -> None:
    heard: list[str] = []

    async def work(item: str) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            heard.append(item)

    lanes = _Lanes(work)
    lanes.runners.put("a")
    lanes.runners.put("b")
    await until(lambda: len(lanes.waiting) == 2)
    lanes.waiting["a"].cancel()
    await until(lambda: heard)
    assert heard == ["a"]
    await lanes.runners.close()
    assert heard == ["a", "b"]


async def test_a_lane_that_breaks_takes_its_runner_along_and_nobody_else() -> None:
    done: list[str] = []

    async def work(item: str) -> None:
        if item == "breaks":
            raise RuntimeError(item)
        done.append(item)

    lanes = _Lanes(work)
    unheard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context.get("exception")))
    for item in ("a", "breaks", "b"):
        lanes.runners.put(item)
    await until(lambda: len(done) == 2)
    assert done == ["a", "b"]
    with pytest.raises(RuntimeError, match="breaks"):
        await lanes.waiting["breaks"]
    await lanes.runners.close()
    assert not unheard


@pytest.mark.parametrize("waits", [False, True])
async def test_an_item_that_leaves_by_the_generators_door_ends_its_lane_quietly(waits: bool) -> None:
    done: list[str] = []
    unheard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))

    async def work(item: str) -> None:
        if item == "leaves":
            if waits:
                await asyncio.sleep(0)
            raise GeneratorExit
        done.append(item)

    lanes = _Lanes(work)
    for item in ("a", "leaves", "b"):
        lanes.runners.put(item)
    await until(lambda: len(done) == 2)
    await until(lambda: lanes.waiting["leaves"].done())
    lanes.waiting.clear()
    gc.collect()
    await asyncio.sleep(0)
    assert not unheard
    await lanes.runners.close()
