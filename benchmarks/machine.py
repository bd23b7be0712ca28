"""What the figures were measured on: without it they mean nothing."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
_SYNCS = 50
_PAGE = b"\0" * 4096


@dataclass(frozen=True, slots=True)
class Machine:
    """`sync_ms` is how long a written page takes to be on the disk, as a median: what every commit has to wait for at the least."""

    when: str
    commit: str
    python: str
    sqlite: str
    cores: int
    processor: str
    architecture: str
    kernel: str
    filesystem: str
    sync_ms: float

    def __str__(self) -> str:
        return (
            f"replayflow {self.commit}, {self.when}\n"
            f"Python {self.python}, SQLite {self.sqlite}; {self.cores} cores of {self.processor} ({self.architecture}), {self.kernel}; "
            f"{self.filesystem}, where a page is on the disk in {self.sync_ms:.2f} ms"
        )


def this_machine() -> Machine:
    """The machine, and the folder in which the workloads have their files: `$BENCH_DIR`, or where temporary files go."""
    folder = Path(os.environ.get("BENCH_DIR") or tempfile.gettempdir()).resolve()
    return Machine(
        when=datetime.now(UTC).isoformat(" ", "minutes"),
        commit=_commit(),
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        cores=os.cpu_count() or 1,
        processor=_processor(),
        architecture=platform.machine(),
        kernel=f"{platform.system()} {platform.release()}",
        filesystem=_filesystem(folder),
        sync_ms=round(_sync_ms(folder), 4),
    )


def _commit() -> str:
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return "of no known commit"
    return described.stdout.strip() or "of no known commit"


def _processor() -> str:
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return model[1] if model else platform.processor() or "an unnamed processor"


def _filesystem(folder: Path) -> str:
    """The type of the file system that the folder is on: the mount that is nearest above it."""
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    above = [(point, kind) for point, kind in mounts if folder.is_relative_to(point)]
    return max(above, key=lambda mount: len(mount[0]), default=("", "of no known kind"))[1]


def _sync_ms(folder: Path) -> float:
    times = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(_SYNCS):
            file.write(_PAGE)
            began = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3
