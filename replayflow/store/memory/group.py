"""One group of operations, applied to copies of the instances that it touches."""

from __future__ import annotations

from replayflow.core.commit import Commit
from replayflow.core.ids import is_unicode
from replayflow.errors import (
    InstanceFinishedError,
    InstanceNotFoundError,
    InvalidArgumentError,
    InvalidStateError,
    LeaseLostError,
    ReplayflowError,
)
from replayflow.store.memory.instances import Instances
from replayflow.store.memory.kept import forget_executions, why_unstorable
from replayflow.store.operations import (
    Branch,
    Create,
    Operation,
    Outcome,
    Park,
    Post,
    Purge,
    Trim,
    id_taken,
    moved_on,
    why_it_stays,
)
from replayflow.store.outgoing import GONE, passed_on_in


class Group(Instances):
    """The operations, one after the other: each is accepted or refused on its own, and a refused one changes nothing."""

    def apply(self, operation: Operation) -> Outcome:
        passed_on = passed_on_in(operation)
        if not self._incoming.has(passed_on):
            return Outcome(error=InvalidArgumentError(GONE))
        match operation:
            case Create():
                return self._create(operation)
            case Post():
                return self._post(operation)
            case Commit():
                return self._commit(operation)
            case Park():
                return self._park(operation)
            case Purge():
                return self._purge(operation)
            case Trim():
                return self._trim(operation)
            case Branch():
                return self._branch(operation)

    def _create(self, create: Create) -> Outcome:
        start = create.start
        kept = self._find(start.instance_id)
        outcome = Outcome()
        begins = kept is None or (kept.record.status.is_finished and create.on_existing not in ("error", "return"))
        if begins and (unstorable := why_unstorable(start)) is not None:
            outcome.error = unstorable
            return outcome
        if kept is None:
            self._begin(start, outcome)
            self._nudge(start.instance_id, outcome)
            return outcome
        status = kept.record.status
        if create.on_existing == "return":
            outcome.has_existed = True
        elif create.on_existing == "error" or (create.on_existing == "replace_finished" and not status.is_finished):
            outcome.error = id_taken(start.instance_id, status)
        elif status.is_finished:
            self._succeed(kept, start)
            outcome.started.append(start)
            self._nudge(start.instance_id, outcome)
        else:
            assert create.replacement is not None  # noqa: S101 - the client sends one with this choice
            self._send(create.replacement, outcome)
        return outcome

    def _post(self, post: Post) -> Outcome:
        outcome = Outcome()
        message = post.message
        kept = self._find(message.instance_id)
        if kept is not None and post.dedupe_key is not None and post.dedupe_key in kept.dedupe_keys:
            return outcome
        begins = message.start is not None and (
            kept is None or (post.replaces_finished and kept.record.status.is_finished)
        )
        if kept is None and message.start is None:
            outcome.error = InstanceNotFoundError(f"no instance '{message.instance_id}' is in the hub memory://")
        elif post.dedupe_key is not None and not is_unicode(post.dedupe_key):
            outcome.error = InvalidArgumentError(f"dedupe_key {post.dedupe_key!a:.300} is no Unicode text")
        elif begins and message.start is not None and (unstorable := why_unstorable(message.start)) is not None:
            outcome.error = unstorable
        elif kept is not None and kept.record.status.is_finished and not begins:
            outcome.error = InstanceFinishedError(
                f"instance '{message.instance_id}' has finished, with status {kept.record.status}, and takes no messages"
            )
        else:
            if kept is None and message.start is not None:
                kept = self._begin(message.start, outcome)
            elif begins and kept is not None and message.start is not None:
                self._succeed(kept, message.start)
                outcome.started.append(message.start)
            if post.dedupe_key is not None and kept is not None:
                kept.dedupe_keys.add(post.dedupe_key)
            self._send(message, outcome)
        return outcome

    def _commit(self, commit: Commit) -> Outcome:
        outcome = Outcome()
        kept = self._find(commit.instance_id)
        if kept is None or kept.record.execution_id != commit.execution_id or commit.sequence != kept.next_number:
            outcome.error = LeaseLostError(
                f"instance '{commit.instance_id}' has moved on: piece {commit.sequence} of execution {commit.execution_id} does not continue it"
            )
            return outcome
        begun = [*commit.starts, *(m.start for m in commit.messages if m.start is not None)]
        if commit.next_start is not None:
            begun.insert(0, commit.next_start)
        unstorable = next(filter(None, map(why_unstorable, begun)), None)
        if unstorable is not None:
            outcome.error = unstorable
            return outcome
        if commit.chunk is not None:
            kept.pieces[commit.sequence] = self._outgoing.events(commit.chunk, 0, commit.instance_id)
            kept.record.updated_at = max(commit.at, kept.record.created_at)
        if commit.state is not None:
            self._show(kept, commit.state)
        for number in commit.consumed:
            kept.inbox.pop(number, None)
        if commit.next_start is not None:
            self._succeed(kept, commit.next_start)
            if commit.past_kept is not None:
                forget_executions(kept, commit.past_kept)
        for start in commit.starts:
            if self._find(start.instance_id) is None:
                self._begin(start, outcome)
            elif start.if_taken is not None:
                self._send(start.if_taken, outcome)
        for message in commit.messages:
            self._send(message, outcome)
        if commit.removes and not kept.inbox:
            self._remove(commit.instance_id)
        return outcome

    def _park(self, park: Park) -> Outcome:
        outcome = Outcome()
        kept = self._find(park.instance_id)
        if kept is None or kept.record.execution_id != park.execution_id:
            outcome.error = LeaseLostError(f"instance '{park.instance_id}' has moved on")
            return outcome
        kept.record.problem = self._outgoing.text(park.problem, park.instance_id)
        for message in park.messages:
            self._send(message, outcome)
        return outcome

    def _purge(self, purge: Purge) -> Outcome:
        id = purge.instance_id
        kept = self._find(id)
        if kept is None:
            return Outcome(InstanceNotFoundError(f"no instance '{id}' is in the hub memory://"))
        refusal = why_it_stays(id, kept.record.status, owes=kept.record.orphans is not None)
        if refusal is not None:
            return Outcome(refusal)
        if purge.execution_id is not None and purge.execution_id != kept.record.execution_id:
            return Outcome(InvalidStateError(f"instance '{id}' is in another execution by now"))
        self._remove(id)
        self.purged += 1
        return Outcome()

    def remove_damaged(self, instance_id: str) -> None:
        """The instance is no more, whatever its status is."""
        self._find(instance_id)
        self._remove(instance_id)
        self.purged += 1

    def _trim(self, trim: Trim) -> Outcome:
        kept = self._find(trim.instance_id)
        if kept is None:
            return Outcome(InstanceNotFoundError(f"no instance '{trim.instance_id}' is in the hub memory://"))
        forget_executions(kept, trim.keep)
        return Outcome()

    def _branch(self, branch: Branch) -> Outcome:
        outcome = Outcome()
        begun = [one.start for one in branch.executions] + [*branch.starts]
        outcome.error = self._unfit(branch) or next(filter(None, map(why_unstorable, begun)), None)
        if outcome.error is not None:
            return outcome
        for one in branch.executions:
            kept = self._find(one.start.instance_id)
            if kept is None:
                kept = self._begin(one.start, outcome)
            else:
                self._succeed(kept, one.start, continues=True)
                outcome.started.append(one.start)
            for number, (at, piece) in enumerate(one.pieces, kept.record.start_number + 1):
                kept.pieces[number] = self._outgoing.events(piece, 0, one.start.instance_id)
                kept.record.updated_at = max(at, kept.record.created_at)
            self._show(kept, one.state)
            self._nudge(one.start.instance_id, outcome)
        for start in branch.starts:
            if self._find(start.instance_id) is None:
                self._begin(start, outcome)
                self._nudge(start.instance_id, outcome)
            elif start.if_taken is not None:
                self._send(start.if_taken, outcome)
        for message in branch.messages:
            self._send(message, outcome)
        return outcome

    def _unfit(self, branch: Branch) -> ReplayflowError | None:
        for one in branch.executions:
            kept = self._find(one.start.instance_id)
            if one.replaces is None and kept is not None:
                return id_taken(one.start.instance_id, kept.record.status)
            if one.replaces is not None and (
                kept is None
                or (kept.record.execution_id, kept.next_number - 1) != (one.replaces, one.last)
                or not kept.record.status.is_finished
                or any(n > one.last_message and d.execution_id == one.replaces for n, d in kept.inbox.items())
            ):
                return moved_on(one.start.instance_id)
        for seen in branch.seen:
            kept = self._find(seen.instance_id)
            if kept is None or kept.record.status.is_finished == (seen.execution_id is None):
                return moved_on(seen.instance_id)
            if seen.execution_id is not None and seen.execution_id != kept.record.execution_id:
                return moved_on(seen.instance_id)
        return None
