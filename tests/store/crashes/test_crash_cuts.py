"""A loss of power: whatever is left of the log and of a checkpoint, it comes to the last commit that is whole."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.store.crashes import cuts
from tests.store.crashes.contents import recovered
from tests.store.crashes.files import Files, Reader
from tests.store.crashes.log import HEADER, commits_in, frames_in
from tests.store.crashes.matrix import check_cuts, played
from tests.store.crashes.scenes import SCENES, Scene


@pytest.mark.parametrize("scene", list(SCENES.values())[1::5], ids=str)
async def test_a_log_cut_anywhere_gives_the_last_commit_that_is_whole(scene: Scene, tmp_path: Path) -> None:
    play = await played(scene, tmp_path)
    check_cuts(play, tmp_path, is_thorough=False)


@pytest.mark.parametrize("name", ["turn"])
async def test_at_every_place_and_with_all_that_can_stand_behind(name: str, tmp_path: Path) -> None:
    play = await played(SCENES[name], tmp_path)
    assert check_cuts(play, tmp_path, is_thorough=True).cuts > 100


def in_the_second_round(path: Path) -> tuple[Files, bytes, list[int]]:
    """A hub's files with a log that was begun anew; the log of the round before; and where the new round's commits end."""
    reader = Reader(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, text)")
        for n in range(12):
            connection.execute("INSERT INTO t (text) VALUES (?)", (f"{n}" * 1500,))
        former = reader.copy().log
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
        for n in range(3):
            connection.execute("INSERT INTO t (text) VALUES (?)", (f"later {n}" * 500,))
        files = reader.copy()
    reader.close()
    assert former is not None
    assert files.log is not None
    assert len(former) == len(files.log)
    return files, former, commits_in(files.log)


def test_frames_of_the_round_before_do_not_count(tmp_path: Path) -> None:
    """The log is not cut when it begins anew: behind what is new stands what is old, and a commit that is torn has old bytes in it."""
    files, former, ends = in_the_second_round(tmp_path / "hub.db")
    log = files.log
    assert log is not None
    assert len(ends) == 3 < len(frames_in(former))
    for place in range(HEADER, ends[-1] + 1, 131):
        torn = files._replace(log=log[:place] + former[place:])
        rows = recovered_rows(torn, tmp_path)
        assert len(rows) == 12 + sum(end <= place for end in ends), place


def test_a_header_that_is_half_new_hides_the_log_of_which_all_is_in_the_main_file(tmp_path: Path) -> None:
    files, former, _ = in_the_second_round(tmp_path / "hub.db")
    log = files.log
    assert log is not None
    for place in range(HEADER + 1):
        rows = recovered_rows(files._replace(log=log[:place] + former[place:]), tmp_path)
        assert len(rows) == 12, place


def recovered_rows(files: Files, folder: Path) -> list[Any]:
    _, rows = recovered(files, folder)["t"]
    return list(rows)


async def test_what_is_foretold_of_a_log_is_not_what_is_there_anyway(tmp_path: Path) -> None:
    """One bit of a frame, and it and all behind it is gone; a frame without its commit is."""
    play = await played(SCENES["commit all at once"], tmp_path)
    files = play.told.files
    log = files.log
    assert log is not None
    frames, ends = frames_in(log), commits_in(log)
    assert len(frames) > len(ends) > 1
    assert ends[-1] == len(log)
    for frame in frames:
        for place in (frame.start, frame.start + 9, frame.start + 17, frame.start + 24, frame.end - 1):
            flipped = log[:place] + bytes([log[place] ^ 1]) + log[place + 1 :]
            assert commits_in(flipped) == [end for end in ends if end <= frame.start], place
    state = play.recording.states[play.recording.state_of_commits(log)[len(ends) - 1]]
    assert recovered(files._replace(log=log[: ends[-1] - 1]), tmp_path) == state


def test_cuts_are_of_all_kinds() -> None:
    log = bytes(HEADER)
    assert [cut.where for cut in cuts.of_log(Files(b"", log), True)][-1] == "the log whole"
    assert list(cuts.of_checkpoint(Files(b"", log), True)) == []
