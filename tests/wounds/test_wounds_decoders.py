"""Decoders: whatever the bytes, a decoder gives a value or its own error, in time and memory that their number bounds.

A length that is only claimed must not be set aside, and depth must not be recursed into: decoders of others have fallen over both.
What bounds each decoder of ours:

    payloads (codec)             `payload_bytes_max` after expansion; 1,024 levels of lists and mappings, 32 of tuples and sets
    JSON payloads                `payload_bytes_max`; as deep as the interpreter's own reader goes
    events, pieces, rows         their own length; lengths are checked against it before anything is made; depth by types, failures by 16 causes
    contents out of line         their digest and length
    sealed values                an id of 255 bytes; the rest is the cipher's
    cursors                      20 digits, or a text
    lines of an export           one instance at a time; each event as a store's, and looked at whether it can be
"""

from __future__ import annotations

import asyncio
import copy
import json
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replayflow import (
    ActivityError,
    App,
    Client,
    Codec,
    Limits,
    MemoryStore,
    Orchestration,
    OrchestrationContext,
    RetryPolicy,
    TaskHub,
)
from replayflow.codec import to_json
from replayflow.codec.sealed import key_of, opened, sealed
from replayflow.core import events, folding, rows
from replayflow.core.commit import Commit, RowState, Start
from replayflow.core.events import ExecutionStarted, OrchestratorStarted, TaskCompleted, TaskFailed, TaskScheduled
from replayflow.core.instance import Status
from replayflow.core.map import progress as map_progress
from replayflow.errors import (
    DecodeError,
    FailureDetails,
    InvalidArgumentError,
    ReplayflowError,
    SealedError,
    StoreCorruptError,
    UserError,
)
from replayflow.store.base import Create, Delivery, InstanceRecord, Loaded, Owner, place_of
from replayflow.store.incoming import Incoming
from tests.ciphers import ToyCipher
from tests.engine.kit import PATIENCE_SECONDS, until_state

codec = Codec()
CIPHER = ToyCipher()
FAILURE = FailureDetails("ValueError", "no", "at line 1", FailureDetails("KeyError", "'x'"))
START = events.encode([ExecutionStarted("o", sealed(b"\x01", CIPHER, b"context"), "i", "x")])
PIECES = b"".join(
    events.encode(piece)
    for piece in (
        [OrchestratorStarted(1), TaskScheduled(1, "a", b"\x01"), events.TimerCreated(2, 7)],
        [OrchestratorStarted(2), TaskCompleted(1, sealed(b"\x02", CIPHER, b"context"))],
        [OrchestratorStarted(3), TaskFailed(2, FAILURE), events.MapProgress(4, [1], [b"\x01"], [])],
    )
)
PAYLOADS = [codec.encode(value) for value in ({"a": [1, (2, {3})]}, timedelta(1), "x" * 40_000, 2**80, [None] * 20)]
PAYLOADS.append(b'\xc1j{"a": [1, 2.5]}')


def _loaded(content: bytes) -> None:
    start, failure, pieces = content[: len(START)] or b"\x90", content[:40], content
    for status in (Status.RUNNING, Status.COMPLETED):
        record = InstanceRecord(
            "i", "x", "o", None, status, start, 1, 0, 0, 0, None, pieces[:9], failure, failure, b"p", start
        )
        incoming = Incoming(lambda digests: dict.fromkeys(digests, b"?"), CIPHER)
        incoming.loaded(Loaded(record, pieces, 3, [Delivery(1, "i", start, None, False, True)]), whole=False)


def _page(content: bytes) -> None:
    place_of(content.decode(errors="surrogateescape"), "created")


def _folded(content: bytes) -> None:
    folding.folded(events.decode_pieces(content, 3))


DECODERS: dict[str, tuple[Callable[[bytes], Any], type[ReplayflowError], list[bytes | None]]] = {
    "payload": (codec.decode, DecodeError, PAYLOADS),
    "payload of numbers": (lambda content: codec.decode(content, dict[str, list[int]]), DecodeError, PAYLOADS),
    "payload shown": (to_json, DecodeError, PAYLOADS),
    "events": (events.decode, StoreCorruptError, [START]),
    "pieces": (lambda content: events.decode_pieces(content, 3), StoreCorruptError, [PIECES]),
    "history": (_folded, StoreCorruptError, [PIECES]),
    "failure": (rows.decode_failure, StoreCorruptError, [rows.encode_failure(FAILURE)]),
    "orphans": (rows.decode_orphans, StoreCorruptError, [rows.encode_orphans([("x", TaskScheduled(1, "a", None))])]),
    "progress": (map_progress.decode_progress, StoreCorruptError, [msgpack.packb([(1, "m", 5, 2, 0, True)])]),
    "loaded": (_loaded, StoreCorruptError, [PIECES]),
    "sealed": (lambda content: opened(content, CIPHER, b"context"), SealedError, [sealed(b"\x01", CIPHER, b"context")]),
    "cursor": (_page, InvalidArgumentError, [b"c12.5"]),
}
by_name = pytest.mark.parametrize("name", DECODERS)


