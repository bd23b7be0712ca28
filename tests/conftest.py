"""How the suite is run, in as little time as what it proves allows."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import scratch

_bytecode = pytest.StashKey[str]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """What `-n auto` means: three processes for two cores, since the tests wait as well: for other processes, for timers, for the disk."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return cores + cores // 2


def pytest_configure(config: pytest.Config) -> None:
    """Where no bytecode may be written it goes to a folder that is thrown away: the hundreds of processes that tests begin compile nothing twice."""
    if os.environ.get("PYTHONDONTWRITEBYTECODE") and not os.environ.get("PYTEST_XDIST_WORKER"):
        config.stash[_bytecode] = os.environ["PYTHONPYCACHEPREFIX"] = tempfile.mkdtemp(prefix="bytecode-")
        del os.environ["PYTHONDONTWRITEBYTECODE"]


def pytest_unconfigure(config: pytest.Config) -> None:
    if folder := config.stash.get(_bytecode, None):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What the whole suite has imported stays to the end: the garbage collector need not walk it again and again, nor at every `gc.collect()`."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder of the test's own: in memory, and gone with the test, or as pytest has it (`tests/scratch.py`)."""
    memory = scratch.memory() if scratch.may_be_in_memory(request.path) and not request.config.option.basetemp else None
    if memory is None:
        yield request.getfixturevalue("tmp_path")
        return
    with tempfile.TemporaryDirectory(prefix="replayflow-", dir=memory, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
