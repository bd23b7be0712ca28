"""A `Branch` within a transaction: executions that begin with a past, all of them or none."""

from __future__ import annotations

from zlib import crc32

from replayflow.errors import ReplayflowError
from replayflow.store.operations import Branch, Branched, Outcome, id_taken, moved_on
from replayflow.store.sqlite.instances import Instances
from replayflow.store.sqlite.known import Known
from replayflow.store.sqlite.statements import SQL


class Branching(Instances):
    """The one operation that begins executions in the middle."""

    def _branch(self, branch: Branch) -> Outcome:
        refused = self._lacks(branch)
        if refused is not None:
            return refused
        outcome = Outcome(self._unfit(branch))
        if outcome.error is not None:
            return outcome
        for one in branch.executions:
            start = one.start
            known = self._known.get(start.instance_id)
            if known is None:
                known = self._begin(start, outcome)
                self._flush()
            else:
                self._succeed(known, start, continues=True)
                outcome.started.append(start)
            for at, piece in one.pieces:
                known.last_number += 1
                stored = self._outgoing.events(piece, known.key, start.instance_id)
                known.sum = crc32(stored, known.sum)
                self._pieces.append((known.key, known.last_number, at, bytearray(stored), known.sum))
            known.status = one.state.status
            self._show(known, one.state, start.instance_id)
            self._nudge(known, start.instance_id, outcome)
        for start in branch.starts:
            if start.instance_id not in self._known:
                self._nudge(self._begin(start, outcome), start.instance_id, outcome)
            elif start.if_taken is not None:
                self._send(start.if_taken, outcome)
        for message in branch.messages:
            self._send(message, outcome)
        return outcome

    def _unfit(self, branch: Branch) -> ReplayflowError | None:
        for one in branch.executions:
            known = self._known.get(one.start.instance_id)
            if one.replaces is None and known is not None:
                return id_taken(one.start.instance_id, known.status)
            if one.replaces is not None and (
                known is None
                or (known.execution_id, known.last_number) != (one.replaces, one.last)
                or not known.status.is_finished
                or self._has_come_since(known, one)
            ):
                return moved_on(one.start.instance_id)
        for seen in branch.seen:
            known = self._known.get(seen.instance_id)
            if known is None or known.status.is_finished == (seen.execution_id is None):
                return moved_on(seen.instance_id)
            if seen.execution_id is not None and seen.execution_id != known.execution_id:
                return moved_on(seen.instance_id)
        return None

    def _has_come_since(self, known: Known, one: Branched) -> bool:
        if self._messages:
            self._flush()
        place = (known.key, one.last_message, one.replaces)
        return self._connection.execute(SQL["has_come_since"], place).fetchone() is not None
