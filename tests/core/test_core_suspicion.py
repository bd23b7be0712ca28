"""Conclusions from deaths: against a naive reading of the whole record, and played through with poisons and with kills from outside."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from replayflow.core import suspicion
from replayflow.core.suspicion import Suspicion

DEATHS_ALONE = 3
REST_SECONDS = 0.25


@dataclass
class Worker:
    """One entry of the record: how the hub was found, and who was watched while this worker had it."""

    died_before: bool
    in_flight: dict[str, int]
    watched: set[str]


workers = st.lists(
    st.builds(
        Worker,
        st.booleans(),
        st.dictionaries(st.sampled_from("abcd"), st.integers(1, 2), max_size=4),
        st.sets(st.sampled_from("abcd")),
    ),
    max_size=8,
)


def naive(record: list[Worker], key: str) -> Suspicion | None:
    """What is held against one, read from the whole record by the rules as they are told to people."""
    since = len(record) - 1  # the first worker of the present row of those that found it in flight at this piece
    while since >= 0 and record[since].in_flight.get(key) == record[-1].in_flight.get(key, object()):
        since -= 1
    deaths = [number for number in range(since + 1, len(record)) if record[number].died_before]
    if not deaths:
        return None
    # A stop before the first death leaves no trace; from the first death on, each counts.
    if len(deaths) < 2:
        return Suspicion(record[-1].in_flight[key])
    strikes = party = alibis = 0
    for number in deaths[2:]:
        watched = watched_by(record, number - 1)
        if key in watched:
            party = len(watched)
            strikes += watched == {key}
        elif not watched:
            alibis += 1
            if all(is_held(record[:number], other) for other in record[number].in_flight):
                strikes = 0
    return Suspicion(record[-1].in_flight[key], is_held=True, party=party, strikes=strikes, alibis=alibis)


def is_held(record: list[Worker], key: str) -> bool:
    found = naive(record, key) if record else None
    return found is not None and found.is_held


def watched_by(record: list[Worker], number: int) -> set[str]:
    """Who was watched when that worker ended: only who was held can be."""
    return {key for key in record[number].watched if is_held(record[: number + 1], key)}


@given(workers)
def test_what_is_suspected_is_what_the_whole_record_says(record: list[Worker]) -> None:
    found: dict[str, Suspicion] = {}
    for number, worker in enumerate(record, 1):
        found = suspicion.after(found, worker.in_flight, worker.died_before)
        expected = {key: naive(record[:number], key) for key in worker.in_flight}
        assert found == {key: one for key, one in expected.items() if one is not None}
        found = watch(found, worker.watched)


def watch(found: Mapping[str, Suspicion], watched: set[str]) -> dict[str, Suspicion]:
    return {key: one.watched() if one.is_held and key in watched else one for key, one in found.items()}


@given(st.dictionaries(st.integers(), st.tuples(st.sampled_from([0, 2, 16, 17, 300]), st.integers(0, 3)), max_size=60))
def test_every_suspect_is_in_one_party_and_the_most_suspected_are_first(held: dict[int, tuple[int, int]]) -> None:
    suspicions = {key: Suspicion(1, is_held=True, party=p, strikes=s) for key, (p, s) in held.items()}
    parties = suspicion.parties(suspicions.items())
    assert sorted(key for party in parties for key in party) == sorted(held)
    strikes = [max(suspicions[key].strikes for key in party) for party in parties]
    assert strikes == sorted(strikes, reverse=True)
    unnarrowed = sum(not one.party for one in suspicions.values())
    for party in parties:
        assert all(len(party) <= max(1, -(-(suspicions[key].party or unnarrowed) // 16)) for key in party)


@given(st.integers(1, 300), st.data())
def test_poisons_are_parked_after_few_deaths_and_nobody_else_is(count: int, data: st.DataObject) -> None:
    poisons = data.draw(st.sets(st.integers(0, count - 1), max_size=3))
    at_work = dict.fromkeys(range(count), 1)
    found: dict[int, Suspicion] = {}
    parked: set[int] = set()
    deaths = 0
    died = False
    while True:
        found = suspicion.after(found, at_work, died)
        for key in [key for key, one in found.items() if one.strikes >= DEATHS_ALONE]:
            parked.add(key)
            del found[key], at_work[key]
        killer = work(found, at_work, poisons)
        if not killer:
            break
        died = True
        deaths += 1
    assert parked == poisons
    assert deaths <= (2 + 3 + DEATHS_ALONE + 1) * max(1, len(poisons))
    assert deaths or not poisons


def work(found: dict[int, Suspicion], at_work: dict[int, int], poisons: set[int]) -> bool:
    """A worker's life: whether it died. Nobody else makes any progress, which is the hardest case."""
    if any(key in poisons for key in at_work if key not in found or not found[key].is_held):
        return True
    for party in suspicion.parties([(key, one) for key, one in found.items() if one.is_held]):
        for key in party:
            found[key] = found[key].watched()
        if not poisons.isdisjoint(party):
            return True
        for key in party:
            found[key] = found[key].released()
    return False


