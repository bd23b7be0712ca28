"""The operations within a transaction, applied to what it knows of their instances. Each is accepted or refused on its own.

1. What can refuse an operation is looked at before anything is changed: a refused one changes nothing.
2. `_turn` and `_commit` are nearly all that a busy hub writes: they touch no row that is in the file.
"""

from __future__ import annotations

from zlib import crc32

from replayflow.codec.reference import may_refer
from replayflow.core.commit import Commit, Turn
from replayflow.errors import InstanceFinishedError, InstanceNotFoundError, InvalidStateError, LeaseLostError
from replayflow.store.operations import (
    ACCEPTED,
    MICROSECONDS_PER_DAY,
    Create,
    Outcome,
    Park,
    Post,
    Purge,
    Trim,
    id_taken,
    why_it_stays,
)
from replayflow.store.sqlite.branching import Branching
from replayflow.store.sqlite.known import Known
from replayflow.store.sqlite.statements import SQL
from replayflow.store.sqlite.sums import of_row


class Applying(Branching):
    """The operations, one after the other."""

    def _turn(self, turn: Turn) -> Outcome:
        """`_commit` for what nearly every commit is: a piece of history, and nothing else."""
        known = self._known.get(turn.instance_id)
        chunk = turn.chunk
        if (
            known is None
            or known.execution_id != turn.execution_id
            or turn.sequence != known.last_number + 1
            or chunk is None
            or len(chunk) > self._untouched_bytes
        ):
            return self._commit(turn)
        known.sum = sum = crc32(chunk, known.sum)
        self._pieces.append((known.key, turn.sequence, turn.at, bytearray(chunk), sum))
        known.last_number = turn.sequence
        return ACCEPTED

    def _commit(self, commit: Commit) -> Outcome:
        concerns_others = commit.messages or commit.starts or commit.next_start is not None
        if concerns_others:
            refused = self._lacks(commit)
            if refused is not None:
                return refused
        known = self._known.get(commit.instance_id)
        if known is None or known.execution_id != commit.execution_id or commit.sequence != known.last_number + 1:
            return Outcome(
                LeaseLostError(
                    f"instance '{commit.instance_id}' has moved on: piece {commit.sequence} of execution {commit.execution_id} does not continue it"
                )
            )
        if commit.chunk is not None:
            chunk = commit.chunk
            if len(chunk) > self._untouched_bytes:
                chunk = self._outgoing.events(chunk, known.key, commit.instance_id)
            known.sum = sum = crc32(chunk, known.sum)
            self._pieces.append((known.key, commit.sequence, commit.at, bytearray(chunk), sum))
            known.last_number = commit.sequence
        state = commit.state
        if state is not None:
            known.status = state.status
            self._show(known, state, commit.instance_id)
        if commit.consumed:
            self._consumed += commit.consumed
        if not concerns_others and not commit.removes:
            return ACCEPTED
        outcome = Outcome()
        if commit.next_start is not None:
            self._succeed(known, commit.next_start, commit.past_kept)
        for start in commit.starts:
            if start.instance_id not in self._known:
                self._begin(start, outcome)
            elif start.if_taken is not None:
                self._send(start.if_taken, outcome)
        for message in commit.messages:
            self._send(message, outcome)
        if commit.removes:
            self._remove_if_empty(commit.instance_id, known)
        return outcome

    def _create(self, create: Create) -> Outcome:
        start = create.start
        if start.if_taken is not None or may_refer(start.event):
            refused = self._lacks(create)
            if refused is not None:
                return refused
        outcome = Outcome()
        known = self._known.get(start.instance_id)
        if known is None:
            self._nudge(self._begin(start, outcome), start.instance_id, outcome)
            return outcome
        finished = known.status.is_finished
        if create.on_existing == "return":
            outcome.has_existed = True
        elif create.on_existing == "error" or (create.on_existing == "replace_finished" and not finished):
            outcome.error = id_taken(start.instance_id, known.status)
        elif finished:
            self._succeed(known, start)
            outcome.started.append(start)
            self._nudge(known, start.instance_id, outcome)
        else:
            assert create.replacement is not None  # noqa: S101 - the client sends one with this choice
            self._send(create.replacement, outcome)
        return outcome

    def _post(self, post: Post) -> Outcome:
        message = post.message
        if message.start is not None or may_refer(message.event):
            refused = self._lacks(post)
            if refused is not None:
                return refused
        outcome = Outcome()
        known = self._known.get(message.instance_id)
        if known is None and message.start is not None:
            known = self._begin(message.start, outcome)
        if known is None:
            outcome.error = InstanceNotFoundError(f"no instance '{message.instance_id}' is in the hub {self._url}")
        elif post.dedupe_key is not None and self._is_repeated(known, post.dedupe_key):
            pass
        elif known.status.is_finished and not (post.replaces_finished and message.start is not None):
            outcome.error = InstanceFinishedError(
                f"instance '{message.instance_id}' has finished, with status {known.status}, and takes no messages"
            )
        else:
            if known.status.is_finished and message.start is not None:
                self._succeed(known, message.start)
                outcome.started.append(message.start)
            if post.dedupe_key is not None:
                seen = (known.key, post.dedupe_key)
                self._connection.execute(SQL["remember"], (*seen, of_row(*seen)))
            self._send(message, outcome)
        return outcome

    def _park(self, park: Park) -> Outcome:
        refused = self._lacks(park)
        if refused is not None:
            return refused
        outcome = Outcome()
        known = self._known.get(park.instance_id)
        if known is None or known.execution_id != park.execution_id:
            outcome.error = LeaseLostError(f"instance '{park.instance_id}' has moved on")
            return outcome
        self._flush()
        problem = self._outgoing.text(park.problem, park.instance_id)
        sum = None if problem is None else of_row(problem)
        self._connection.execute(SQL["park"], (problem, sum, known.key))
        known.is_parked = park.problem is not None
        if known.is_parked:
            self._connection.execute(SQL["forget_suspicion"], (park.instance_id,))
        for message in park.messages:
            self._send(message, outcome)
        return outcome

    def _purge(self, purge: Purge) -> Outcome:
        known = self._known.get(purge.instance_id)
        if known is None:
            return Outcome(InstanceNotFoundError(f"no instance '{purge.instance_id}' is in the hub {self._url}"))
        if self._added or self._states:
            self._flush()  # what it owes may be said there
        owes = self._connection.execute(SQL["owes"], (known.key,)).fetchone() is not None
        refusal = why_it_stays(purge.instance_id, known.status, owes=owes)
        if refusal is not None:
            return Outcome(refusal)
        if purge.execution_id is not None and purge.execution_id != known.execution_id:
            return Outcome(InvalidStateError(f"instance '{purge.instance_id}' is in another execution by now"))
        self._remove(purge.instance_id, known)
        self._purged[purge.at // MICROSECONDS_PER_DAY, purge.cause] += 1
        return Outcome()

    def _trim(self, trim: Trim) -> Outcome:
        known = self._known.get(trim.instance_id)
        if known is None:
            return Outcome(InstanceNotFoundError(f"no instance '{trim.instance_id}' is in the hub {self._url}"))
        self._flush()
        self._forget_executions(known, trim.keep)
        return Outcome()

    def _is_repeated(self, known: Known, dedupe_key: str) -> bool:
        return self._connection.execute(SQL["is_repeated"], (known.key, dedupe_key)).fetchone() is not None
