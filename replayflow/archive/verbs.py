"""What a client can do with histories as lines of JSON: a part of `Client` that needs nothing of it but its store and its clock."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from replayflow.archive import lines, transfer
from replayflow.archive.lines import Archived
from replayflow.clock import Clock
from replayflow.codec import Codec
from replayflow.errors import InstanceNotFoundError, InvalidArgumentError
from replayflow.store import Store
from replayflow.store.base import InstanceFilter

_PAGE_SIZE = 200
_codec = Codec(payload_bytes_max=sys.maxsize)  # what a hub has had room for is not too large for a file


class _Named(Protocol):
    @property
    def id(self) -> str: ...


class _Reads(Protocol):
    _store: Store
    _clock: Clock


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import brought: how many instances, and how many of them have not finished, so that a worker would go on with them."""

    instances: int
    unfinished: int


class ArchiveVerbs:
    """The part of `Client` that exports and imports histories."""

    async def export(
        self: _Reads,
        instances: AsyncIterable[_Named] | Iterable[str] | None = None,
        *,
        execution_id: str | None = None,
    ) -> AsyncIterator[str]:
        """The instances with their whole histories, as lines of JSON (JSONL), each with its line feed.

        `instances` are ids, or what `list(...)` with a filter gives; without them it is all that the hub has, entities too. Each is exported as it
        is at one moment, with its past executions, its open messages, and why it is parked; or, with `execution_id`, with that execution alone.
        Values that JSON has stand there as they are, others as `{"$bytes": ...}`.

        Raises:
            InstanceNotFoundError: there is no instance with one of the ids; no line came.
            InvalidArgumentError: one of these has no such execution.
        """
        from importlib.metadata import version  # slow, and nobody else needs it

        if instances is not None and not isinstance(instances, AsyncIterable):
            instances = list(instances)
            await _check_presence(self._store, instances, execution_id)
        yield lines.header(version("replayflow"), self._clock.now())
        async for id in _ids(self._store, instances):
            archived = await transfer.exported(self._store, id, execution_id)
            if archived is not None:  # it may have gone since it was listed
                for line in lines.lines_of(archived, _codec):
                    yield line

    async def import_history(self: _Reads, source: Path | Sequence[str]) -> Imported:
        """All that an export has is in this hub, which was empty and has no worker. `source` is its file, or its lines.

        A worker that is started on it goes on with what had not finished, and runs its activities: to look at a history, `replayflow replay` is
        enough.

        Raises:
            InvalidArgumentError: the hub is not empty; a line is wrong; or the file was cut short, or cannot be read.
            HubOwnedError: a worker is at work on it. In all cases nothing was written.
        """
        for archived in read_export(source):
            transfer.check(archived)
        return Imported(*await transfer.imported(self._store, read_export(source), self._clock))


def read_export(source: Path | Sequence[str]) -> Iterator[Archived]:
    """The instances of an export, a file or its lines, one after another.

    Raises:
        InvalidArgumentError: a line is wrong, or the file was cut short, or cannot be read.
    """
    if not isinstance(source, Path):
        yield from lines.read(source, _codec, "the export")
        return
    try:
        file = source.open(encoding="utf-8")
    except ValueError:
        raise InvalidArgumentError(f"{str(source)!r:.80} is no name that a file can have") from None
    except OSError as error:
        raise InvalidArgumentError(f"{source} cannot be read: {error.strerror}") from None
    try:
        with file:
            yield from lines.read(file, _codec, source.name)
    except OSError as error:
        raise InvalidArgumentError(f"{source} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{source} is not UTF-8: {error}") from None


async def _check_presence(store: Store, ids: Iterable[str], execution_id: str | None) -> None:
    for id in ids:
        executions = await store.executions(id)
        if not executions:
            raise InstanceNotFoundError(f"no instance '{id}' is in the hub {store.url}")
        if execution_id is not None:
            transfer.check_execution(id, execution_id, executions)


async def _ids(store: Store, instances: AsyncIterable[_Named] | Iterable[str] | None) -> AsyncIterator[str]:
    if instances is None:
        cursor: str | None = None
        while True:
            page = await store.page(InstanceFilter(), _PAGE_SIZE, cursor)
            for record in page.records:
                yield record.instance_id
            cursor = page.cursor
            if cursor is None:
                return
    elif isinstance(instances, AsyncIterable):
        async for named in instances:
            yield named.id
    else:
        for id in instances:
            yield id
