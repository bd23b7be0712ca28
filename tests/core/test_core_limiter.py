"""The laws of limits, against a naive model that remembers everything."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import timedelta
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayflow import InvalidArgumentError, Quota, Rate
from replayflow.core.limiter import Allowance, Limiter

KEYS = ("a", "b", "c")
MICROSECOND = timedelta(microseconds=1)


Limits: TypeAlias = tuple[int | None, Rate | None]


class Model:
    """All that ever happened, looked through at each question."""

    def __init__(self, own: Limits, total: Limits, opens_at: int | None) -> None:
        self.own = own
        self.total = total
        self.opens_at = opens_at
        self.waiting: list[tuple[int, str]] = []
        self.active: list[str] = []
        self.begun: list[tuple[int, str]] = []

    def may_begin(self, key: str, now: int) -> bool:
        return self._allows(self.own, {key}, now) and self._allows(self.total, set(KEYS), now)

    def _allows(self, limits: Limits, keys: set[str], now: int) -> bool:
        concurrency, rate = limits
        if concurrency is not None and sum(key in keys for key in self.active) >= concurrency:
            return False
        if rate is None:
            return True
        since = now - rate.per // MICROSECOND
        lately = sum(1 for at, key in self.begun if key in keys and at > since)
        return lately < rate.count and (self.opens_at is None or now >= self.opens_at)

    def candidates(self, now: int, unwanted: set[int]) -> set[int]:
        """The first of each key that wants to begin, where it may."""
        firsts: dict[str, int] = {}
        for item, key in self.waiting:
            if item not in unwanted:
                firsts.setdefault(key, item)
        return {item for key, item in firsts.items() if self.may_begin(key, now)}

    def begin(self, item: int, now: int) -> str:
        (key,) = [key for waiting, key in self.waiting if waiting == item]
        self.waiting = [(waiting, whose) for waiting, whose in self.waiting if waiting != item]
        self.active.append(key)
        self.begun.append((now, key))
        return key


limits: st.SearchStrategy[Limits] = st.tuples(
    st.none() | st.integers(1, 3),
    st.none() | st.builds(Rate, st.integers(1, 3), st.integers(1, 8).map(lambda us: us * MICROSECOND)),
)
moves = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.sampled_from(KEYS)),
        st.tuples(st.just("take"), st.none()),
        st.tuples(st.just("end"), st.integers(0, 20)),
        st.tuples(st.just("withdraw"), st.integers(0, 20)),
        st.tuples(st.just("wait"), st.integers(1, 5)),
    ),
    max_size=80,
)


@given(limits, limits, st.none() | st.integers(0, 10), moves)
def test_whoever_may_begin_does_and_nobody_else(
    own: Limits, total: Limits, opens_at: int | None, moves: list[tuple[str, Any]]
) -> None:
    model = Model(own, total, opens_at)
    limiter = Limiter[int](*own, opens_at, Allowance(*total, opens_at))
    unwanted: set[int] = set()
    now = items = 0
    for move, argument in moves:
        if move == "join":
            items += 1
            limiter.join(items, argument)
            model.waiting.append((items, argument))
        elif move == "withdraw" and model.waiting:
            unwanted.add(model.waiting[argument % len(model.waiting)][0])
        elif move == "end" and model.active:
            limiter.leave(model.active.pop(argument % len(model.active)))
        elif move == "wait":
            now += argument
        elif move == "take":
            candidates = model.candidates(now, unwanted)
            taken = limiter.take(now, lambda item: item not in unwanted)
            assert taken in candidates if candidates else taken is None
            if taken is not None:
                model.begin(taken, now)
    # What is left begins in the end, each in the turn of its key.
    while True:
        taken = limiter.take(now, lambda item: item not in unwanted)
        if taken is not None:
            assert taken in model.candidates(now, unwanted)
            model.begin(taken, now)
        elif model.active:
            limiter.leave(model.active.pop())
        elif limiter.next_at is not None:
            assert limiter.next_at > now
            now = limiter.next_at
        else:
            break
    assert {item for item, _ in model.waiting} <= unwanted


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(KEYS)), max_size=60), st.integers(1, 3), st.integers(1, 5))
def test_no_period_wherever_it_begins_has_more_than_the_rate_says(
    arrivals: list[tuple[int, str]], count: int, per: int
) -> None:
    limiter = Limiter[int](rate=Rate(count, per * MICROSECOND))
    begun: dict[Hashable, list[int]] = {}
    keys: list[str] = []
    now = 0

    def take_all() -> None:
        while (item := limiter.take(now, lambda _: True)) is not None:
            begun.setdefault(keys[item], []).append(now)

    for pause, key in arrivals:
        now += pause
        keys.append(key)
        limiter.join(len(keys) - 1, key)
        take_all()
    while limiter.next_at is not None:
        now = limiter.next_at
        take_all()
    assert sum(map(len, begun.values())) == len(arrivals)
    for times in begun.values():
        assert all(later - first >= per for first, later in zip(times, times[count:], strict=False))


def test_keys_take_turns_however_many_wait_for_one_of_them() -> None:
    limiter = Limiter[str](concurrency=2)
    for number in range(100):
        limiter.join(f"a{number}", "a")
    limiter.join("b0", "b")
    limiter.join("b1", "b")
    assert [limiter.take(0, lambda _: True) for _ in range(5)] == ["a0", "b0", "a1", "b1", None]
    limiter.leave("a")
    assert limiter.take(0, lambda _: True) == "a2"


def test_keys_take_turns_at_what_is_left_of_a_total() -> None:
    total = Allowance(concurrency=1)
    limiter = Limiter[str](total=total)
    for number in range(3):
        for key in ("a", "a", "b"):
            limiter.join(f"{key}{number}", key)
    taken = []
    while (item := limiter.take(0, lambda _: True)) is not None:
        assert limiter.take(0, lambda _: True) is None
        assert not limiter.is_ready
        taken.append(item[0])
        limiter.leave(item[0])
    assert "".join(taken) == "abababaaa"


def test_a_total_is_shared_by_all_that_have_it() -> None:
    total = Allowance(rate=Rate(2, 5 * MICROSECOND))
    one, other = Limiter[int](total=total), Limiter[int](total=total)
    for number in range(2):
        one.join(number)
        other.join(number)
    assert (one.take(0, lambda _: True), other.take(3, lambda _: True)) == (0, 0)
    assert one.take(3, lambda _: True) is None
    assert other.take(4, lambda _: True) is None
    assert (one.next_at, other.next_at) == (5, 5)
    assert other.take(5, lambda _: True) == 1
    assert one.take(5, lambda _: True) is None
    assert one.next_at == 8


def test_who_is_not_wanted_takes_no_part_of_the_rate() -> None:
    limiter = Limiter[int](rate=Rate(1, timedelta(seconds=1)))
    for number in range(10):
        limiter.join(number)
    assert limiter.take(0, lambda number: number == 9) == 9
    assert limiter.take(0, lambda _: True) is None
    assert limiter.next_at is None


def test_a_rate_that_may_have_been_used_up_opens_when_a_period_has_passed() -> None:
    limiter = Limiter[int](rate=Rate(2, timedelta(seconds=1)), opens_at=1_000_000)
    limiter.join(1)
    assert limiter.take(999_999, lambda _: True) is None
    assert limiter.next_at == 1_000_000
    assert limiter.take(1_000_000, lambda _: True) == 1


@pytest.mark.parametrize("rate", [None, Rate(1, timedelta(microseconds=5))])
def test_keys_in_which_nothing_goes_on_are_forgotten(rate: Rate | None) -> None:
    limiter = Limiter[int](1, rate)
    for now in range(0, 50_000, 10):
        limiter.join(now, f"key {now}")
        assert limiter.take(now, lambda _: True) == now
        limiter.leave(f"key {now}")
    assert limiter.keys <= 1_001


def test_ten_thousand_that_wait_cost_those_that_begin_nothing() -> None:
    limiter = Limiter[int](concurrency=1)
    for number in range(10_000):
        limiter.join(number, "slow")
    assert limiter.take(0, lambda _: True) == 0
    looked_at: list[int] = []

    def wanted(item: int) -> bool:
        looked_at.append(item)
        return True

    for number in range(100):
        limiter.join(-number, "quick")
        assert limiter.take(0, wanted) == -number
        limiter.leave("quick")
    assert len(looked_at) == 100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "it limits nothing"),
        ({"concurrency": 0}, "Quota: concurrency is 0"),
        ({"rate": 10}, "Quota: rate is 10; it is a Rate"),
    ],
)
def test_what_is_no_quota_is_refused(arguments: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        Quota(**arguments)


@pytest.mark.parametrize(
    ("count", "per", "words"),
    [
        (0, timedelta(seconds=1), "count is 0"),
        (1.5, timedelta(seconds=1), "count is 1.5"),
        (True, timedelta(seconds=1), "count is True"),
        (1_000_001, timedelta(seconds=1), "from 1 to 1,000,000"),
        (1, timedelta(0), "per is"),
        (1, 5, "per is 5; it is a timedelta"),
        (1, timedelta(hours=2), "at most 1:00:00"),
    ],
)
def test_what_is_no_rate_is_refused(count: Any, per: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        Rate(count, per)
