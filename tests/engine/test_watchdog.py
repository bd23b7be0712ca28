"""An orchestrator that keeps the worker to itself is named."""

from __future__ import annotations

import logging
import re
import time

import pytest

from replayflow.engine.watchdog import Watchdog


def spin_until(condition: list[bool], caplog: pytest.LogCaptureFixture) -> None:
    deadline = time.monotonic() + 5
    while not caplog.records and time.monotonic() < deadline:
        condition.append(True)


def test_an_episode_that_goes_on_and_on_is_named_once_with_its_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "replayflow")
    watchdog = Watchdog(look_seconds=0.01)
    watchdog.start()
    watchdog.step, watchdog.instance_id = 1, "busy"
    spin_until([], caplog)
    watchdog.instance_id = None
    watchdog.stop()
    [record] = caplog.records
    assert "instance 'busy'" in record.getMessage()
    assert re.search(r"at \S+\.py:\d+:", record.getMessage())


def test_many_short_episodes_are_none_of_its_business(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "replayflow")
    watchdog = Watchdog()

    class Looks:
        """At each of a hundred looks an episode is under way, and between two of them another one has begun."""

        def wait(self, _: float) -> bool:
            watchdog.step += 1
            watchdog.instance_id = "short"
            return watchdog.step > 100

    monkeypatch.setattr(watchdog, "_is_over", Looks())
    watchdog._watch()
    assert not caplog.records
