"""One file and several processes: nothing is lost, one owns, and a death frees what it held."""

from __future__ import annotations

import os
import sqlite3
from collections import defaultdict
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from replayflow.errors import HubOwnedError, LeaseLostError
from replayflow.store import SqliteStore
from tests.store.builders import OWNER, accepted, all_ids, commit, create, inbox, one, post
from tests.store.children import child, heard, tell


async def test_what_clients_post_while_the_owner_writes_is_neither_lost_nor_disordered(sqlite: SqliteStore) -> None:
    epoch = await sqlite.acquire(OWNER)
    await accepted(sqlite, create("a"), epoch=epoch)
    times = 60
    with ExitStack() as stack:
        clients = [stack.enter_context(child("posts", sqlite.path, "a", sender, times)) for sender in "pq"]
        for client in clients:
            assert heard(client) == ["ready"]
        for client in clients:
            tell(client)
        read: list[bytes | None] = []
        last, sequence = 0, 1
        while len(read) < 2 * times:
            found = await sqlite.arrived(last, 7)
            read += [delivery.event for delivery in found]
            last = found[-1].number if found else last
            await accepted(sqlite, commit(sequence=sequence, consumed=[d.number for d in found]), epoch=epoch)
            sequence += 1
        for client in clients:
            assert heard(client) == ["done"]
    by_sender: dict[bytes, list[int]] = defaultdict(list)
    for event in read:
        assert event is not None
        sender, n = event.split()
        by_sender[sender].append(int(n))
    assert by_sender == {b"p": list(range(times)), b"q": list(range(times))}
    assert await inbox(sqlite) == []
    assert len(await sqlite.history("a")) == sequence


async def test_the_owner_sees_what_a_client_has_changed_before_it_decides(
    sqlite: SqliteStore, other: SqliteStore
) -> None:
    """What a connection remembers of instances is worth nothing once another one has written."""
    await accepted(sqlite, create("a"), commit(sequence=1))
    await accepted(other, commit(sequence=2))
    assert isinstance((await one(sqlite, commit(sequence=2))).error, LeaseLostError)
    await accepted(sqlite, commit(sequence=3))
    await accepted(other, create("b"))
    assert [d.number for d in (await one(sqlite, post("b"))).deliveries] == [3]


async def test_what_others_wrote_while_a_store_was_closed_is_seen_when_it_is_open_again(sqlite: SqliteStore) -> None:
    await accepted(sqlite, create("a"), commit(sequence=1))
    await sqlite.close()
    other = SqliteStore(sqlite.path)
    await other.open()
    await accepted(other, commit(sequence=2), create("b"))
    await other.close()
    await sqlite.open()
    assert isinstance((await one(sqlite, commit(sequence=2))).error, LeaseLostError)
    await accepted(sqlite, commit(sequence=3), post("b"))


async def test_two_stores_of_one_process_exclude_each_other(sqlite: SqliteStore, other: SqliteStore) -> None:
    first = await sqlite.acquire(OWNER)
    with pytest.raises(HubOwnedError, match=f"{sqlite.path.name} is owned by process 4711 on somewhere"):
        await other.acquire(OWNER)
    await sqlite.release()
    assert await other.acquire(OWNER) == first + 1
    with pytest.raises(LeaseLostError):
        await sqlite.write([create("a")], first)


async def test_a_link_to_the_hub_is_the_same_hub(sqlite: SqliteStore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.db"
    link.symlink_to(sqlite.path)
    await sqlite.acquire(OWNER)
    for path in (link, tmp_path / "elsewhere" / ".." / sqlite.path.name):
        linked = SqliteStore(path)
        await linked.open()
        with pytest.raises(HubOwnedError):
            await linked.acquire(OWNER)
        await linked.close()


async def test_another_process_owns_until_it_is_killed_and_is_named_until_then(sqlite: SqliteStore) -> None:
    with child("own", sqlite.path) as owner:
        [_, epoch] = heard(owner)
        with pytest.raises(HubOwnedError, match=f"owned by process {owner.pid} on here"):
            await sqlite.acquire(OWNER)
        owner.kill()
        owner.wait()
        assert await sqlite.acquire(OWNER) == int(epoch) + 1
        with pytest.raises(LeaseLostError):
            await sqlite.write([create("a")], int(epoch))
    assert await all_ids(sqlite) == []


async def test_another_process_owns_until_it_closes(sqlite: SqliteStore) -> None:
    with child("own", sqlite.path) as owner:
        heard(owner)
        tell(owner)
        assert owner.wait() == 0
    await sqlite.acquire(OWNER)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
async def test_a_forked_child_does_not_keep_the_hub_after_its_parents_death(sqlite: SqliteStore) -> None:
    with child("fork", sqlite.path) as owner:
        [_, grandchild] = heard(owner)
        with pytest.raises(HubOwnedError):
            await sqlite.acquire(OWNER)
        owner.kill()
        owner.wait()
        os.kill(int(grandchild), 0)  # it is alive
        await sqlite.acquire(OWNER)


async def test_a_second_store_of_the_process_does_not_expose_the_first_to_others(sqlite: SqliteStore) -> None:
    """POSIX locks are a process's: to open and close the file by other means than SQLite's would drop them all, and the next process to close
    the hub would take itself for the last and delete the log under the first store."""
    await accepted(sqlite, create("before"))
    second = SqliteStore(sqlite.path)
    await second.open()
    with child("open_fresh", sqlite.path) as process:
        heard(process)
        tell(process)
        assert heard(process) == ["opened", "1"]
        assert process.wait() == 0
    assert sqlite.path.with_name("hub.db-wal").exists()
    await accepted(sqlite, create("after"))
    await second.close()
    with closing(sqlite3.connect(sqlite.path)) as stranger:
        assert stranger.execute("SELECT id FROM instance ORDER BY key").fetchall() == [("before",), ("after",)]


@pytest.mark.parametrize("round", range(3))
async def test_processes_may_open_a_fresh_path_at_once(path: Path, round: int) -> None:
    with ExitStack() as stack:
        processes = [stack.enter_context(child("open_fresh", path)) for _ in range(4)]
        for process in processes:
            assert heard(process) == ["ready"]
        for process in processes:
            tell(process)
        assert [heard(process) for process in processes] == [["opened", "0"]] * 4
        assert [process.wait() for process in processes] == [0] * 4


@pytest.mark.parametrize("said_before_the_kill", [1, 7, 30])
async def test_a_kill_in_the_middle_of_writing_loses_no_accepted_group_and_leaves_none_half_written(
    path: Path, said_before_the_kill: int
) -> None:
    with child("churn", path) as writer:
        assert heard(writer) == ["ready"]
        for n in range(said_before_the_kill):
            assert heard(writer) == [str(n)]
        writer.kill()
        writer.wait()
    store = SqliteStore(path)
    await store.open()
    ids = await all_ids(store)
    await store.close()
    assert len(ids) >= 40 * said_before_the_kill
    assert ids == [f"{n}.{part}" for n in range(len(ids) // 40) for part in range(40)]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
