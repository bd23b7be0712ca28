"""Where the tests keep their files: in memory those that are about what a hub does, on the disk those that are about what survives.

A commit waits for the disk, and the tests make tens of thousands of them. What is asked of most is what a hub or a store comes to, and that is the
same wherever the file is. Who kills a process, fills a disk, cuts a file or runs a program from outside has a folder of the disk, as users have.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 1 << 30
"""Less is not enough for all that is written at the same time; a container has 64 MB where nobody asks for more."""

_HERE = Path(__file__).parent
_IN_MEMORY = (
    "archive/*.py",
    "cli/*.py",
    "engine/*.py",
    "patterns/*.py",
    "semantics/*.py",
    "store/test_sqlite_suspects.py",
    "store/test_sqlite_threads.py",
    "store/test_sqlite_versions.py",
    "store/test_store_*.py",
)
_ON_DISK = (
    "cli/test_cli_processes.py",
    "engine/test_activities_killed.py",
    "engine/test_crash_campaign.py",
    "engine/test_handed_over.py",
    "engine/test_ownership.py",
    "engine/test_poison.py",
    "engine/test_shutdown.py",
)


def memory() -> Path | None:
    """The folder that is kept in memory, where there is one with room; `$REPLAYFLOW_TESTS_ON_DISK` says that nothing goes there."""
    if os.environ.get("REPLAYFLOW_TESTS_ON_DISK") or not os.access(_MEMORY, os.W_OK | os.X_OK):
        return None
    return _MEMORY if shutil.disk_usage(_MEMORY).free >= _ROOM_BYTES else None


def may_be_in_memory(test: Path) -> bool:
    """The test file asks nothing of its disk."""
    if not test.is_relative_to(_HERE):
        return False
    inside = test.relative_to(_HERE)
    return any(inside.match(each) for each in _IN_MEMORY) and not any(inside.match(each) for each in _ON_DISK)
