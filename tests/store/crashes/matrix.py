"""One scene at all its points: recorded once, recovered from each, compared with the states that were committed and with the memory store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from msgspec.structs import replace

from replayflow import Limits, TaskHub
from replayflow.core.instance import Status
from replayflow.errors import InstanceFinishedError
from replayflow.store import MemoryStore, SqliteStore, Store
from replayflow.store.base import Outcome
from tests.ciphers import ToyCipher
from tests.store.builders import EVERYTHING, OWNER, everything
from tests.store.crashes import cuts
from tests.store.crashes.contents import contents_now, faults, recovered
from tests.store.crashes.files import Files, laid
from tests.store.crashes.recording import Point, Recording
from tests.store.crashes.scenes import Scene, Stage
from tests.store.crashes.world import LARGE_OVER_BYTES, app, build

PATIENCE_SECONDS = 20
LARGER_THAN_ANY = 2**20


class KnownCipher(ToyCipher):
    """Seals the same in the same way each time, so that two runs leave the same bytes."""

    def seal(self, content: bytes, context: bytes) -> tuple[str, bytes]:
        key_id, nonce = self.key_ids[-1], sha256(context + content).digest()[:12]
        return key_id, nonce + self._tag(key_id, nonce, context, content) + self._mixed(key_id, nonce, content)


@dataclass(slots=True)
class Tally:
    """How much was tried."""

    scenes: int = 0
    transactions: int = 0
    points: int = 0
    """At which a process was killed: before each statement, and after the last."""
    recoveries: int = 0
    """Of files that differ."""
    cuts: int = 0
    """Of the log, and of a checkpoint."""
    kills: int = 0
    """Of processes, by SIGKILL."""
    resumptions: int = 0
    """By a worker."""
    effects: int = 0
    """That were looked at whether they came after their commit."""

    def __iadd__(self, other: Tally) -> Tally:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def __str__(self) -> str:
        return ", ".join(f"{getattr(self, name)} {name}" for name in self.__slots__ if getattr(self, name))


class Hasty(SqliteStore):
    """A store that does not wait for the disk: what it writes is the same, and whoever copies files sees it without."""

    async def open(self) -> None:
        await super().open()
        await self._write(lambda connection: connection.execute("PRAGMA synchronous = OFF").fetchall())


def on_file(path: Path, is_sealed: bool = False, *, is_apart: bool = True) -> SqliteStore:
    """Large payloads are kept out of line where they stand `is_apart`."""
    cipher = KnownCipher() if is_sealed else None
    over = LARGE_OVER_BYTES if is_apart else LARGER_THAN_ANY
    return Hasty(path, synchronous="NORMAL", large_over_bytes=over, cipher=cipher)


def in_memory(is_sealed: bool = False) -> MemoryStore:
    return MemoryStore(large_over_bytes=LARGE_OVER_BYTES, cipher=KnownCipher() if is_sealed else None)


_worlds: dict[tuple[bool, bool], Files] = {}


async def world(is_sealed: bool = False, *, is_apart: bool = True) -> Files:
    """The hub's file with the world in it, closed. Made once."""
    if (is_sealed, is_apart) not in _worlds:
        with TemporaryDirectory(prefix="replayflow-") as folder:
            store = on_file(Path(folder, "hub.db"), is_sealed, is_apart=is_apart)
            await store.open()
            await build(store)
            await store.close()
            _worlds[is_sealed, is_apart] = Files(store.path.read_bytes())
    return _worlds[is_sealed, is_apart]


@dataclass(slots=True)
class Played:
    """A scene that was played on a file: how it was recorded, and what it came to."""

    recording: Recording
    before: Point
    """Before it began; the hub is owned."""
    told: Point
    """When it was over, and the hub open."""
    result: object = None
    commits: int = 1


@contextmanager
def still() -> Iterator[None]:
    """Time stands still for the store, so that what it writes is the same in every run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: 1_000_000)
        yield


async def played(scene: Scene, folder: Path, *, pages: int | None = None, is_sealed: bool = False) -> Played:
    """The scene is played on a copy of the world; `pages` is the size of SQLite's cache, if not its own."""
    with laid(Files(b"") if scene.begins_empty else await world(is_sealed), folder) as path:
        recording = Recording(path, pages)
        with recording.running(), still():
            store = on_file(path, is_sealed)
            await store.open()
            try:
                epoch = 0 if scene.begins_empty else await store.acquire(OWNER)
                before = recording.passed("the scene")
                result = await scene.act(Stage(store, epoch))
                told = recording.passed("told")
            finally:
                await store.close()
    return Played(recording, before, told, result, scene.commits)


