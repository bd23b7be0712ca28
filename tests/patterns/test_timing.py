"""When: intervals and cron expressions, through changes of the clock, and what is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from replayflow.errors import InvalidArgumentError, ScheduleError
from replayflow.patterns.timing import Timing

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def utc(*when: int) -> datetime:
    return datetime(*when, tzinfo=UTC)  # type: ignore[arg-type, misc]


def local(timing: Timing, after: datetime, count: int) -> list[str]:
    """The next times as the clock on the wall shows them, with their distance from UTC."""
    zone = ZoneInfo(timing.zone)
    return [time.astimezone(zone).strftime("%d %H:%M %z") for time in islice(timing.times(after), count)]


# ---- intervals -------------------------------------------------------------------------------------------------


def test_an_interval_is_counted_from_its_anchor() -> None:
    timing = Timing(every=timedelta(minutes=10), anchor=NOON)
    assert timing.after(NOON) == NOON + timedelta(minutes=10)
    assert timing.after(NOON + timedelta(minutes=25)) == NOON + timedelta(minutes=30)
    assert timing.after(NOON - timedelta(minutes=1)) == NOON
    assert timing.after(NOON - timedelta(minutes=11)) == NOON - timedelta(minutes=10)  # for those who look back
    assert timing.after(NOON + timedelta(minutes=10, microseconds=-1)) == NOON + timedelta(minutes=10)


def test_a_start_is_the_first_time_and_an_end_may_be_the_last() -> None:
    start, end = NOON + timedelta(hours=1), NOON + timedelta(hours=3)
    timing = Timing(every=timedelta(hours=1), anchor=start, start_at=start, end_at=end)
    assert list(timing.times(NOON)) == [start, start + timedelta(hours=1), end]
    assert timing.after(end) is None
    of_cron = Timing(cron="0 * * * *", start_at=start, end_at=end)
    assert list(of_cron.times(NOON)) == list(timing.times(NOON))


def test_the_calendar_ends() -> None:
    late = datetime(9999, 12, 30, tzinfo=UTC)
    assert len(list(Timing(every=timedelta(days=1), anchor=late).times(late))) == 1
    assert len(list(Timing(cron="0 12 * * *", zone=BERLIN).times(late))) == 2


# ---- cron, and the clock that changes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        # 29 March 2026, Berlin: 02:00 becomes 03:00.
        ("30 2 * * *", BERLIN, utc(2026, 3, 27, 12), ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"]),
        ("0 2,3 * * *", BERLIN, utc(2026, 3, 28, 12), ["29 03:00 +0200", "30 02:00 +0200", "30 03:00 +0200"]),
        ("30 * * * *", BERLIN, utc(2026, 3, 29, 0), ["29 01:30 +0100", "29 03:30 +0200", "29 04:30 +0200"]),
        ("*/30 2 * * *", BERLIN, utc(2026, 3, 28, 12), ["30 02:00 +0200", "30 02:30 +0200", "31 02:00 +0200"]),
        # 25 October 2026, Berlin: 03:00 becomes 02:00.
        ("30 2 * * *", BERLIN, utc(2026, 10, 23, 12), ["24 02:30 +0200", "25 02:30 +0200", "26 02:30 +0100"]),
        ("30 * * * *", BERLIN, utc(2026, 10, 24, 23, 45), ["25 02:30 +0200", "25 02:30 +0100", "25 03:30 +0100"]),
        ("*/30 2 * * *", BERLIN, utc(2026, 10, 24, 23), ["25 02:00 +0200", "25 02:30 +0200", "25 02:00 +0100"]),
        # 8 March 2026, New York: 02:00 becomes 03:00; 1 November: 02:00 becomes 01:00.
        ("15 2 * * *", NEW_YORK, utc(2026, 3, 7, 12), ["08 03:00 -0400", "09 02:15 -0400", "10 02:15 -0400"]),
        ("15 1 * * *", NEW_YORK, utc(2026, 10, 31, 12), ["01 01:15 -0400", "02 01:15 -0500", "03 01:15 -0500"]),
        ("0 0 1 * *", NEW_YORK, utc(2026, 10, 31, 12), ["01 00:00 -0400", "01 00:00 -0500", "01 00:00 -0500"]),
    ],
)
def test_local_times_that_are_left_out_or_there_twice(
    cron: str, zone: str, after: datetime, expected: list[str]
) -> None:
    assert local(Timing(cron=cron, zone=zone).check(), after, 3) == expected


@pytest.mark.parametrize("minute", range(0, 60, 15))
def test_in_the_hour_that_is_there_twice_nothing_comes_a_second_time(minute: int) -> None:
    second_time = datetime(2026, 10, 25, 1, minute, tzinfo=UTC)  # 02:xx in Berlin, for the second time
    timing = Timing(cron="30 2 * * *", zone=BERLIN)
    assert local(timing, second_time, 1) == ["26 02:30 +0100"]


FIELDS = st.tuples(
    st.sampled_from(["*", "0", "30", "*/15", "5,35", "10-20/5"]),
    st.sampled_from(["*", "2", "1,2,3", "*/6", "9-17"]),
    st.sampled_from(["*", "1", "29", "L"]),
    st.sampled_from(["*", "3", "10", "2"]),
    st.sampled_from(["*", "SUN", "1-5", "0#1"]),
)
MOMENTS = st.timedeltas(timedelta(days=-400), timedelta(days=400)).map(lambda away: NOON + away)


@settings(max_examples=150, deadline=None)
@given(fields=FIELDS, zone=st.sampled_from([BERLIN, NEW_YORK, "UTC"]), after=MOMENTS)
def test_the_times_are_the_librarys_and_they_rise(fields: tuple[str, ...], zone: str, after: datetime) -> None:
    cron = " ".join(fields)
    timing = Timing(cron=cron, zone=zone).check()
    times = list(islice(timing.times(after), 5))
    assert all(earlier < later for earlier, later in zip([after, *times], times, strict=False))
    theirs = (found.astimezone(UTC) for found in CronSim(cron, after.astimezone(ZoneInfo(zone))))
    assert times == list(islice((found for found in theirs if found > after), 5))
    for i, time in enumerate(times[:-1]):  # wherever one asks from, the next is the same
        assert timing.after(time) == times[i + 1]


# ---- the newest, and jitter ------------------------------------------------------------------------------------

timings = st.one_of(
    st.builds(
        Timing,
        every=st.timedeltas(timedelta(minutes=1), timedelta(days=3)),
        anchor=st.just(NOON),
    ),
    st.builds(lambda f, zone: Timing(cron=" ".join(f), zone=zone), FIELDS, st.sampled_from([BERLIN, "UTC"])),
)


@settings(max_examples=100, deadline=None)
@given(timing=timings, count=st.integers(1, 5), length=st.timedeltas(timedelta(0), timedelta(days=2)))
def test_the_newest_are_the_last_of_all(timing: Timing, count: int, length: timedelta) -> None:
    every = list(takewhile(lambda time: time <= NOON + length, timing.times(NOON)))
    assert timing.newest(count, NOON, NOON + length) == every[-count:]


def test_after_a_century_only_the_end_is_looked_at() -> None:
    timing = Timing(every=timedelta(seconds=1), anchor=NOON)
    until = NOON + timedelta(days=36_525)
    assert timing.newest(2, NOON, until) == [until - timedelta(seconds=1), until]


def test_jitter_is_the_same_each_time_and_differs_from_one_time_to_the_next() -> None:
    timing = Timing(every=timedelta(hours=1), anchor=NOON, jitter=timedelta(minutes=10))
    times = list(islice(timing.times(NOON), 100))
    delays = [timing.delay("nightly", time) for time in times]
    assert delays == [timing.delay("nightly", time) for time in times]
    assert len(set(delays)) > 90
    assert all(timedelta(0) <= delay <= timing.jitter for delay in delays)
    assert delays != [timing.delay("another", time) for time in times]
    assert replace(timing, jitter=timedelta(0)).delay("nightly", times[0]) == timedelta(0)


# ---- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either an interval"),
        ({"every": timedelta(1), "cron": "* * * * *"}, "either an interval"),
        ({"every": timedelta(0)}, "every is"),
        ({"every": timedelta(days=10**6)}, "every is"),
        ({"cron": "* * * *"}, "five fields"),
        ({"cron": "0 * * * * *"}, "five fields"),
        ({"cron": "61 * * * *"}, "no cron expression"),
        ({"cron": "a b c d e"}, "no cron expression"),
        ({"cron": "0 0 31 2 *"}, "day-of-month"),
        ({"cron": "0 0 29 2 MON#5"}, None),
        ({"every": timedelta(1), "jitter": timedelta(2)}, "jitter"),
        ({"every": timedelta(1), "jitter": timedelta(-2)}, "jitter"),
        ({"every": timedelta(1), "start_at": NOON.replace(tzinfo=None)}, "naive"),
        ({"every": timedelta(1), "end_at": NOON.replace(tzinfo=None)}, "naive"),
        ({"every": timedelta(1), "start_at": NOON, "end_at": NOON - timedelta(1)}, "before start_at"),
    ],
)
def test_a_timing_that_is_none_is_refused(options: dict[str, Any], message: str | None) -> None:
    if message is None:
        Timing(**options).check()
        return
    with pytest.raises(InvalidArgumentError, match=message):
        Timing(**options).check()


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "", "../../etc/passwd", "Europe"])
def test_a_time_zone_that_is_none_is_refused(zone: str) -> None:
    with pytest.raises(ScheduleError, match="time zone"):
        Timing(cron="* * * * *", zone=zone).check()


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ScheduleError, match=r"replayflow\[cron\]"):
        Timing(cron="* * * * *").check()
    Timing(every=timedelta(1)).check()
