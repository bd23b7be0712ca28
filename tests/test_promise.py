"""Promises: kept once, known to whoever asks, and no burden to anybody who does not."""

from __future__ import annotations

import asyncio
import gc

import pytest

from replayflow.promise import Promise


async def test_whoever_asks_after_it_is_kept_is_told_at_once() -> None:
    promise: Promise[int] = Promise()
    promise.keep(7)
    assert promise.is_kept
    assert promise.result() == 7
    asking = promise.__await__()
    with pytest.raises(StopIteration, match="7"):
        next(asking)


async def test_whoever_waits_is_woken() -> None:
    promise: Promise[int] = Promise()
    waiting = asyncio.ensure_future(_of(promise))
    await asyncio.sleep(0)
    promise.keep(7)
    assert await waiting == 7
    assert await promise == 7


async def test_the_first_word_counts() -> None:
    promise: Promise[int] = Promise()
    promise.keep(1)
    promise.keep(2)
    promise.fail(ValueError("too late"))
    assert await promise == 1


async def test_an_error_is_raised_each_time_and_told_to_nobody_who_does_not_ask() -> None:
    unheard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    promise: Promise[int] = Promise()
    waiting = asyncio.ensure_future(_of(promise))
    await asyncio.sleep(0)
    promise.fail(ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        await waiting
    with pytest.raises(ValueError, match="broken"):
        promise.result()
    nobodys: Promise[int] = Promise()
    nobodys.fail(ValueError("nobody asks"))
    del nobodys, promise, waiting
    gc.collect()
    await asyncio.sleep(0)
    assert not unheard


async def test_who_is_told_of_an_error_is_not_told_of_the_others_who_were() -> None:
    error = ValueError("broken")
    promises: list[Promise[int]] = [Promise() for _ in range(20)]
    for promise in promises:
        promise.fail(error)
    lengths = set()
    for promise in promises:
        with pytest.raises(ValueError, match="broken") as told:
            await _of(promise)
        lengths.add(len(told.traceback))
    assert len(lengths) == 1


async def test_whoever_gives_up_may_ask_again() -> None:
    promise: Promise[int] = Promise()
    waiting = asyncio.ensure_future(_of(promise))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not promise.is_kept
    promise.keep(7)
    assert await promise == 7


async def _of(promise: Promise[int]) -> int:
    return await promise
