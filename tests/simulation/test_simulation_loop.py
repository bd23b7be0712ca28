"""The loop of a world: what asyncio promises it keeps, and of a dead process nothing runs any more."""

from __future__ import annotations

import asyncio

import pytest

from tests.simulation.loop import Process, SimLoop, SimulationStuck


def test_time_passes_only_where_nothing_is_ready_and_in_the_order_of_the_timers() -> None:
    loop, said = SimLoop(), list[tuple[str, float]]()

    async def says(what: str, after: float) -> None:
        await asyncio.sleep(after)
        said.append((what, loop.time()))

    async def main() -> None:
        await asyncio.gather(says("c", 86_400), says("a", 1), says("b", 1), says("now", 0))

    loop.run_until_complete(main())
    assert said == [("now", 0), ("a", 1), ("b", 1), ("c", 86_400)]
    assert loop.steps == 3


def test_callbacks_run_in_the_order_in_which_they_were_made_ready() -> None:
    loop, said = SimLoop(), list[int]()

    async def main() -> None:
        for number in range(10):
            loop.call_soon(said.append, number)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert said == list(range(10))


def test_time_limits_and_task_groups_work() -> None:
    loop = SimLoop()

    async def main() -> float:
        async with asyncio.timeout(2), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(1))
            group.create_task(asyncio.sleep(10))
        return loop.time()

    with pytest.raises(TimeoutError):
        loop.run_until_complete(main())
    assert loop.time() == 2


def test_of_a_dead_process_nothing_runs_not_even_what_cleans_up() -> None:
    loop, said = SimLoop(), list[str]()

    async def lives() -> None:
        try:
            while True:
                await asyncio.sleep(1)
                said.append(f"lives at {loop.time():g}")
        finally:
            said.append("cleans up")

    async def main() -> None:
        process = Process(loop, "one")
        process.spawn(lives())
        await asyncio.sleep(2.5)
        process.kill()
        await process.died
        await asyncio.sleep(10)

    loop.run_until_complete(main())
    assert said == ["lives at 1", "lives at 2"]
    loop.close()


def test_a_stopped_process_goes_on_with_all_that_came_meanwhile() -> None:
    loop, said = SimLoop(), list[float]()

    async def lives(after: float) -> None:
        await asyncio.sleep(after)
        said.append(loop.time())

    async def main() -> None:
        process = Process(loop, "one")
        for after in (1, 2, 3, 9):
            process.spawn(lives(after))
        await asyncio.sleep(1.5)
        process.stop()
        await asyncio.sleep(5)
        process.go_on()
        await asyncio.sleep(5)

    loop.run_until_complete(main())
    assert said == [1, 6.5, 6.5, 9]


def test_what_will_never_happen_and_what_never_ends_is_said() -> None:
    async def waits() -> None:
        await asyncio.get_running_loop().create_future()

    async def spins() -> None:
        loop.call_soon(spin)
        await waits()

    def spin() -> None:
        loop.call_soon(spin)

    for running, what in ((waits(), "no timer"), (spins(), "without end")):
        loop = SimLoop()
        task = loop.create_task(running)
        with pytest.raises(SimulationStuck, match=what):
            loop.run_until_complete(task)
        loop.close()
