"""schedule: every verb through the command line, with and without a worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from replayflow.cli.schedule import duration
from replayflow.errors import InvalidArgumentError
from tests.cli.terminal import accepted, databases, invoke, refused, until, worker

INPUT = ("--input", '{"id": "o-1"}')


def made(*options: str) -> Any:
    return accepted("schedule", "create", "nightly", "checkout", *INPUT, *options, "--json")


def shown() -> Any:
    return accepted("schedule", "show", "nightly", "--json")


def test_create_says_when_the_next_run_is() -> None:
    state = made("--cron", "30 2 * * *", "--zone", "Europe/Berlin", "--overlap", "buffer-one", "--tag", "a=b")
    assert state["cron"] == "30 2 * * *"
    assert (state["overlap"], state["tags"], state["input"]) == ("buffer_one", {"a": "b"}, {"id": "o-1"})
    assert datetime.fromisoformat(state["next_at"]) > datetime.now(UTC)
    assert "next 2" in invoke("schedule", "create", "hourly", "checkout", "--every", "1h").stdout


def test_a_schedule_is_listed_and_shown() -> None:
    assert "no task hub" in refused(4, "schedule", "list")
    assert databases() == []
    made("--every", "1h30m", "--jitter", "10s", "--grace", "2m", "--misfire", "catch-up", "--catch-up-max", "3")
    (state,) = accepted("schedule", "list", "--json")["schedules"]
    assert (state["every_seconds"], state["jitter_seconds"], state["grace_seconds"]) == (5400, 10, 120)
    assert (state["misfire"], state["catch_up_max"]) == ("catch_up", 3)
    assert "every 1h 30m" in invoke("schedule", "list").stdout
    assert "every 1h 30m" in invoke("schedule", "show", "nightly").stdout


def test_the_verbs_reach_the_worker() -> None:
    made("--every", "365d", "--paused")
    assert "paused" in invoke("schedule", "list").stdout
    with worker():
        id = invoke("schedule", "trigger", "nightly").stdout.strip()
        until(lambda: shown()["last_run"] == id)
        accepted("schedule", "resume", "nightly", "--reason", "go", "--json")
        until(lambda: not shown()["is_paused"])
        accepted("schedule", "pause", "nightly", "--json")
        until(lambda: shown()["is_paused"])
        accepted("schedule", "update", "nightly", "--cron", "0 3 * * *", *INPUT, "--json")
        until(lambda: shown()["cron"] == "0 3 * * *")
        days = ("--from", "2026-03-01T00:00:00Z", "--to", "2026-03-04T00:00:00Z")
        assert accepted("schedule", "backfill", "nightly", *days, "--json")["times"] == 3
        until(lambda: shown()["runs"] == 4)
        until(lambda: accepted("show", "nightly:2026-03-02T03:00:00Z", "--json")["status"] == "COMPLETED")
        accepted("schedule", "delete", "nightly", "--json")
        until(lambda: accepted("schedule", "list", "--json")["schedules"] == [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "s", "checkout"), "either an interval"),
        (("create", "s", "checkout", "--every", "soon"), "1h30m"),
        (("create", "s", "checkout", "--every", "9999999999d"), "too long"),
        (("create", "s", "checkout"), "either an interval, --every 5m, or a cron expression, --cron"),
        (("create", "s", "checkout", "--every", "1h", "--cron", "* * * * *"), "either an interval, --every 5m"),
        (("create", "s", "checkout", "--cron", "never"), "five fields"),
        (("create", "s", "checkout", "--cron", "* * * * *", "--zone", "Mars"), "Mars"),
        (("create", "s", "checkout", "--every", "1h", "--start-at", "tomorrow"), "--start-at"),
        (("create", "s", "checkout", "--every", "1h", "--start-at", "+5"), "ISO time"),
        (("backfill", "s", "--from", "2026-03-01", "--to", "2026-03-02Z"), "--from is '2026-03-01'"),
        (("create", "a/b", "checkout", "--every", "1h"), "no name for a schedule"),
        (("create", "s", "checkout", "--every", "1h", "--input", "{"), "is not JSON"),
    ],
)
def test_what_is_wrong_is_refused_and_makes_no_schedule(arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(2, "schedule", *arguments)
    if databases():
        assert accepted("schedule", "list", "--json")["schedules"] == []


@pytest.mark.parametrize("time", ["2030-01-31T08:00", "soon"])
def test_a_wrong_time_is_told_with_the_option_that_gave_it(time: str) -> None:
    said = refused(2, "schedule", "backfill", "nightly", "--from", time, "--to", "2030-01-31T09:00Z")
    assert f"--from is '{time}'" in said
    assert "from now" not in said  # a time is wanted, no distance


def test_an_update_claims_no_defaults() -> None:
    told = [" ".join(invoke("schedule", verb, "--help").stdout.split()) for verb in ("create", "update")]
    assert ["[default: skip]" in help for help in told] == [True, False]


def test_a_schedule_that_is_not_there_is_said_so() -> None:
    made("--every", "1h")
    assert "no schedule 'none'" in refused(4, "schedule", "show", "none")
    assert "nothing to update" in refused(2, "schedule", "update", "nightly")
    assert "already" in refused(5, "schedule", "create", "nightly", "checkout", "--every", "1h")


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90s", timedelta(seconds=90)),
        ("1h30m", timedelta(minutes=90)),
        ("2d", timedelta(2)),
        ("0.5s", timedelta(0, 0.5)),
    ],
)
def test_lengths_of_time(text: str, length: timedelta) -> None:
    assert duration(text) == length


@pytest.mark.parametrize("text", ["", "5", "m5", "5 m", "1h-30m", "5y"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        duration(text)
