"""What happens to instances within a group: they begin, succeed one another, get messages, and are removed."""

from __future__ import annotations

import itertools
import time

from msgspec.structs import replace

from replayflow.core.commit import Message, RowState, Start
from replayflow.core.instance import Status
from replayflow.store.incoming import Incoming
from replayflow.store.memory.kept import Kept
from replayflow.store.operations import Delivery, Outcome
from replayflow.store.outgoing import Outgoing
from replayflow.store.records import InstanceRecord


class Instances:
    """`touched` has the instances as they will be, `removed` the ids of those that will be no more."""

    def __init__(
        self,
        instances: dict[str, Kept],
        keys: itertools.count[int],
        numbers: itertools.count[int],
        outgoing: Outgoing,
        incoming: Incoming,
        nudges: bool,
    ) -> None:
        self._nudges = nudges
        self._outgoing = outgoing
        self._incoming = incoming
        self._instances = instances
        self._keys = keys
        self._numbers = numbers
        self.touched: dict[str, Kept] = {}
        self.removed: set[str] = set()
        self.purged = 0

    def _find(self, instance_id: str) -> Kept | None:
        kept = self.touched.get(instance_id)
        if kept is None and instance_id in self._instances and instance_id not in self.removed:
            kept = self.touched[instance_id] = self._instances[instance_id].copy()
        return kept

    def _begin(self, start: Start, outcome: Outcome) -> Kept:
        self.removed.discard(start.instance_id)
        kept = self.touched[start.instance_id] = Kept(
            next(self._keys),
            InstanceRecord(
                instance_id=start.instance_id,
                execution_id=start.execution_id,
                name=start.name,
                version=start.version,
                status=Status.PENDING,
                start=self._outgoing.events(start.event, 0, start.instance_id),
                start_number=0,
                wake_at=start.wake_at,
                created_at=start.created_at,
                updated_at=start.created_at,
                parent_id=start.parent_id,
                tags=start.tags,
            ),
        )
        outcome.started.append(self._incoming.start(start))
        return kept

    def _succeed(self, kept: Kept, start: Start, *, continues: bool = False) -> None:
        """The next execution begins under the same id; the last one's start takes its place in the history."""
        record = kept.record
        kept.pieces[record.start_number] = record.start
        kept.executions[record.execution_id] = record.start_number
        continues = continues or record.status is Status.CONTINUED_AS_NEW
        if not continues:
            kept.dedupe_keys.clear()
        kept.record = InstanceRecord(
            instance_id=start.instance_id,
            execution_id=start.execution_id,
            name=start.name,
            version=start.version,
            status=Status.PENDING,
            start=self._outgoing.events(start.event, 0, start.instance_id),
            start_number=max(kept.pieces) + 1,
            wake_at=start.wake_at,
            created_at=record.created_at if continues else start.created_at,
            updated_at=record.updated_at if continues else max(record.updated_at, start.created_at),
            custom_status=record.custom_status if continues else None,
            orphans=record.orphans,
            parent_id=record.parent_id if continues else start.parent_id,
            tags=start.tags,
        )

    def _show(self, kept: Kept, state: RowState) -> None:
        record = kept.record
        record.status = state.status
        record.wake_at = state.wake_at
        record.custom_status = self._outgoing.payload(state.custom_status, 0, record.instance_id)
        record.output = self._outgoing.payload(state.output, 0, record.instance_id)
        record.failure = self._stored(state.failure, record.instance_id)
        record.completed_at = state.completed_at
        record.orphans = self._stored(state.orphans, record.instance_id)
        record.progress = state.progress

    def _remove(self, instance_id: str) -> None:
        del self.touched[instance_id]
        self.removed.add(instance_id)

    def _nudge(self, instance_id: str, outcome: Outcome) -> None:
        if not self._nudges:
            return
        self._deliver(Delivery(next(self._numbers), instance_id, None, is_control=True), outcome)

    def _send(self, message: Message, outcome: Outcome) -> None:
        kept = self._find(message.instance_id)
        if kept is None and message.start is not None:
            kept = self._begin(message.start, outcome)
        if (
            kept is None
            or kept.record.status.is_finished
            or (message.execution_id is not None and message.execution_id != kept.record.execution_id)
        ):
            outcome.dropped.append(message)
            return
        self._deliver(
            Delivery(next(self._numbers), message.instance_id, message.event, message.execution_id, message.is_control),
            outcome,
        )

    def _deliver(self, delivery: Delivery, outcome: Outcome) -> None:
        outcome.deliveries.append(self.deliver(delivery))

    def deliver(self, delivery: Delivery) -> Delivery:
        """The message stands in the inbox of its receiver, which is there."""
        kept = self._find(delivery.instance_id)
        assert kept is not None  # noqa: S101 - the caller has looked
        delivery.takes_messages = kept.takes_messages
        kept.arrived[delivery.number] = time.time_ns() // 1_000
        kept.inbox[delivery.number] = replace(delivery, event=self._stored(delivery.event, delivery.instance_id))
        return self._incoming.delivery(delivery)

    def _stored(self, encoded: bytes | None, instance_id: str) -> bytes | None:
        return None if encoded is None else self._outgoing.events(encoded, 0, instance_id)
