"""Fan-out and fan-in: every file of a folder is hashed, as many at a time as the worker has threads; then the copies are told.

    python -m samples.batch [FOLDER] [STORE]

The id of the instance is made of the folder. A run that was killed goes on, with the files that it had listed, and hashes none again that it had
hashed; a run that has finished is replaced by a new one, because the folder may have changed since. A file that cannot be read is
tried once more at the end, and then told with its reason: the others have their digests all the same.
"""

import asyncio
import hashlib
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from replayflow import App, InstanceExistsError, Orchestration, OrchestrationContext, TaskHub

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
    unread: dict[str, str] = field(default_factory=dict)


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
    result = yield from ctx.map(digest, paths, concurrency=32, tolerated_failures=1.0)
    result = yield from result.retry_failed(ctx)
    same: dict[str, list[str]] = defaultdict(list)
    for one in result.succeeded:
        same[one.sha256].append(one.path)
    return Summary(
        files=len(result.succeeded),
        bytes=sum(one.size for one in result.succeeded),
        copies=[paths for paths in same.values() if len(paths) > 1],
        unread={paths[failure.index]: str(failure.details) for failure in result.failures},
    )


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
    for path, reason in summary.unread.items():
        print("not read:", path, reason)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
