"""Several workers of one hub: one of them owns it, however many come at once and however it ends; what is forked holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from replayflow import Client
from tests.violence.violence import ROOT, at_work, is_sound, refused, state_of, until, worker

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
RACERS = 10


class Race:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.runners = [int(id) for id in self.says().split()[1:]]

    def says(self) -> str:
        """The next line that one of them says."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def race(path: Path, when_owned: str) -> Iterator[Race]:
    command = [sys.executable, "-m", "tests.violence.racers", str(path), str(RACERS), when_owned]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        begun = Race(process)
        try:
            yield begun
        finally:
            for runner in begun.runners:
                with suppress(ProcessLookupError):
                    os.kill(runner, signal.SIGKILL)


def test_of_ten_that_start_at_once_one_owns_a_fresh_hub_and_nine_are_told_which(tmp_path: Path) -> None:
    with race(tmp_path / "hub.db", "error") as racers:
        said = [racers.says() for _ in range(RACERS)]
        [winner] = [line.split()[1] for line in said if line.startswith("serving ")]
        losers = [line for line in said if line.startswith("refused ")]
        assert len(losers) == RACERS - 1
        for line in losers:
            assert "is owned by" in line
        assert (
            sum(f"process {winner} on " in line for line in losers) >= 1
        )  # who comes first may not have written its name yet


async def test_when_the_owner_is_killed_one_of_those_who_wait_has_the_hub_at_once(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with race(path, "wait") as racers:
        owners: list[int] = []
        async with Client(path) as client:
            for turn in range(4):
                [what, owner] = racers.says().split()
                assert what == "serving"
                owners.append(int(owner))
                assert await (await client.start("chain", 3, instance_id=f"c{turn}")).result(20) == 3
                noted = await client._store.owner()
                assert noted is not None
                assert noted.process_id == owners[-1], "nobody else has come in meanwhile"
                os.kill(owners[-1], signal.SIGKILL)
            assert racers.says().startswith("serving ")
    assert len(set(owners)) == 4
    assert is_sound(path)


def test_an_owner_that_is_stopped_ends_in_good_order_when_it_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with at_work(path) as owner:
        owner.stop()
        owner.send(signal.SIGTERM)
        with worker(path) as second:
            refused(second, "RF301")
        owner.go_on()
        assert owner.ended() == 0
        assert "stopped" in owner.said
    with at_work(path):
        pass


async def test_what_an_activity_forks_holds_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    log = path.with_name("hub.db-wal")
    with at_work(path) as owner:
        async with Client(path) as client:
            for way in ("collects", "closes", "fork"):
                one = await client.start("one", ["forks", [way, str(tmp_path)]], instance_id=way)
                assert await one.result(20) == 0
                assert log.exists()
                assert await (await client.start("chain", 2)).result(20) == 2
                with worker(path) as second:
                    assert f"process {owner.id} on " in refused(second, "RF301")
            await client.start("one", ["forks", ["stays", str(tmp_path)]], instance_id="stays")
            noted = tmp_path / "left"
            left = int(until(lambda: noted.read_text().strip() if noted.exists() else None))
            try:
                owner.send(signal.SIGKILL)
                owner.ended()
                with at_work(path):
                    assert state_of(left) not in "XZ"
                    assert await (await client.start("chain", 2)).result(20) == 2
            finally:
                os.kill(left, signal.SIGKILL)
    assert is_sound(path)
