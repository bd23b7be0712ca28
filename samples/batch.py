"""Fan-out and fan-in: every file of a folder is hashed, as many at a time as the worker has threads; then the copies are told.

    python -m samples.batch [FOLDER] [STORE]

The id of the instance is made of the folder. A run that was killed goes on, with the files that it had listed; a run that has finished
is replaced by a new one, because the folder may have changed since.
"""

import asyncio
import hashlib
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from replayflow import App, InstanceExistsError, Orchestration, OrchestrationContext, TaskHub, when_all

app = App()


@dataclass
class Digest:
    path: str
    size: int
    sha256: str


@dataclass
class Summary:
    files: int
    bytes: int
    copies: list[list[str]]


@app.activity
def list_files(folder: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())


@app.activity
def digest(path: str) -> Digest:
    content = Path(path).read_bytes()
    return Digest(path, len(content), hashlib.sha256(content).hexdigest())


@app.orchestrator
def batch(ctx: OrchestrationContext, folder: str) -> Orchestration[Summary]:
    # The listing is an activity: the folder may look different by the time of a replay, the list in the history does not.
    paths = yield from ctx.call_activity(list_files, folder)
    digests = yield from when_all([ctx.call_activity(digest, path) for path in paths])
    same: dict[str, list[str]] = defaultdict(list)
    for one in digests:
        same[one.sha256].append(one.path)
    return Summary(len(digests), sum(one.size for one in digests), [paths for paths in same.values() if len(paths) > 1])


def id_of(folder: str) -> str:
    return f"batch-{uuid5(NAMESPACE_URL, Path(folder).resolve().as_uri())}"


async def summarize(hub: TaskHub, folder: str) -> Summary:
    id = id_of(folder)
    try:
        instance = await hub.client.start(batch, folder, instance_id=id, on_existing="replace_finished")
    except InstanceExistsError:
        print("an earlier run has not finished; it goes on")
        instance = hub.client.get(id)
    return await instance.result()


async def main(folder: str = "replayflow", store: str = "batch.db") -> None:
    async with TaskHub(store, app) as hub:
        summary = await summarize(hub, folder)
    print(f"{summary.files:,} files, {summary.bytes:,} bytes")
    for paths in summary.copies:
        print("the same:", ", ".join(paths))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
