"""What can be found out about a hub that has instances in every state; with code at hand and without."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    App,
    Client,
    Instance,
    InstanceNotFoundError,
    InvalidArgumentError,
    OrchestrationContext,
    Patience,
    Wait,
    WaitKind,
)
from replayflow.client import doctor
from replayflow.client.finding import Wanted
from replayflow.store import SqliteStore
from replayflow.store.base import Condition
from tests import menagerie
from tests.ciphers import ToyCipher
from tests.semantics.kit import Place

NOTHING = timedelta(0)
AT_ONCE = Patience(event=NOTHING, activity=NOTHING, message=NOTHING, suspended=NOTHING)


@pytest.fixture
async def filled(place: Place) -> Place:
    await menagerie.fill(place.store())
    return place


def own(waits: list[Wait]) -> list[Wait]:
    """Without what all have: that no worker serves the hub."""
    assert [wait.kind for wait in waits][:1] == [WaitKind.WORKER]
    return waits[1:]


# ---- waits


async def test_each_instance_says_what_it_waits_for(filled: Place) -> None:
    before = datetime.now(UTC)
    async with Client(filled.store(), menagerie.app(2)) as client:
        for id, kind in menagerie.ONE_OF_EACH.items():
            waits = await client.get(id).waits()
            if kind is None:
                assert waits == []
                continue
            assert kind in {wait.kind for wait in own(waits)}, id
            assert all(wait.since is None or wait.since <= before for wait in waits)

        async def only(id: str) -> Wait:
            [wait] = own(await client.get(id).waits())
            return wait

        limited = await only("listens_for_a_day")
        assert (limited.name, limited.until is not None, "menagerie.py:" in limited.site) == ("go", True, True)
        timer = await only("sleeps")
        assert timer.until is not None
        assert timer.since is not None
        assert timer.until - timer.since == menagerie.DAY
        activity = await only("works")
        assert (activity.name, activity.task_id, activity.attempt) == ("never_ends", 1, 1)
        retry = await only("tries_again")
        assert (retry.name, retry.attempt) == ("fails", 2)
        assert (await only("maps")).detail == "1 of 2 items done"
        call = await only("calls")
        assert (call.kind, call.name, call.target, call.detail) == (WaitKind.CALL, "add", "@counter@a", "held by holds")
        child = await only("grandparent")
        assert (child.kind, child.target, child.detail) == (WaitKind.CHILD, "parent", "RUNNING")
        start = await only("later")
        assert (start.kind, start.until is not None) == (WaitKind.START, True)
        resume, event = own(await client.get("suspended").waits())
        assert (resume.kind, event.kind) == (WaitKind.RESUME, WaitKind.EVENT)


async def test_a_request_that_nobody_has_heard_yet_is_told(filled: Place) -> None:
    async with Client(filled.store(), menagerie.app()) as client:
        message, event = own(await client.get("listens").waits())
        assert (message.kind, message.name, message.detail) == (WaitKind.MESSAGE, "cancel", "nobody is there")
        assert message.since is not None
        assert (event.kind, event.name) == (WaitKind.EVENT, "Go")


async def test_without_code_an_event_has_no_name_and_all_else_is_as_with_it(filled: Place) -> None:
    async with Client(filled.store()) as bare, Client(filled.store(), menagerie.app()) as knowing:
        for id in ("sleeps", "works", "tries_again", "maps", "calls", "grandparent"):
            assert await bare.get(id).waits() == await knowing.get(id).waits()
        [event] = own(await bare.get("holds").waits())
        assert (event.kind, event.name) == (WaitKind.EVENT, "")


async def test_code_that_does_not_fit_says_so_and_changes_nothing(filled: Place) -> None:
    async with Client(filled.store(), menagerie.app(2)) as client:
        repair, timer = own(await client.get("changes").waits())
        assert (repair.kind, timer.kind) == (WaitKind.REPAIR, WaitKind.TIMER)
        assert "the history has timer" in repair.detail
        repair, event = own(await client.get("withdrawn").waits())
        assert (repair.detail, event.name) == ("this app has no orchestrator 'withdrawn'", "")
        assert (await client.get("withdrawn").status()).problem is None


async def test_a_served_hub_waits_for_no_worker(place: Place) -> None:
    async with place.hub(menagerie.app()) as hub:
        instance: Instance[Any] = await hub.client.start("sleeps")
        await menagerie.until_waits(instance)
        assert [wait.kind for wait in await instance.waits()] == [WaitKind.TIMER]
        assert await hub.client.worker() is not None


async def test_an_unknown_id_has_no_waits_and_no_tree(filled: Place) -> None:
    async with Client(filled.store()) as client:
        with pytest.raises(InstanceNotFoundError):
            await client.get("none").waits()
        with pytest.raises(InstanceNotFoundError):
            await client.get("none").tree()


# ---- list and count


async def test_counts_are_those_of_what_is_listed(filled: Place) -> None:
    async with Client(filled.store()) as client:
        several: list[Wanted] = [
            {},
            {"parent": "parent"},
            {"tags": {"kind": "maps"}},
            {"parked": True},
            {"status": "FAILED"},
        ]
        for wanted in several:
            listed = [state async for state in client.list(**wanted)]
            by_status = await client.count(by="status", **wanted)
            assert by_status == Counter(str(state.status) for state in listed)
            assert list(by_status.values()) == sorted(by_status.values(), reverse=True)
            by_name = await client.count(by="name", **wanted)
            assert by_name == Counter(state.name for state in listed)
            assert await client.count(**wanted) == {"total": len(listed)}


async def test_a_window_of_completion_lists_in_the_order_of_the_ends(filled: Place) -> None:
    async with Client(filled.store()) as client:
        begin = datetime(2020, 1, 1, tzinfo=UTC)
        ended = [state async for state in client.list(completed_from=begin)]
        assert ended
        assert all(state.completed_at is not None for state in ended)
        times = [state.completed_at for state in ended]
        assert times == sorted(times)  # type: ignore[type-var]
        newest = [state.id async for state in client.list(completed_from=begin, newest_first=True)]
        assert newest == [state.id for state in reversed(ended)]
        assert await client.count(completed_to=begin) == {"total": 0}


@pytest.mark.parametrize(
    "wanted",
    [
        {"completed_from": datetime(2020, 1, 1)},  # noqa: DTZ001 - naive is what it is about
        {"parent": 1},
        {"name": b"order"},
        {"status": "DONE"},
        {"by": "colour"},
    ],
)
async def test_a_filter_that_is_none_is_refused(place: Place, wanted: dict[str, Any]) -> None:
    async with Client(place.store()) as client:
        with pytest.raises(InvalidArgumentError):
            await client.count(**wanted)


# ---- tree


async def test_a_tree_has_every_descendant_shown_or_counted(filled: Place) -> None:
    async with Client(filled.store()) as client:
        whole = (await client.get("grandparent").tree(children_max=1_000)).tree
        [parent] = whole.children
        total = (await client.count(parent="parent"))["total"]
        assert (len(parent.children), parent.folded) == (total, {})
        for shown in range(total):
            [folded] = (await client.get("grandparent").tree(children_max=shown or 1)).tree.children
            assert len(folded.children) + sum(folded.folded.values()) == total
        # Those that need a look are shown first.
        [few] = (await client.get("grandparent").tree(children_max=2)).tree.children
        assert {str(child.state.status) for child in few.children} == {"FAILED"}


async def test_a_tree_is_as_deep_as_it_is_asked_to_be_and_knows_what_is_above(filled: Place) -> None:
    async with Client(filled.store()) as client:
        flat = await client.get("grandparent").tree(depth=0)
        assert (flat.tree.children, flat.tree.folded) == ([], {"RUNNING": 1})
        lineage = await client.get("parent:0002").tree()
        assert [state.id for state in lineage.ancestors] == ["grandparent", "parent"]
        assert (lineage.tree.state.id, lineage.tree.children) == ("parent:0002", [])
        with pytest.raises(InvalidArgumentError, match="depth"):
            await client.get("parent").tree(depth=-1)


# ---- examine


async def test_an_examination_finds_all_that_is_stuck(filled: Place) -> None:
    async with Client(filled.store(), menagerie.app(2)) as client:
        found = await client.examine(patience=AT_ONCE, is_thorough=True)
    topics = Counter(finding.topic for finding in found.findings)
    assert set(topics) >= {"worker", "parked", "unserved", "event", "activity", "message", "suspended", "schedule"}
    assert not set(topics) & {"damage", "late", "log", "size"}
    by_topic = {finding.topic: finding for finding in found.findings}
    assert by_topic["parked"].examples == ("changes",)
    assert "'withdrawn'" in by_topic["unserved"].text
    assert by_topic["message"].examples == ("listens",)
    assert by_topic["suspended"].examples == ("suspended",)
    assert "holidays" in by_topic["schedule"].text
    waiting = {id for finding in found.findings if finding.topic == "event" for id in finding.examples}
    assert "holds" in waiting
    assert not waiting & {"listens_for_a_day", "sleeps", "calls", "grandparent", "suspended", "schedule:nightly"}
    assert all(finding.advice for finding in found.findings)
    assert [finding.is_problem for finding in found.findings] == sorted(
        (finding.is_problem for finding in found.findings), reverse=True
    )


async def test_what_is_normal_is_no_finding(place: Place) -> None:
    async with place.hub(menagerie.app()) as hub:
        for name in ("completes", "sleeps", "listens", "works", "breaks"):
            await menagerie.until_waits(await hub.client.start(name, instance_id=name))
        found = await hub.client.examine()
        assert [finding for finding in found.findings if finding.topic != "permissions"] == []
        assert found.worker is not None
        assert found.counts["RUNNING"] == 3


async def test_instances_of_a_version_that_has_no_code_are_told_apart_from_those_that_have(place: Place) -> None:
    def waits(ctx: OrchestrationContext) -> Any:
        yield ctx.wait_for_external_event("go")

    both, newer = App(), App()
    both.orchestrator(name="waits", version="1")(waits)
    both.orchestrator(name="waits", version="2")(lambda ctx: waits(ctx))
    newer.orchestrator(name="waits", version="2")(waits)
    async with Client(place.store(), both) as client:
        for version in ("1", "1", "2"):
            await client.start("waits", version=version)
        found = (await client.examine()).findings
        assert "unserved" not in {finding.topic for finding in found}
    async with Client(place.store(), newer) as client:
        [unserved] = [finding for finding in (await client.examine()).findings if finding.topic == "unserved"]
        assert (
            "2 instances of 'waits' of version '1' have no code: this app has no code of that version" in unserved.text
        )


async def test_a_hub_that_nobody_serves_is_a_problem_only_where_there_is_something_to_do(place: Place) -> None:
    async with place.hub(menagerie.app()) as hub:
        await (await hub.client.start("completes")).result(20)
    async with Client(place.store()) as client:
        assert (await client.examine()).problems == []
        await client.start("completes")
        [problem] = (await client.examine()).problems
        assert (problem.topic, problem.count) == ("worker", 1)


async def test_parked_instances_are_grouped_by_what_ails_them(place: Place) -> None:
    async with place.hub(menagerie.app(1)) as hub:
        for number in range(5):
            await menagerie.until_waits(await hub.client.start("changes", instance_id=f"changes-{number}"))
    async with place.hub(menagerie.app(2)) as hub:
        for number in range(5):
            await menagerie.until_parked(hub.client, f"changes-{number}")
    async with Client(place.store()) as client:
        [parked] = [finding for finding in (await client.examine()).findings if finding.topic == "parked"]
        assert (parked.count, len(parked.examples)) == (5, 3)
        assert parked.text.startswith("5 instances of 'changes' are parked: ")


async def test_what_is_parked_for_want_of_code_is_one_finding(place: Place) -> None:
    async with Client(place.store()) as client:
        await client.start("withdrawn", instance_id="withdrawn")
    async with place.hub(menagerie.app(2)) as hub:
        await menagerie.until_parked(hub.client, "withdrawn")
        problems = (await hub.client.examine()).problems
        assert [(problem.topic, problem.examples) for problem in problems] == [("parked", ("withdrawn",))]
        assert "no orchestrator 'withdrawn'" in problems[0].text


async def test_what_killed_its_worker_is_not_said_to_be_tried_again_by_a_start(place: Place) -> None:
    async with Client(place.store()) as client:
        await client.start("listens", instance_id="a")
        [loaded] = await client._store.load(["a"])
        loaded.record.problem = b"RF134: 3 workers died"
        assert "its start alone tries none of them again" in doctor._repair(loaded.record)
        loaded.record.problem = b"the history has nothing more here"
        assert "restart the worker" in doctor._repair(loaded.record)


@pytest.mark.parametrize(
    ("condition", "counts", "topic", "is_problem"),
    [
        (Condition(log=2**28), {}, "log", True),
        (Condition(size=2**34), {}, "size", False),
        (Condition(), {"COMPLETED": 999_999, "FAILED": 1}, "size", False),
        (Condition(faults=("page 7 is never used",)), {}, "damage", True),
        (Condition(mode=0o646), {}, "permissions", True),
        (Condition(mode=0o644), {}, "permissions", False),
    ],
)
def test_what_the_store_itself_shows_is_a_finding(
    condition: Condition, counts: dict[str, int], topic: str, is_problem: bool
) -> None:
    [finding] = doctor._of_the_store(condition, counts)
    assert (finding.topic, finding.is_problem) == (topic, is_problem)


def test_a_store_that_is_well_shows_nothing() -> None:
    assert doctor._of_the_store(Condition(2**20, 0, 2**20, 3, 0o600), {"COMPLETED": 5, "RUNNING": 10**7}) == []


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1_023, "1,023 bytes"), (1_536, "1.5 KB"), (2**28, "256 MB"), (2**50, "1,024 TB")],
)
def test_sizes_are_told_in_their_largest_unit(count: int, text: str) -> None:
    assert doctor.size_text(count) == text


async def test_a_filter_that_is_misspelt_does_not_mean_everybody(place: Place) -> None:
    misspelt: Any = {"statuss": "FAILED"}
    async with place.hub(App()) as hub:
        client = hub.client
        for asked in (anext(client.list(**misspelt)), client.list_page(**misspelt), client.count(**misspelt)):
            with pytest.raises(InvalidArgumentError, match="there is no filter 'statuss'; there are status, name"):
                await asked


async def test_schedules_whose_key_is_not_at_hand_keep_nobody_from_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with Client(SqliteStore(path, cipher=ToyCipher())) as client:
        await client.create_schedule("nightly", "completes", every=timedelta(days=1))
    async with Client(SqliteStore(path)) as client:
        found = await client.examine(is_thorough=True)
    assert found.condition.faults == ()
    assert [finding.is_problem for finding in found.findings if finding.topic == "schedule"] == [False]
