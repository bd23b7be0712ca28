"""A hub's owner that stands still: it keeps its hub from all who ask, and not from one who takes it by force.

1. Who is refused is told by whom, and what to do.
2. The owner that wakes when it is none any more changes nothing (I7), and ends with an error that says who has the hub.
3. What it was doing is done by the new owner, under the same idempotency keys (I4).
4. A lock counts only on the file that stands at the path.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from replayflow import Client, SqliteStore, TaskHub
from replayflow.errors import HubOwnedError, LeaseLostError, StoreBusyError
from replayflow.store.base import Owner
from replayflow.store.sqlite.lock import FileLock
from tests.store.builders import accepted, create
from tests.store.children import child, heard
from tests.violence.app import app
from tests.violence.violence import at_work, contents, is_sound, refused, state_of, until, worker

OURS = Owner(1, "ours", 1)
THEIRS = Owner(2, "theirs", 2)


async def test_a_zombie_that_wakes_changes_nothing_and_says_who_has_its_hub(tmp_path: Path) -> None:
    path, held = tmp_path / "hub.db", tmp_path / "held"
    with at_work(path, "--grace", "600") as zombie:
        async with Client(path) as client:
            holds = await client.start("holds", str(tmp_path), instance_id="holds")
            waits = await client.start("waits", instance_id="waits")
            until(lambda: held.exists() and len(held.read_text().splitlines()) == 3)
            zombie.stop_between_writes(path)

            with worker(path) as second:
                said = refused(second, "RF301")
                assert f"process {zombie.id} on " in said
                assert "--when-owned take-over" in said
            await waits.raise_event("go", 1)  # clients are not refused
            with worker(path, "--when-owned", "wait") as patient, at_work(path, "--when-owned", "take-over") as owner:
                patient.says(f"waiting: the hub {path} is owned by process")
                assert await waits.result(20) == 2
                until(lambda: len(held.read_text().splitlines()) == 6)
                keys = held.read_text().splitlines()
                assert sorted(keys[:3]) == sorted(keys[3:])
                assert len(set(keys)) == 3, "one idempotency key, whoever runs it"
                (tmp_path / "go").touch()
                assert await holds.result(20) == [owner.id, owner.id, owner.id, 1]

                assert state_of(zombie.id) in "Tt"
                before = contents(path)
                zombie.go_on()  # all that it waited for is there: it has three results to write
                said = refused(zombie, "RF302")
                assert f"process {owner.id} on " in said or "another owner by now" in said
                assert contents(path) == before
                assert await (await client.start("chain", 3)).result(20) == 3
                assert patient.process.poll() is None
                owner.send(signal.SIGKILL)
                patient.says("serving")
    assert is_sound(path)


async def test_a_zombie_that_has_nothing_to_do_ends_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with at_work(path) as zombie:
        zombie.stop_between_writes(path)
        async with TaskHub(path, app, when_owned="take_over"):
            before = contents(path)
            zombie.go_on()
            said = refused(zombie, "RF302")
            assert "has another owner by now, process " in said
            assert "--when-owned wait" in said
            assert contents(path) == before


async def test_one_that_is_at_work_can_be_ousted_too_and_of_two_who_do_it_one_is_left(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with at_work(path) as first:
        async with Client(path) as client:
            with worker(path, "--when-owned", "take-over") as a, worker(path, "--when-owned", "take-over") as b:
                refused(first, "RF302")
                until(lambda: (a.process.poll() is None) != (b.process.poll() is None), "that one is left")
                ousted, owner = (a, b) if b.process.poll() is None else (b, a)
                refused(ousted, "RF302")
                owner.says("serving")
                assert await (await client.start("chain", 3)).result(20) == 3
                with worker(path) as late:
                    assert f"process {owner.id} on " in refused(late, "RF301")


async def test_an_owner_that_stands_in_a_transaction_cannot_be_ousted_and_the_taker_is_told_what_to_do(
    tmp_path: Path,
) -> None:
    path = tmp_path / "hub.db"
    with child("own_and_write", path) as owner:
        assert heard(owner) == ["ready"]
        owner.send_signal(signal.SIGSTOP)
        store = SqliteStore(path, busy_seconds=0.1)
        await store.open()
        with pytest.raises(StoreBusyError, match=f"process {owner.pid} on here, end that process"):
            await store.acquire(OURS, by_force=True)
        with pytest.raises(HubOwnedError):
            await store.acquire(OURS)
        owner.kill()
        owner.wait()
        assert await store.acquire(OURS) == 2
        await store.close()


async def test_a_taker_that_dies_before_its_commit_leaves_a_hub_that_anybody_can_take(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    old, new = SqliteStore(path), SqliteStore(path)
    await old.open()
    await new.open()
    epoch = await old.acquire(OURS)
    taker = FileLock(old._lock.path)
    taker.seize()
    with pytest.raises(HubOwnedError, match="when_owned='take_over'"):
        await new.acquire(THEIRS)  # the taker is still alive
    taker.release()  # as its death does
    await accepted(old, create("a"), epoch=epoch)  # nobody has taken anything yet
    await old.confirm(epoch)
    assert await new.acquire(THEIRS) == epoch + 1
    with pytest.raises(LeaseLostError):
        await old.write([create("b")], epoch)
    with pytest.raises(LeaseLostError, match="process 2 on theirs"):
        await old.confirm(epoch)
    await old.close()  # strikes out nobody's name but its own
    assert await new.owner() == THEIRS
    await new.confirm(epoch + 1)
    await new.close()


async def test_a_lock_on_a_file_that_was_replaced_owns_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    old, new, third = SqliteStore(path), SqliteStore(path), SqliteStore(path)
    for store in (old, new, third):
        await store.open()
    acquiring = old._lock_within_moments

    async def locks_and_is_overtaken() -> bool:
        is_locked = await acquiring()
        await new.acquire(THEIRS, by_force=True)
        return is_locked

    old._lock_within_moments = locks_and_is_overtaken  # type: ignore[method-assign]
    with pytest.raises(HubOwnedError, match="process 2 on theirs"):
        await old.acquire(OURS)
    assert await old.owner() == THEIRS
    with pytest.raises(HubOwnedError):
        await third.acquire(OURS)
    with pytest.raises(HubOwnedError):
        await new.acquire(THEIRS, by_force=True)  # it has it already
    for store in (old, new, third):
        await store.close()


async def test_who_takes_a_free_hub_by_force_waits_for_nobody(tmp_path: Path) -> None:
    async with asyncio.timeout(20), TaskHub(tmp_path / "hub.db", app, when_owned="take_over") as hub:
        assert hub.is_worker
        assert await (await hub.client.start("chain", 2)).result(5) == 2
