"""Disks of one's own, for those who may mount: small ones that are filled, and one that fails.

Whoever may not is told by the skip which test stands in: limits on the size of files, and permissions, are there for everybody.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MUST_MOUNT = os.environ.get("REPLAYFLOW_TESTS_MUST_MOUNT")
"""Set where a disk that cannot be mounted is a failure and no skip."""


class Disk:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """No byte more fits on it."""
        with self._ballast.open("wb", buffering=0) as file:
            for size in (65_536, 512, 1):
                while True:
                    try:
                        if file.write(b"\xaa" * size) == 0:
                            break
                    except OSError:
                        break

    def make_room(self) -> None:
        self._ballast.unlink()

    def remount(self, *options: str) -> None:
        _run("mount", "-o", ",".join(("remount", *options)), str(self.path))

    def freeze(self) -> None:
        """Who writes to it waits, in the kernel."""
        _run("fsfreeze", "-f", str(self.path))

    def thaw(self) -> None:
        _run("fsfreeze", "-u", str(self.path))


@contextmanager
def small_disk(folder: Path, *, megabytes: int = 2) -> Iterator[Disk]:
    """A disk in memory. Skips the test, with the reason, where nobody may mount."""
    with _mounted(folder, "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs") as disk:
        yield disk


@contextmanager
def image(folder: Path) -> Iterator[Path]:
    """A file that has a file system on it."""
    path = folder / "image"
    with path.open("wb") as file:
        file.truncate(8 << 20)
    try:
        _run("mkfs.ext4", "-q", "-b", "1024", str(path))
    except OSError as error:
        _cannot(error)
    yield path
    path.unlink()


@contextmanager
def disk_on(path: Path) -> Iterator[Disk]:
    """The disk of an image, which can be frozen, and can fail."""
    with _mounted(path.parent, "-o", "loop,errors=remount-ro", str(path)) as disk:
        yield disk


@contextmanager
def _mounted(folder: Path, *what: str) -> Iterator[Disk]:
    place = folder / "disk"
    place.mkdir(exist_ok=True)
    try:
        _run("mount", *what, str(place))
    except OSError as error:
        _cannot(error)
    try:
        yield Disk(place)
    finally:
        subprocess.run(
            ["umount", "--lazy", str(place)], check=True
        )  # whoever still has a file open must not keep it mounted


def _cannot(error: OSError) -> None:
    if MUST_MOUNT:
        raise error
    pytest.skip(f"no disk can be mounted here ({error}); the limit on the size of files stands in for it")


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise OSError(f"there is no {command[0]}") from error
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