@by_name
def test_any_bytes_are_a_value_or_the_decoders_own_error(name: str) -> None:
    decode, error, _ = DECODERS[name]

    @settings(max_examples=60, deadline=None)
    @given(st.binary(max_size=120))
    def check(content: bytes) -> None:
        try:
            decode(content)
        except error:
            pass

    check()


@by_name
def test_what_was_valid_and_is_changed_somewhere_is_a_value_or_the_decoders_own_error(name: str) -> None:
    decode, error, valid = DECODERS[name]
    random = Random(name)
    for _ in range(250):
        try:
            decode(changed(random.choice([each for each in valid if each]), random))
        except error:
            pass


def changed(content: bytes, random: Random) -> bytes:
    """The bytes with a few of them others, left out or doubled; mostly such as begin something in msgpack."""
    now = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(now))
        match random.randrange(5):
            case 0 | 1:
                now[at] = random.randrange(256)
            case 2:
                now[at] = random.choice(b"\x80\x90\x91\xa1\xc0\xc1\xc4\xc6\xc7\xc9\xca\xcf\xdb\xdd\xdf\xff")
            case 3:
                del now[at : at + random.randrange(1, 4)]
            case _:
                now[at:at] = now[at : at + random.randrange(1, 4)]
        now = now or bytearray(b"\x90")
    return bytes(now)


def _ext(code: int, body: bytes) -> bytes:
    return b"\xc9" + struct.pack(">I", len(body)) + bytes((code,)) + body


def _tower(levels: int) -> bytes:
    inside = b"\x90"
    for _ in range(levels):
        inside = b"\x91" + _ext(1, inside)
    return inside