PACES = [0.0, 0.26, *(step / 8 for step in range(1, 80)), 12.5, 16.0, 25.0, 47.0, 64.0, 120.0, 600.0]


@pytest.mark.parametrize("count", [1, 2, 3, 16, 40])
def test_kills_from_outside_at_any_pace_park_nobody(count: int) -> None:
    """No instance ever makes progress, and nothing else is in flight: the hardest case."""
    at_work = dict.fromkeys(range(count), 1)
    for seconds in PACES:
        found: dict[int, Suspicion] = {}
        for number in range(60):
            found = suspicion.after(found, at_work, died=number > 0)
            assert all(one.strikes < DEATHS_ALONE for one in found.values()), (seconds, number)
            live_for(seconds, found)


def live_for(seconds: float, found: dict[int, Suspicion]) -> None:
    """A worker that is killed after so many seconds."""
    held = [(key, one) for key, one in found.items() if one.is_held]
    if not held:
        return
    clock = suspicion.rest_seconds(REST_SECONDS, [one for _, one in held])
    for party in suspicion.parties(held):
        if clock >= seconds:
            return
        clock += suspicion.watch_seconds(found[key] for key in party)
        for key in party:
            found[key] = found[key].watched() if clock > seconds else found[key].released()


@pytest.mark.parametrize("seconds", [0.0, 0.9, 2.5, 10.0, 30.0])
@pytest.mark.parametrize("count", [1, 5])
def test_a_poison_that_takes_its_time_is_found_all_the_same(count: int, seconds: float) -> None:
    """It kills so long after it was let go, beside others that make no progress either."""
    at_work = dict.fromkeys(range(count), 1)
    found: dict[int, Suspicion] = {}
    for deaths in range(30):
        found = suspicion.after(found, at_work, died=deaths > 0)
        if found and found[count - 1].strikes >= DEATHS_ALONE:
            return
        clock = 0.0
        dies_at = None if count - 1 in found and found[count - 1].is_held else seconds
        for party in suspicion.parties([(key, one) for key, one in found.items() if one.is_held]):
            if count - 1 in party:
                dies_at = clock + seconds
            clock += suspicion.watch_seconds(found[key] for key in party)
            is_over = dies_at is not None and dies_at < clock
            for key in party:
                found[key] = found[key].watched() if is_over else found[key].released()
            if is_over:
                break
    raise AssertionError("it was never found")


@pytest.mark.parametrize("others", [False, True])
def test_kills_from_outside_at_random_times_of_a_few_seconds_park_nobody(others: bool) -> None:
    """With nothing else in flight, or with something new in flight at each of thirty kills."""
    chance = random.Random(20)
    for longest in (0.3, 1.0, 2.0, 3.0):
        for _ in range(100):
            found: dict[int, Suspicion] = {}
            for number in range(31):
                at_work: dict[int, int] = dict.fromkeys([0, 1, 2, *([100 + number] if others else [])], 1)
                found = suspicion.after(found, at_work, died=number > 0)
                assert all(one.strikes < DEATHS_ALONE for one in found.values()), longest
                live_for(chance.uniform(0, longest), found)


def rest(**held: int) -> float:
    return suspicion.rest_seconds(0.25, [Suspicion(1, is_held=True), replace(Suspicion(1, is_held=True), **held)])


def test_rest_grows_with_every_strike_and_with_the_watch_that_follows() -> None:
    assert [rest(strikes=strikes) for strikes in range(4)] == [0.25, 2.0, 8.0, 32.0]
    assert [rest(strikes=1, releases=releases) for releases in range(4)] == [2.0, 8.0, 32.0, 32.0]
    assert suspicion.rest_seconds(0.0, [Suspicion(1, is_held=True, strikes=9, alibis=9)]) == 0.0


def test_rest_after_a_strike_grows_with_every_alibi_up_to_a_minute() -> None:
    assert [rest(strikes=1, alibis=alibis) for alibis in range(5)] == [2.0, 8.0, 32.0, 60.0, 60.0]
    assert rest(strikes=1, alibis=10_000) == 60.0
    assert rest(alibis=10_000) == 0.25
    assert rest(alibis=3, strikes=5) == 512.0  # what strikes ask for no alibi takes away


def test_a_watch_grows_with_every_release_up_to_a_bound() -> None:
    alone = [suspicion.watch_seconds([Suspicion(1, is_held=True, releases=releases)]) for releases in range(5)]
    assert alone == [2.0, 8.0, 32.0, 32.0, 32.0]
    assert suspicion.watch_seconds([Suspicion(1, is_held=True)] * 2) == 1.0
