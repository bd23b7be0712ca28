"""Processes that SIGKILL ends at a point of a scene: `python -m tests.store.crashes.killed`.

The program makes all that a scene needs once; for each line that it reads, a scene, a point and a path, it forks a child that plays the scene there
and is killed at the point. It says by what signal the child ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.store.builders import OWNER
from tests.store.children import ROOT
from tests.store.crashes.contents import Contents, faults, recovered
from tests.store.crashes.files import Files, Reader, laid
from tests.store.crashes.matrix import on_file, still
from tests.store.crashes.recording import Recording
from tests.store.crashes.scenes import SCENES, Scene, Stage


class Executioner:
    """The program, as its caller has it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def kill(self, scene: str, point: int, path: Path) -> int:
        """The scene was played at the path, where its hub is, and its process killed at the point; returns the signal that it died of."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([scene, point, str(path)]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def executioner() -> Iterator[Executioner]:
    command = [sys.executable, "-m", "tests.store.crashes.killed"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield Executioner(process)
        finally:
            process.kill()


def main() -> None:
    for line in sys.stdin:
        scene, point, path = json.loads(line)
        child = os.fork()
        if child == 0:
            asyncio.run(play(scene, point, Path(path)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.WTERMSIG(status), flush=True)


async def play(name: str, point: int, path: Path) -> None:
    """As in `matrix.played`, so that its points are the same."""
    scene = SCENES[name]
    recording = Recording(path, dies_at=point)
    with recording.running(), still():
        store = on_file(path)
        await store.open()
        try:
            epoch = 0 if scene.begins_empty else await store.acquire(OWNER)
            recording.passed("the scene")
            await scene.act(Stage(store, epoch))
            recording.passed("told")
        finally:
            await store.close()


def check_kill(kills: Executioner, scene: Scene, recording: Recording, number: int, files: Files, folder: Path) -> None:
    """A process that is killed at the point of that number leaves what was foretold of it.

    Raises:
        AssertionError: it does not.
    """
    point = recording.points[number - 1]
    where = f"{scene}, killed at point {number}, before {point.before!r:.200}"
    with laid(files, folder) as path:
        assert kills.kill(scene.name, number, path) == signal.SIGKILL, where
        reader = Reader(path)
        found = recovered(reader.copy(), folder)
        reader.close()
    assert (wrong := faults(found)) == [], (where, wrong)
    wanted = recording.states[point.state]
    if scene.is_known:
        assert found == wanted, where
    else:
        assert _counts(found) == _counts(wanted), where


def _counts(contents: Contents) -> dict[str, int]:
    return {name: len(rows) for name, (_, rows) in contents.items()}


if __name__ == "__main__":
    main()
