"""Critical sections: an orchestration has several entities to itself.

1. The locks are asked for one after the other along the sorted list, each when the one before was granted. Request and release go from one sender to
   one receiver, and so arrive in that order: a release always finds its lock, or its place in the line for it.
2. While a section is open or being opened, nothing that could wait for another's lock is allowed: no second section, no sub-orchestration, no call
   of an entity that is not locked. So nobody who holds a lock waits for one, but along the one order (no deadlock).
3. What the code does not release, the end of the execution does (`episode`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, ClassVar, Self

from replayflow.core.decisions import Decisions
from replayflow.core.entity.actions import SendEntityMessage
from replayflow.core.events import EntityLockGranted, EntityLockRequested, EntityUnlockSent
from replayflow.core.sites import site_of
from replayflow.core.tasks import Pending, complete
from replayflow.errors import OrchestratorError

_frame = sys._getframe


class EntityLock:
    """Entities that belong to one orchestration until it leaves the `with` block: `with (yield ctx.lock_entities([a, b])):`.

    Inside, the orchestration alone reaches them, by `ctx.call_entity`. They are given back at the end of the block, and at the end of the
    orchestration, whatever ends it.
    """

    __slots__ = ("_section",)

    def __init__(self, section: Section | None) -> None:
        self._section = section

    @property
    def entity_ids(self) -> Sequence[str]:
        """The locked entities, sorted."""
        return () if self._section is None else tuple(self._section.lock_set)

    @property
    def is_held(self) -> bool:
        """Whether the entities have not been given back; always, where there are none."""
        return self._section is None or self._section.is_open

    def release(self) -> None:
        """The entities are given back; a second time does nothing."""
        if self._section is not None:
            self._section.release(site_of(_frame(1)))

    def __enter__(self) -> Self:
        if not self.is_held:
            raise OrchestratorError("this lock was released already: ask for it again with ctx.lock_entities(...)")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._section is not None:
            self._section.release(site_of(_frame(1)))


class LockTask(Pending[EntityLock]):
    label: ClassVar[str] = "lock"

    def _abandon(self) -> None:
        self.ledger.abandon_section(self)


class Section:
    """One critical section, from the first request to the release. `position` is the place in `lock_set` of the last lock that was asked for."""

    __slots__ = ("_decisions", "event_id", "id", "is_granted", "is_open", "lock_set", "position", "site")

    def __init__(self, decisions: Decisions, execution_id: str, lock_set: list[str], site: str) -> None:
        self._decisions = decisions
        self.event_id = decisions.take_id()
        self.id = f"{execution_id}:{self.event_id}"
        self.lock_set = lock_set
        self.position = 0
        self.site = site
        self.is_granted = False
        self.is_open = True

    def open(self) -> LockTask:
        """The first lock is asked for; the task is complete when the section has the last."""
        decisions = self._decisions
        self._ask()
        task = LockTask(self.event_id, ", ".join(self.lock_set), None, decisions)
        decisions.open[self.event_id] = task
        decisions.section = self
        return task

    def granted(self, event: EntityLockGranted) -> None:
        """The lock that was asked for last is ours: the next, or none is missing any more."""
        if event.critical_section_id != self.id or event.position != self.position or self.is_granted:
            return
        if self.position + 1 < len(self.lock_set):
            self.position += 1
            self._ask()
            return
        self.is_granted = True
        task: Pending[Any] | None = self._decisions.open.pop(self.event_id, None)
        if task is not None:
            complete(task, EntityLock(self))

    def release(self, site: str = "") -> None:
        """All that the section has, and its place in line, is given back."""
        if not self.is_open:
            return
        decisions = self._decisions
        if decisions.is_sealed:
            return
        self.is_open = False
        decisions.section = None
        if decisions.ending is not None:
            return  # the code has continued as new: nothing may follow that, and the end of the execution gives it all back
        for entity_id in self.lock_set[: self.position + 1]:
            decisions.add(
                SendEntityMessage(
                    EntityUnlockSent(decisions.take_id(), self.id, target_instance_id=entity_id, site=site)
                )
            )

    def _ask(self) -> None:
        self._decisions.add(
            SendEntityMessage(EntityLockRequested(self.event_id, self.id, self.lock_set, self.position, site=self.site))
        )
