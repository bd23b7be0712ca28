"""A worker that gets no more open files, memory, threads or processes: what it can do it does, what it cannot fails in words, and nothing is lost.

What may not be written is in `test_disk.py`.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from replayflow import Client, OrchestrationFailed, StarvedError, TaskHub
from replayflow.engine.threads import ThreadPool
from tests.engine.kit import until as soon
from tests.violence.app import app
from tests.violence.violence import TRACE, Command, at_work, refused, worker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of another kind")
MEGABYTE = 1 << 20


def limit(owner: Command, which: int, value: int) -> None:
    resource.prlimit(owner.id, which, (value, resource.prlimit(owner.id, which)[1]))


async def outcome(client: Client, orchestrator: str, input: object) -> str:
    """The result, or what it failed of."""
    try:
        return str(await (await client.start(orchestrator, input)).result(20))
    except OrchestrationFailed as failure:
        return str(failure.details)


async def test_without_open_files_what_needs_one_waits_or_fails_in_words(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with at_work(path) as owner:
        async with Client(path) as client:
            assert await outcome(client, "one", ["add", 1]) == "2"
            before = resource.prlimit(owner.id, resource.RLIMIT_NOFILE)[0]
            limit(owner, resource.RLIMIT_NOFILE, 3)
            assert await outcome(client, "one", ["add", 1]) == "2"
            assert await outcome(client, "one", ["in_thread", 1]) == "2"
            deposits = await client.start("one", ["deposit", 1])
            owner.says("the store refuses, and is tried again until it does not: ")
            assert "StarvedError: the operating system gives this process no more open files" in await outcome(
                client, "one", ["in_process", 1]
            )
            limit(owner, resource.RLIMIT_NOFILE, before)
            assert await deposits.result(20) == 1
            assert await outcome(client, "one", ["in_process", 1]) == "2"
            owner.send(signal.SIGTERM)
            assert owner.ended() == 0
            assert TRACE not in owner.said


def test_a_worker_that_gets_too_few_open_files_does_not_begin_and_says_so(tmp_path: Path) -> None:
    with worker(tmp_path / "hub.db", under="nofile=9") as one:
        assert "no more open files" in refused(one, "RF311")


async def test_out_of_memory_fails_who_took_it_and_where_that_is_the_engine_the_worker(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with at_work(path, under=f"address_more_than_now={20 * MEGABYTE}") as owner:
        async with Client(path) as client:
            assert "activity 'hog' (task 1) failed: MemoryError" in await outcome(client, "one", ["hog", 400])
            assert await outcome(client, "hogs", 400) == "MemoryError"
            assert await outcome(client, "chain", 3) == "3"
            fills = await client.start("fills", 8, instance_id="fills")
            for _ in range(8):  # each fits, and all of them do not
                await fills.raise_event("more", os.urandom(12 * MEGABYTE))
            said = refused(owner, "RF311")
            assert "no more memory" in said
            async with TaskHub(path, app) as hub:
                assert await hub.client.get("fills").result(20) == 8 * 12 * MEGABYTE


@pytest.fixture
def nobodys() -> Iterator[tuple[Path, int]]:
    """A folder of a user who has no processes yet."""
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else, and limits on processes are a user's")
    uid = 100_000 + os.getpid()
    folder = Path(tempfile.mkdtemp(prefix="replayflow-"))
    os.chown(folder, uid, uid)
    yield folder, uid
    shutil.rmtree(folder)


async def test_without_threads_an_activity_that_needs_one_fails_and_a_worker_does_not_begin(
    nobodys: tuple[Path, int],
) -> None:
    folder, uid = nobodys
    path = folder / "hub.db"
    with at_work(path, under=f"uid={uid}") as owner:
        async with Client(path) as client:
            assert await outcome(client, "one", ["add", 1]) == "2"  # by now it has all the threads that it needs
        threads = len(os.listdir(f"/proc/{owner.id}/task"))  # noqa: PTH208 - a count of names
    with at_work(path, under=f"uid={uid},nproc={threads}") as owner:
        async with Client(path) as client:
            failed = await outcome(client, "one", ["in_thread", 1])
            assert "StarvedError: the operating system gives this process no more threads" in failed
            assert await outcome(client, "one", ["add", 1]) == "2"
            owner.send(signal.SIGTERM)
            assert owner.ended() == 0, owner.said
            assert TRACE not in owner.said
    with worker(path, under=f"uid={uid},nproc=2") as second:
        assert "no more threads" in refused(second, "RF311")


async def test_work_for_a_thread_that_there_cannot_be_waits_for_one_that_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = ThreadPool()
    may_end = threading.Event()
    done: list[int] = []

    def work(number: int) -> None:
        may_end.wait(10)
        done.append(number)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            pool.submit(lambda: work(0))
    pool.submit(lambda: work(1))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for number in (2, 3):
            pool.submit(lambda number=number: work(number))  # type: ignore[misc]
    may_end.set()
    await soon(lambda: len(done) == 3)
    may_end.clear()
    for number in (4, 5):  # each at once: nobody counts as idle who had work waiting
        pool.submit(lambda number=number: work(number))  # type: ignore[misc]
    assert pool._threads == 2
    may_end.set()
    await soon(lambda: sorted(done) == [1, 2, 3, 4, 5])
    pool.close()


def test_the_refusals_of_the_system_are_told_from_all_else() -> None:
    from replayflow.errors import starved

    assert isinstance(starved(MemoryError()), StarvedError)
    assert isinstance(starved(OSError(24, "Too many open files")), StarvedError)
    assert starved(OSError(2, "No such file")) is None
    assert starved(RuntimeError("dictionary changed size during iteration")) is None