BOMBS = {
    "bytes of 4 GB": b"\xc6\xff\xff\xff\xff",
    "a text of 4 GB": b"\xdb\xff\xff\xff\xff",
    "a list of 4 billion": b"\xdd\xff\xff\xff\xff",
    "a mapping of 4 billion": b"\xdf\xff\xff\xff\xff",
    "an extension of 4 GB": b"\xc9\xff\xff\xff\xff\x01",
    "lists that claim all that is left": (b"\xdd" + struct.pack(">I", 99_000)) * 200 + b"\xc0" * 99_000,
    "lists, 100,000 deep": b"\x91" * 100_000 + b"\xc0",
    "mappings, 100,000 deep": b"\x81\xa1a" * 100_000 + b"\xc0",
    "mappings as keys, 100,000 deep": b"\x81" * 100_000 + b"\xc0",
    "extensions, 500 deep": _tower(500),
    "an unknown extension": _ext(99, b"x" * 100_000),
    "a tuple of no list": _ext(1, b"\x01"),
    "a time that no calendar has": b"\xc7\x0c\xff" + b"\xff" * 12,
    "a zone that leads elsewhere": _ext(5, b"2024-01-01T00:00:00[../../../etc/passwd]"),
    "a zone of a megabyte": _ext(5, b"2024-01-01T00:00:00[" + b"a/" * 500_000 + b"a]"),
    "a decimal that is none": _ext(9, b"1" * 1_000 + b"x"),
    "half a UUID": _ext(10, b"x" * 8),
    "200 MB in 200 KB": b"\xc1z" + zlib.compress(b"\xdb\x0b\xeb\xc2\x00" + b"x" * 1_000 + bytes(200_000_000), 1),
    "cut compression": b"\xc1z" + zlib.compress(b"\x93\x01\x02\x03" * 100)[:-6],
    "JSON, a million deep": b"\xc1j" + b"[" * 1_000_000,
    "a number of a million digits": b"\xc1j" + b"9" * 1_000_000,
    "an unknown encoding": b"\xc1?x",
    "out of line, and not there": b"\xc1r" + bytes(41),
    "sealed with nothing": b"\xc1e",
    "sealed text with nothing": b"\xc1t\xff",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_refused_soon_and_in_little_memory(bomb: bytes) -> None:
    tracemalloc.start()
    began = time.process_time()
    try:
        for name, (decode, error, _) in DECODERS.items():
            if name not in ("cursor", "loaded"):
                with pytest.raises((error, SealedError)):
                    decode(bomb)
        taken, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 2
    assert peak < 2 * 64 * 2**20 + 10 * len(
        bomb
    )  # a payload's limit, twice: what was expanded, and one block in the making


@pytest.mark.parametrize(
    "envelope", [b"\xc1e", b"\xc1e\xff", b"\xc1t\x03ab", b"\xc1e\x00", b"\xc1e\x02k1", b"\xc1e\x02k1junk"]
)
def test_an_envelope_that_is_cut_names_what_key_it_can(envelope: bytes) -> None:
    assert isinstance(key_of(envelope), str)
    with pytest.raises(SealedError):
        opened(envelope, CIPHER, b"context")


# ---- histories that no execution can have had

_ASKED = OrchestratorStarted(1), TaskScheduled(1, "a", None)
IMPOSSIBLE: dict[str, list[events.HistoryEvent]] = {
    "a retry of nothing": [events.TaskAttemptFailed(9, 1, FAILURE, 5)],
    "a retry of a child that is none": [events.SubOrchestrationAttemptFailed(9, 1, FAILURE, 5)],
    "a lock that is not in its list": [events.EntityLockRequested(2, "s", ["@a@b"], 5)],
    "an end that is no status": [events.ExecutionCompleted(2, "ENDED")],
    "progress of a map beyond its items": [
        events.MapScheduled(2, "a", [events.Block(1, 1, codec.encode([None]))], 1),
        events.MapProgress(2, [7], [None], []),
    ],
}


@pytest.mark.parametrize("more", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
async def test_an_impossible_history_is_left_as_it_is_and_the_worker_goes_on(
    more: list[events.HistoryEvent], caplog: pytest.LogCaptureFixture
) -> None:
    """Where it was taken for a history, the retry of nothing ended the worker when it fell due, and so it did with the next."""
    store = MemoryStore()
    start = Start("struck", "x", "waits", None, events.encode([ExecutionStarted("waits", None, "struck", "x")]), 1, 0)
    commit = Commit("struck", "x", 1, 1, events.encode([*_ASKED, *more]), RowState(Status.RUNNING, 0))
    await store.open()
    epoch = await store.acquire(Owner(1, "here", 1))
    assert [outcome.error for outcome in await store.write([Create(start), commit], epoch)] == [None, None]
    await store.release()
    async with TaskHub(store, app) as hub:
        beside = await hub.client.start(waits, instance_id="beside")
        await beside.raise_event("told", 1)
        assert await beside.result(PATIENCE_SECONDS) == 1
        assert (await hub.client.get("struck").status()).status == "RUNNING"
    assert "instance 'struck' cannot be read, and is left as it is" in caplog.text


def test_progress_of_a_map_that_nobody_asked_for_is_not_shown() -> None:
    states = map_progress.MapStates()
    states.take(events.MapProgress(4, [1], [None], []))
    states.take(events.MapPage(4, 0, [], 0))
    assert states.now() == []


# ---- exports that somebody has edited

app = App()


@app.activity
async def echoes(x: Any) -> Any:
    return x


@app.activity
async def refuses(x: Any) -> None:
    raise LookupError(x)


@app.entity
class Count:
    n: int = 0

    def add(self, by: int) -> int:
        self.n += by
        return self.n


@app.orchestrator
def child(ctx: OrchestrationContext, x: Any) -> Orchestration[Any]:
    return (yield ctx.call_activity(echoes, x))


@app.orchestrator
def waits(ctx: OrchestrationContext) -> Orchestration[Any]:
    return (yield ctx.wait_for_external_event("told"))


@app.orchestrator
def does_all(ctx: OrchestrationContext, x: Any) -> Orchestration[Any]:
    ctx.set_custom_status("begun")
    yield ctx.call_activity(echoes, 1)
    try:
        yield ctx.call_activity(refuses, 2, retry=RetryPolicy(max_attempts=2, first_interval=timedelta(0)))
    except ActivityError:
        pass
    yield ctx.call_sub_orchestrator(child, 3)
    yield from ctx.map(echoes, [1, 2, 3])
    with (yield from ctx.lock_entities(["@count@a", "@count@b"])):
        yield ctx.call_entity("@count@a", "add", 1)
    ctx.create_timer(timedelta(hours=1)).cancel()
    yield ctx.create_timer(timedelta(0))
    ctx.record(lambda: 5)
    told = yield ctx.wait_for_external_event("told")
    yield from ctx.map(echoes, [1, 2])
    return told


async def exported() -> list[Any]:
    async with TaskHub(MemoryStore(), app) as hub:
        client = hub.client
        for id in ("open", "done"):
            await client.start(does_all, 1, instance_id=id)
        await client.get("done").raise_event("told", 1)
        assert await client.get("done").result(PATIENCE_SECONDS) == 1
        await until_state(client.get("open"), lambda state: not state.maps)
        while "TimerFired" not in [type(event).__name__ async for event in client.get("open").history()]:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        return [json.loads(line) async for line in client.export()]


NUMBERS = [0, 1, -1, 2, 3, 4, 5, 6, 7, 9, 99, 2**31, 2**63 - 1, -(2**63), 2**64, 10**30]
WORDS = [
    "",
    "x",
    "child",
    "@count@a",
    "open",
    "done",
    "\x1b",
    "\ud800",
    "\0",
    "COMPLETED",
    "FAILED",
    "RUNNING",
    "CONTINUED_AS_NEW",
    "5",
]
THINGS: list[Any] = [
    None,
    True,
    [],
    {},
    [[]],
    1.5,
    float("nan"),
    {"a": 1},
    {"$bytes": "wcE="},
    {"$bytes": "wXIA"},
    {"$bytes": "!"},
    {"$bytes": None},
]


def edited(lines: list[Any], random: Random) -> list[Any]:
    """The lines as a careless hand, or a malicious one, leaves them."""
    lines = copy.deepcopy(lines)
    for _ in range(random.choice((1, 1, 2, 3))):
        at, other = random.randrange(len(lines)), random.randrange(len(lines))
        match random.randrange(8):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, copy.deepcopy(lines[other]))
            case 2:
                lines[at], lines[other] = lines[other], lines[at]
            case _:
                _edit(lines[at], random)
    return lines


def _edit(line: Any, random: Random) -> None:
    places: list[tuple[Any, Any]] = []
    waiting = [line]
    while waiting:
        node = waiting.pop()
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            places.append((node, key))
            if isinstance(value, dict | list):
                waiting.append(value)
    node, key = random.choice(places)
    if random.random() < 0.15:
        del node[key]
    elif isinstance(node[key], int):
        node[key] = random.choice([*NUMBERS, node[key] + 1])
    else:
        node[key] = random.choice(WORDS if isinstance(node[key], str) and random.random() < 0.7 else THINGS)


async def test_an_edited_export_is_refused_in_words_or_harms_no_worker() -> None:
    """What is imported is run: an archive is a way into an engine that no client has been asked about."""
    lines = await exported()
    random = Random(7)
    imported = refused = 0
    for _ in range(40):
        text = [json.dumps(line) + "\n" for line in edited(lines, random)]
        store = MemoryStore()
        async with Client(store, app) as client:
            try:
                await client.import_history(text)
            except UserError:
                refused += 1
                assert [state async for state in client.list(include_entities=True)] == []
                continue
            async for state in client.list(include_entities=True):
                instance = client.get(state.id)
                assert [event async for event in instance.history()]
                await instance.maps()
                await instance.waits()
            assert [line async for line in client.export()]
        imported += 1
        async with TaskHub(store, app, limits=Limits(grace=timedelta(0))) as hub:
            alive = await hub.client.start(waits, instance_id="alive")
            await alive.raise_event("told", 1)
            assert await alive.result(PATIENCE_SECONDS) == 1
    assert imported > 5
    assert refused > 5


HEAD = '{"format": 1}\n{"instance": "i", "created_at_microseconds": 1}\n{"execution": "x"}\n'


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"number": ' + "9" * 5_000 + "}",
        '{"event": "TaskFailed", "fields": {"task_scheduled_id": 1, "failure_details": '
        + '{"type": "E", "message": "m", "inner": ' * 400
        + "null"
        + "}" * 400
        + "}}",
        '{"event": "TimerFired", "fields": {"timer_id": 1, "fire_at_microseconds": 9223372036854775807}}',
        '{"event": "TaskCompleted", "fields": {"task_scheduled_id": 1, "result": {"$bytes": "wXIA"}}}',
        '{"event": "ExecutionCompleted", "fields": {"event_id": 1, "orchestration_status": "ENDED"}}',
        '{"event": "MapProgress", "fields": {"task_scheduled_id": 1, "numbers": [1, 2], "results": [], "failures": []}}',
        '{"event": "__import__", "fields": {}}',
        '{"event": "HistoryEvent", "fields": {"__class__": "x"}}',
        '{"execution": "\\u0000"}',
        '{"execution": "\\ud800"}',
        "\0",
        "x" * 10_000_000,
    ],
    ids=lambda line: line[:60].replace("\0", "NUL"),
)
async def test_a_line_that_cannot_be_is_refused_with_its_number(line: str) -> None:
    async with Client(MemoryStore()) as client:
        with pytest.raises(InvalidArgumentError, match=", line 4") as refused:
            await client.import_history((HEAD + line).splitlines(keepends=True))
        assert len(str(refused.value)) < 1_000