def check_points(played: Played, folder: Path) -> Tally:
    """Killed at any point, what is left is the state that was committed then, whole.

    Raises:
        AssertionError: it is not; the message says at which point.
    """
    recording = played.recording
    changes = played.told.state - played.before.state
    assert changes <= played.commits, f"{changes} transactions, and not {played.commits}: a crash would fall between"
    tally = Tally(1, recording.transactions, len(recording.points))
    known: dict[Files, Any] = {}
    for number, state in enumerate(recording.states):
        assert (wrong := faults(state)) == [], (number, wrong)
    for number, point in enumerate(recording.points, 1):
        where = f"killed at point {number} of {len(recording.points)}, before {point.before!r:.200}"
        if point.files not in known:
            tally.recoveries += 1
            try:
                known[point.files] = recovered(point.files, folder)
            except AssertionError as error:
                raise AssertionError(f"{where}: {error}") from error
        assert known[point.files] == recording.states[point.state], (
            f"{where}: it is not state {point.state} of {len(recording.states)}, but "
            f"{[n for n, state in enumerate(recording.states) if state == known[point.files]] or 'none of them'}"
        )
    return tally


def check_cuts(played: Played, folder: Path, *, is_thorough: bool) -> Tally:
    """Cut anywhere, the log gives the state of the last commit that is whole in it; and a torn checkpoint loses nothing.

    Raises:
        AssertionError: it does not; the message says where it was cut.
    """
    recording, files = played.recording, played.told.files
    tally = Tally()
    if files.log is None or not files.log:
        return tally
    states = recording.states
    state_of_commits = recording.state_of_commits(files.log)
    for cut in (*cuts.of_log(files, is_thorough), *cuts.of_checkpoint(files, is_thorough)):
        state = state_of_commits.get(cut.commits)
        if state is None:
            continue  # of before it was recorded
        tally.cuts += 1
        found = recovered(cut.files, folder)
        assert found == states[state], f"{cut.where}: it is not state {state} of {len(states)}"
    return tally


async def check_likeness(scene: Scene, played: Played, folder: Path, *, is_sealed: bool = False) -> None:
    """What was told of is there, and what a store shows that opens the file is what the memory store shows; so it is before.

    Raises:
        AssertionError: it is not.
    """
    memory = in_memory(is_sealed)
    await memory.open()
    epoch = 0
    if not scene.begins_empty:
        await build(memory)
        epoch = await memory.acquire(OWNER)
    await _check_shows(played.before.files, memory, folder, is_sealed)
    if scene.is_in_memory:
        result = await scene.act(Stage(memory, epoch))
        if played.result is not None:
            assert _plain(played.result) == _plain(result)
        await _check_shows(played.told.files, memory, folder, is_sealed)


async def _check_shows(files: Files, memory: Store, folder: Path, is_sealed: bool) -> None:
    with laid(files, folder) as path:
        store = on_file(path, is_sealed)
        await store.open()
        try:
            assert await everything(store) == await everything(memory)
            assert (await store.condition(is_thorough=True)).faults == ()
            assert await store.served() == await memory.served()
            assert (await store.footprint()).purged == (await memory.footprint()).purged
        finally:
            await store.close()


def _plain(result: object) -> object:
    """Errors by their kind: no two are equal."""
    if isinstance(result, Outcome):
        return (
            type(result.error),
            result.deliveries,
            [replace(one, decoded=None) for one in result.started],
            result.dropped,
        )
    if isinstance(result, Sequence) and not isinstance(result, (str, bytes)):
        return [_plain(one) for one in result]
    return result


async def check_resumes(files: Files, folder: Path, *, is_sealed: bool = False) -> Tally:
    """A worker takes the recovered hub and brings to its end what has not ended, parked or not; nothing is wrong with the hub afterwards.

    Raises:
        AssertionError: it does not.
    """
    with laid(files, folder) as path:
        async with TaskHub(on_file(path, is_sealed), app, limits=Limits()) as hub:
            page = await hub.client._store.page(EVERYTHING, 1_000)
            for record in page.records:
                id = record.instance_id
                if record.status.is_finished or id.startswith("@"):
                    continue
                instance = hub.client.get(id)
                if record.status is Status.SUSPENDED:
                    await instance.resume()
                with suppress(InstanceFinishedError):
                    await instance.raise_event("go")
            for record in page.records:
                if not record.instance_id.startswith("@"):
                    state = await hub.client.get(record.instance_id).wait(timeout=PATIENCE_SECONDS)
                    assert record.status.is_finished or state.status == "COMPLETED", state
        after = contents_now(path)
    assert (wrong := faults(after)) == [], wrong
    return Tally(resumptions=1)
