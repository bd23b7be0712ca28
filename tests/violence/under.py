"""`replayflow` under limits of the operating system: `python -m tests.violence.under LIMITS COMMAND ...`, with limits as in `nofile=40,uid=65534`.

The limits hold from when it has worked once. `address_more_than_now` counts from what is in use then.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import tempfile
from pathlib import Path

from replayflow.cli import main
from replayflow.hub import TaskHub
from tests.violence.app import app


async def work_once() -> None:
    """Everything has been loaded that work needs: afterwards it may be out of reach."""
    with tempfile.TemporaryDirectory() as folder:
        async with TaskHub(Path(folder) / "hub.db", app) as hub:
            await (await hub.client.start("chain", 1)).result(10)


def give_up(limits: str) -> None:
    """The process has no more than this from now on."""
    for limit in limits.split(","):
        name, _, value = limit.partition("=")
        match name:
            case "uid":
                os.setgid(int(value))
                os.setuid(int(value))
            case "address_more_than_now":
                pages = int(Path("/proc/self/statm").read_text().split()[0])
                _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + int(value))
            case "nofile":
                _limit(resource.RLIMIT_NOFILE, int(value))
            case "fsize":
                _limit(resource.RLIMIT_FSIZE, int(value))
            case "nproc":
                _limit(resource.RLIMIT_NPROC, int(value))
            case _:
                raise ValueError(limit)


def _limit(which: int, value: int) -> None:
    resource.setrlimit(which, (value, resource.getrlimit(which)[1]))


if __name__ == "__main__":
    asyncio.run(work_once())
    give_up(sys.argv.pop(1))
    main()
