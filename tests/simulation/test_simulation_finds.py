"""The simulation finds what it is there for: a store that breaks one of its promises is caught within a few worlds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from replayflow.core.commit import Commit
from replayflow.store.base import Delivery, Loaded, Operation, Outcome, Post
from tests.simulation.disk import Disk
from tests.simulation.run import bury_all, run_seed

SEEDS = 12


class DropsMessages(Disk):
    """Every fifth message that a client posts is accepted, and kept nowhere."""

    _posts = 0

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        kept: list[Operation] = []
        for operation in operations:
            if isinstance(operation, Post) and operation.dedupe_key is not None:
                self._posts += 1
                if self._posts % 5 == 0:
                    continue
            kept.append(operation)
        outcomes = iter(await super().write(kept, epoch))
        return [next(outcomes) if operation in kept else Outcome() for operation in operations]


class DoublesMessages(Disk):
    """It does not know its dedupe keys again."""

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        for operation in operations:
            if isinstance(operation, Post):
                operation.dedupe_key = None
        return await super().write(operations, epoch)


class KeepsWhatIsConsumed(Disk):
    """A message stands in its inbox after it has become history."""

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        for operation in operations:
            if isinstance(operation, Commit):
                operation.consumed = ()
        return await super().write(operations, epoch)


class KnowsNoEpoch(Disk):
    """It takes writes from whoever has ever owned the hub."""

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        return await super().write(operations, None if epoch is None else self.epoch)


class ForgetsPieces(Disk):
    """Now and then a commit is confirmed, and gone."""

    _commits = 0

    async def write(self, operations: Sequence[Operation], epoch: int | None = None) -> list[Outcome]:
        self._commits += 1
        if epoch is not None and self._commits % 40 == 0 and all(isinstance(one, Commit) for one in operations):
            return [Outcome() for _ in operations]
        return await super().write(operations, epoch)


class ReadsBackwards(Disk):
    """What has arrived is told in the wrong order."""

    async def arrived(self, after: int, limit: int) -> list[Delivery]:
        return list(reversed(await super().arrived(after, limit)))

    async def load(self, instance_ids: Sequence[str]) -> list[Loaded]:
        loaded = await super().load(instance_ids)
        for one in loaded:
            one.inbox.reverse()
        return loaded


@pytest.mark.parametrize(
    ("disk", "only", "law"),
    [
        (DropsMessages, "listens", ""),
        (DoublesMessages, "listens", "I5"),
        (KeepsWhatIsConsumed, "listens", "I5"),
        (KnowsNoEpoch, "chain", "I7"),
        (ForgetsPieces, "fan", ""),
        (ReadsBackwards, "listens", "I5"),
    ],
)
def test_a_store_that_breaks_a_promise_is_caught(disk: Any, only: str, law: str) -> None:
    found: list[str | None] = []
    for seed in range(SEEDS):
        found.append(run_seed(seed, 200, disk_of=disk, only=only).problem)
        if found[-1] is not None and law in found[-1]:
            break
    else:
        pytest.fail(f"{SEEDS} worlds, and nobody has seen it: {found}")
    bury_all()
