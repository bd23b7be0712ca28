"""Both stores are given the same random operations, and must answer and show the same after each.

Among what they are given are large payloads. After each operation the contents that a store keeps are those that something in it refers to.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from replayflow.codec.reference import reference_to
from replayflow.core.commit import Commit, Message, RowState, Start, Turn
from replayflow.core.events import TaskCompleted, TaskScheduled
from replayflow.core.instance import Status
from replayflow.errors import StoreError
from replayflow.store import MemoryStore, SqliteStore, Store
from replayflow.store.base import (
    Branch,
    Branched,
    Create,
    Grouping,
    InstanceFilter,
    Loaded,
    OnExisting,
    Operation,
    Outcome,
    Park,
    Post,
    Purge,
    Seen,
    Trim,
)
from tests import scratch
from tests.store.builders import EVERYTHING, OWNER, contents_of, encoded_events

T = TypeVar("T")

ids = st.sampled_from(["a", "b", "@e@c", "ü'%", "A"])
executions = st.sampled_from(["x1", "x2", "x3"])
LARGE_OVER_BYTES = 8
LARGE = [b"a large payload", b"another large payload"]
pieces = st.sampled_from(
    [encoded_events(), encoded_events(b"small"), *map(encoded_events, LARGE), encoded_events(*LARGE)]
)
passed_on = st.sampled_from([encoded_events(reference_to(content)) for content in LARGE])
events = st.sampled_from([b"", b"one", b"two"]) | pieces | passed_on
payloads = st.none() | st.sampled_from([b"", b"one", *LARGE])
tags = st.none() | st.dictionaries(st.sampled_from(["k", "ü", "%"]), st.sampled_from(["v", "'", ""]), max_size=2)
wakes = st.none() | st.integers(0, 3)
bad_texts = st.sampled_from(["a\0", "\ud800"])
messages = st.builds(Message, ids, events, st.none() | executions, st.booleans())
choices: st.SearchStrategy[OnExisting] = st.sampled_from(
    ["error", "return", "replace_finished", "terminate_and_replace"]
)
states = st.builds(
    RowState,
    st.sampled_from(list(Status)),
    wakes,
    payloads,
    payloads,
    payloads,
    st.none() | st.integers(0, 9),
    st.none() | pieces,
)
filters = st.builds(
    InstanceFilter,
    st.none() | st.frozensets(st.sampled_from(list(Status))),
    st.none() | st.sampled_from(["order", "ship"]),
    st.none() | st.sampled_from(["a", "ü", "ü'%", "%", "\ud800"]),
    st.lists(st.tuples(st.sampled_from(["k", "ü", "%"]), st.sampled_from(["v", "'", ""])), max_size=2).map(tuple),
    st.none() | st.integers(0, 60),
    st.none() | st.integers(0, 60),
    st.none() | st.booleans(),
    st.none() | st.booleans(),
    st.none() | st.none() | st.integers(0, 9),
    st.none() | st.none() | st.integers(0, 9),
    st.none() | st.none() | ids,
)


class TwoStores(RuleBasedStateMachine):
    @initialize(with_client=st.booleans())
    def open(self, with_client: bool) -> None:
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="replayflow-", dir=scratch.memory()))
        self.memory = MemoryStore(large_over_bytes=LARGE_OVER_BYTES)
        self.sqlite = self.store_on_file()
        # What a client writes goes through a connection of its own: the worker's must notice.
        self.client = self.store_on_file() if with_client else self.sqlite
        for store in (self.memory, self.sqlite, self.client):
            self.run(store.open())
        self.epochs: list[int] = []
        self.executions = 3
        self.clock = 0

    def store_on_file(self) -> SqliteStore:
        return SqliteStore(self.folder / "hub.db", synchronous="NORMAL", large_over_bytes=LARGE_OVER_BYTES)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.run(self.client.close())
            self.run(self.sqlite.close())
            self.runner.close()
            shutil.rmtree(self.folder)

    # ---- what is done to both

    def both(self, ask: Any) -> Any:
        answers: list[Any] = []
        for store in (self.memory, self.sqlite):
            try:
                answers.append(self.run(ask(store)))
            except StoreError as error:
                answers.append(type(error))
        assert answers[0] == answers[1]
        return answers[0]

    @rule()
    def acquire(self) -> None:
        epoch = self.both(lambda store: store.acquire(OWNER))
        if isinstance(epoch, int):
            self.epochs.append(epoch)

    @rule()
    def release(self) -> None:
        self.both(lambda store: store.release())

    @rule()
    def reopen(self) -> None:
        async def reopen(store: Store) -> None:
            await store.close()
            await store.open()

        self.both(reopen)

    @rule(data=st.data(), size=st.integers(0, 7))
    def write(self, data: st.DataObject, size: int) -> None:
        operations = [self.an_operation(data.draw) for _ in range(size)]
        epoch = data.draw(st.sampled_from([None, None, 0, *self.epochs[-2:]]), label="epoch")
        answers: list[Any] = []
        for store in (self.memory, self.client if epoch is None else self.sqlite):
            try:
                answers.append([plain(outcome) for outcome in self.run(store.write(operations, epoch))])
            except StoreError as error:
                answers.append(type(error))
        assert answers[0] == answers[1]

    def an_operation(self, draw: Any) -> Operation:
        match draw(
            st.sampled_from(
                ["create", "post", "commit", "commit", "commit", "park", "purge", "trim", "branch", "turn", "turn"]
            )
        ):
            case "create":
                new = self.a_start(draw)
                replacement = Message(new.instance_id, b"replaced", is_control=True)
                return Create(new, draw(choices), replacement)
            case "post":
                key = draw(st.none() | st.sampled_from(["k", "K", "\ud800"]))
                return Post(self.a_message(draw), key, draw(st.booleans()))
            case "purge":
                id, execution = self.a_target(draw)
                return Purge(id, draw(st.sampled_from([None, execution])), draw(st.integers(0, 2**40)))
            case "trim":
                return Trim(self.a_target(draw)[0], draw(st.integers(0, 2)))
            case "park":
                id, execution = self.a_target(draw)
                return Park(id, execution, draw(st.none() | events), self.some_messages(draw))
            case "branch":
                return self.a_branch(draw)
            case "turn":
                return self.a_turn(draw)
            case _:
                return self.a_commit(draw)

    def a_branch(self, draw: Any) -> Branch:
        """Most begin something new, or what fits; a few look at an instance that is another than it was."""
        begun: dict[str, Branched] = {}
        for _ in range(draw(st.integers(0, 2))):
            new = self.a_start(draw)
            loaded = self.run(self.memory.load([new.instance_id]))
            pieces = [(self.clock, draw(events) or b"piece") for _ in range(draw(st.integers(0, 2)))]
            replaces, last = None, 0
            if loaded and draw(st.integers(0, 4)):
                replaces = draw(st.sampled_from([loaded[0].record.execution_id] * 4 + ["x1"]))
                last = loaded[0].record.start_number + loaded[0].piece_count + draw(st.sampled_from([0, 0, 0, 0, 1]))
            begun.setdefault(new.instance_id, Branched(new, pieces, draw(states), replaces, last))
        seen = []
        for _ in range(draw(st.integers(0, 1))):
            id, execution = self.a_target(draw)
            seen.append(Seen(id, draw(st.none() | st.just(execution))))
        return Branch(
            list(begun.values()),
            seen,
            [self.a_start(draw) for _ in range(draw(st.integers(0, 1)))],
            self.some_messages(draw),
        )

    def a_message(self, draw: Any) -> Message:
        """Some begin their receiver where there is none; a start that does not begin is not looked at, and may be any."""
        message: Message = draw(messages)
        if draw(st.integers(0, 2)) == 0:
            message = replace(message, start=replace(self.a_start(draw, message.instance_id), name="order"))
        return message

    def some_messages(self, draw: Any) -> list[Message]:
        return [self.a_message(draw) for _ in range(draw(st.integers(0, 2)))]

    def a_target(self, draw: Any) -> tuple[str, str]:
        id = draw(ids)
        row = self.run(self.memory.get(id))
        if row is None or draw(st.integers(0, 4)) == 0:
            return id, draw(executions)
        return id, row.execution_id

    def a_start(self, draw: Any, id: str | None = None) -> Start:
        self.executions += 1
        self.clock += 1
        name = draw(st.sampled_from(["order", "order", "ship", "\ud800"]))
        parent = draw(st.none() | ids)
        return Start(
            draw(ids | ids | ids | bad_texts) if id is None else id,
            f"x{self.executions}",
            name,
            None,
            draw(events),
            self.clock,
            draw(wakes) or 0,
            parent_id=parent,
            tags=draw(tags),
        )

    def a_turn(self, draw: Any) -> Turn:
        """To the memory store it is a commit; what SQLite makes of it must be the same."""
        id, execution = self.a_target(draw)
        loaded = self.run(self.memory.load([id]))
        sequence = self.next_number(loaded) + draw(st.sampled_from([0, 0, 0, 0, 1, -1]))
        self.clock += 1
        chunk = draw(pieces)
        return Turn(
            id, execution, sequence, self.clock, chunk, came=TaskCompleted(1), asked=TaskScheduled(2, "act", None)
        )

    def next_number(self, loaded: Sequence[Loaded]) -> int:
        return loaded[0].record.start_number + loaded[0].piece_count + 1 if loaded else 1

    def a_commit(self, draw: Any) -> Commit:
        id, execution = self.a_target(draw)
        loaded = self.run(self.memory.load([id]))
        sequence = self.next_number(loaded)
        own = [delivery.number for one in loaded for delivery in one.inbox]
        state = draw(st.none() | states)
        ends = state is not None and state.status.is_finished
        self.clock += 1
        starts = []
        for new in draw(st.lists(st.just(None), max_size=2)):
            new = self.a_start(draw)
            is_taken = bool(self.run(self.memory.load([new.instance_id])))
            # Only what is begun has to be storable: a start that loses to a taken id is not looked at.
            starts.append(replace(new, name="order" if is_taken else new.name, if_taken=draw(st.none() | messages)))
        return Commit(
            id,
            execution,
            sequence + draw(st.sampled_from([0, 0, 0, 0, 1, 2, -1])),
            self.clock,
            encoded_events(b"the end") if ends else draw(st.none() | pieces),
            state,
            draw(st.lists(st.sampled_from(own), unique=True)) if own else [],
            starts,
            self.some_messages(draw),
            self.a_start(draw, id) if ends and draw(st.booleans()) else None,
            draw(st.none() | st.integers(0, 2)),
            draw(st.integers(0, 3)) == 0,
        )

    # ---- what both show

    @rule(wanted=filters, limit=st.integers(1, 4), latest_first=st.booleans())
    def list(self, wanted: InstanceFilter, limit: int, latest_first: bool) -> None:
        cursor: str | None = None
        while True:
            page = self.both(lambda store, cursor=cursor: store.page(wanted, limit, cursor, latest_first))
            cursor = page.cursor
            if cursor is None:
                return

    @rule(wanted=filters, by=st.sampled_from([None, "status", "name"]))
    def count(self, wanted: InstanceFilter, by: Grouping | None) -> None:
        self.both(lambda store: store.count(wanted, by))

    @rule(after=st.none() | st.tuples(st.integers(0, 3), st.integers(-1, 6)), limit=st.integers(1, 4))
    def wake(self, after: tuple[int, int] | None, limit: int) -> None:
        self.both(lambda store: store.wakes(after, limit))

    @rule(after=st.integers(0, 40), limit=st.integers(1, 4))
    def arrive(self, after: int, limit: int) -> None:
        self.both(lambda store: store.arrived(after, limit))

    @rule(status=st.sampled_from(Status), before=st.integers(0, 10), keep=st.integers(0, 2), limit=st.integers(1, 3))
    def look_for_what_may_go(self, status: Status, before: int, keep: int, limit: int) -> None:
        self.both(lambda store: store.ended(status, before, limit))
        after: int | None = 0
        while after is not None:
            _, after = self.both(lambda store, after=after: store.long_pasts(keep, after, limit))

    @rule(parents=st.lists(ids, unique=True), limit=st.integers(1, 3))
    def look_for_children(self, parents: Sequence[str], limit: int) -> None:
        self.both(lambda store: store.children(parents, limit))

    @invariant()
    def they_show_the_same(self) -> None:
        if not hasattr(self, "runner"):
            return
        page = self.both(lambda store: store.page(EVERYTHING, 100))
        found = [row.instance_id for row in page.records]
        self.both(lambda store: store.load([*found, "missing"]))
        self.both(lambda store: store.arrived(0, 1_000))
        self.both(lambda store: store.wakes(None, 1_000))
        self.both(counts)
        for one in found:
            self.both(lambda store, one=one: store.get(one))
            self.both(lambda store, one=one: store.history(one))
            for execution in range(1, self.executions + 1, 3):
                self.both(lambda store, one=one, execution=execution: store.history(one, f"x{execution}"))

    @invariant()
    def what_is_kept_is_what_is_referred_to(self) -> None:
        if hasattr(self, "runner"):
            in_memory = self.run(contents_of(self.memory))
            in_file = self.run(contents_of(self.sqlite))
            assert in_memory.kept == in_file.kept
            assert in_memory.kept == in_memory.referred_to
            assert in_file.kept == in_file.referred_to


async def counts(store: Store) -> object:
    found = await store.footprint()
    return {s: n for s, n in found.finished.items() if s is not Status.CONTINUED_AS_NEW}, found.purged


def plain(outcome: Outcome) -> tuple[object, ...]:
    error = None if outcome.error is None else type(outcome.error)
    return error, outcome.deliveries, outcome.started, outcome.dropped, outcome.has_existed


TestTwoStores = TwoStores.TestCase
TestTwoStores.settings = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize=True,
)
