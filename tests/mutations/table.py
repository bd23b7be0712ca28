"""The mutations: each breaks one promise, as a slip of the hand or a change in a hurry would.

`replayflow/` code may be moved about freely; where the lines of a mutation themselves change, the mutation has to change with them, and
`test_mutations.py` says so.
"""

from __future__ import annotations

from tests.mutations.patching import Edit, Mutation

MUTATIONS = [
    Mutation(
        "flush-skipped",
        "I6",
        "a commit is said to be durable before the disk has it",
        (Edit('connection.execute("PRAGMA synchronous = FULL")', 'connection.execute("PRAGMA synchronous = OFF")'),),
        ("tests/store/test_sqlite_file.py",),
    ),
    Mutation(
        "activity-before-commit",
        "I3",
        "an activity begins before the commit that asked for it is durable",
        (
            Edit(
                "for task in done.scheduled:\n    self._work.start(live, live.execution_id, task)",
                "pass",
                "engine",
            ),
            Edit(
                "return Step(self._owner, live, commit, done, loose, live.reading)",
                "for task in done.scheduled:\n    self._owner._work.start(live, live.execution_id, task)\n"
                "return Step(self._owner, live, commit, done, loose, live.reading)",
                "engine",
            ),
        ),
        ("tests/engine/test_durable_first.py",),
    ),
    Mutation(
        "group-half-kept",
        "I3",
        "a transaction that fails in the middle keeps what it had written",
        (
            Edit(
                'if connection.in_transaction:  # a full disk may have rolled back already\n    connection.execute("ROLLBACK")',
                'if connection.in_transaction:\n    connection.execute("COMMIT")',
                "store/sqlite",
            ),
        ),
        ("tests/store/test_sqlite_file.py",),
    ),
    Mutation(
        "message-heard-twice",
        "I5",
        "a message that was read from the store is heard once more when its sender's commit is told",
        (Edit("return  # read from the store before its sender heard that it is written", "pass", "engine"),),
        ("tests/engine/test_entities_durable.py", "tests/engine/test_durable_first.py"),
    ),
    Mutation(
        "accepted-later-heard-first",
        "I5",
        "what a client in the process asked for overtakes what another was told before",
        (Edit("if number == self._last + 1:", "if number > self._last:", "engine"),),
        ("tests/semantics/test_external_events.py",),
    ),
    Mutation(
        "message-not-struck",
        "I5",
        "a message stays in the inbox when the history has it",
        (Edit("self._consumed += commit.consumed", "pass", "store/sqlite"),),
        ("tests/store/test_store_writing.py",),
    ),
    Mutation(
        "message-not-kept",
        "I5",
        "a message is told in memory and never put into the inbox",
        (
            Edit(
                "delivery.takes_messages = known.takes_messages",
                "outcome.deliveries.append(delivery)\nreturn",
                "store/sqlite",
            ),
        ),
        ("tests/store/test_store_writing.py",),
    ),
    Mutation(
        "epoch-unchecked",
        "I7",
        "a worker that has lost the hub still writes",
        (
            Edit(
                "own, version = hub.read_as_owner(connection, self._epoch, self._url)",
                "own, version = hub.read(connection)",
                "store/sqlite",
            ),
        ),
        ("tests/store/test_store_writing.py",),
    ),
    Mutation(
        "epoch-unchecked-by-transactions",
        "I7",
        "a worker that has lost the hub still runs transactional activities",
        (
            Edit(
                "own, _ = hub.read_as_owner(connection, epoch, url)",
                "own, _ = hub.read(connection)",
                "store/sqlite/transactions",
            ),
        ),
        ("tests/store/test_store_transact.py",),
    ),
    Mutation(
        "dedupe-key-forgotten",
        "I6",
        "a client's repeated request counts twice",
        (Edit('self._connection.execute(SQL["remember"], (*seen, of_row(*seen)))', "pass", "store/sqlite"),),
        ("tests/store/test_store_writing.py", "tests/semantics/test_external_events.py"),
    ),
    Mutation(
        "terminal-left",
        "I8",
        "what has failed may still complete",
        (
            Edit(
                "for open_status in (Status.PENDING, Status.RUNNING, Status.SUSPENDED)",
                "for open_status in (Status.PENDING, Status.RUNNING, Status.SUSPENDED, Status.FAILED)",
            ),
        ),
        ("tests/core/test_core_instance.py",),
    ),
    Mutation(
        "finished-takes-messages",
        "I8",
        "what has finished takes in messages once more",
        (
            Edit(
                "known is None\nor known.status.is_finished\nor (message.execution_id is not None and message.execution_id != known.execution_id)",
                "known is None\nor (message.execution_id is not None and message.execution_id != known.execution_id)",
                "store/sqlite",
            ),
        ),
        ("tests/store/test_store_writing.py",),
    ),
    Mutation(
        "ahead-unchecked",
        "I10",
        "what was worked out before its transaction is written to a hub that somebody else has written to since",
        (Edit("raise Outdated", "pass", "store/sqlite"),),
        ("tests/store/test_sqlite_ahead.py",),
    ),
    Mutation(
        "ahead-remembered",
        "I10",
        "what was worked out and never written is built on",
        (
            Edit(
                "if remembered.ahead is not None:\n    remembered.forget()  # it is of a group that was worked out, and never written",
                "",
                "store/sqlite",
            ),
        ),
        ("tests/store/test_sqlite_ahead.py",),
    ),
    Mutation(
        "history-overwritten",
        "I10",
        "a commit that comes late takes the place of a piece that is there",
        (
            Edit("or turn.sequence != known.last_number + 1", "", "store/sqlite"),
            Edit(
                "if known is None or known.execution_id != commit.execution_id or commit.sequence != known.last_number + 1:",
                "if known is None or known.execution_id != commit.execution_id:",
                "store/sqlite",
            ),
            Edit(
                "INSERT INTO history (instance, number, at, events, sum)\n"
                "SELECT column1, column2, column3 * 31, column4, column5 - 2147483648",
                "INSERT OR REPLACE INTO history (instance, number, at, events, sum)\n"
                "SELECT column1, column2, column3 * 31, column4, column5 - 2147483648",
                "store/sqlite",
            ),
        ),
        ("tests/store/test_store_writing.py",),
    ),
    Mutation(
        "attempts-lost-at-replay",
        "I1",
        "after a restart a task has all its attempts again",
        (
            Edit(
                "replay.replay_all(pieces)",
                "live.instance.attempts = dict.fromkeys(live.instance.attempts, 0)\nreplay.replay_all(pieces)",
                "engine",
            ),
        ),
        ("tests/semantics/test_failures.py",),
    ),
    Mutation(
        "timers-early",
        "I1",
        "a timer fires a minute before its time",
        (
            Edit(
                "while self._heap and self._heap[0][0] <= now:",
                "while self._heap and self._heap[0][0] <= now + 60_000_000:",
                "engine",
            ),
        ),
        ("tests/testing/test_testing_hub.py", "tests/semantics/test_scheduling.py"),
    ),
    Mutation(
        "divergence-unnoticed",
        "I9",
        "code that asks for something else than the history has is let through",
        (Edit("if not action.fits(then):", "if False:", "core"),),
        ("tests/semantics/test_determinism.py", "tests/core/test_core_replay.py"),
    ),
    Mutation(
        "missing-action-unnoticed",
        "I9",
        "code that asks for less than the history has is let through",
        (
            Edit(
                "if decisions.position < len(decisions.recorded) and decisions.mismatch is None:",
                "if False:",
                "core",
            ),
        ),
        ("tests/semantics/test_determinism.py", "tests/core/test_core_replay.py"),
    ),
    Mutation(
        "poison-runs-again",
        "I9",
        "what was parked because it kills its worker is run by the next worker that starts",
        (
            Edit(
                "if is_poison(record.problem) and not any(isinstance(event, ExecutionResumed) for event in live.mailbox):",
                "if False:",
                "engine",
            ),
        ),
        ("tests/engine/test_poison.py",),
    ),
    Mutation(
        "parked-tried-at-any-wake-up",
        "I9",
        "a wake-up from before an instance was parked has it tried again",
        (
            Edit(
                "elif not goes_on and not self._is_called(live, loaded):",
                "elif False:",
                "engine",
            ),
        ),
        ("tests/engine/test_parked.py",),
    ),
    Mutation(
        "end-of-before-told",
        "I6",
        "whoever asks while an end is being written is told that end, whatever has become of the instance since",
        (
            Edit(
                "return not live.row.status.is_finished and live.ends_in == self._committer.next_group",
                "return not live.row.status.is_finished",
                "engine",
            ),
        ),
        ("tests/engine/test_ends.py",),
    ),
    Mutation(
        "request-lost-in-parking",
        "I5",
        "a request that comes while its receiver is being parked waits for the next worker",
        (
            Edit(
                "parking.is_called = parking.is_called or live.must_reload or _calls(came)",
                "parking.is_called = False",
                "engine",
            ),
        ),
        ("tests/engine/test_parked.py",),
    ),
    Mutation(
        "suspended-runs",
        "I5",
        "a suspended instance takes in what comes",
        (Edit("if instance.status is SUSPENDED and not isinstance(event, _NEVER_HELD):", "if False:", "core"),),
        ("tests/core/test_core_episode.py",),
    ),
    Mutation(
        "compensations-in-order",
        "I1",
        "a saga undoes the first first",
        (
            Edit("step = self._steps[-1]", "step = self._steps[0]", "core"),
            Edit(
                "else:\n    yield from self._run_through(step, step.undo)\nself._steps.pop()",
                "else:\n    yield from self._run_through(step, step.undo)\nself._steps.pop(0)",
                "core",
            ),
        ),
        ("tests/core/test_core_saga.py", "tests/semantics/test_sagas.py"),
    ),
    Mutation(
        "uses-not-counted",
        "I10",
        "nobody notes who refers to a large payload",
        (Edit('connection.executemany(SQL["keep_use"], list(outgoing.uses))', "pass", "store/sqlite"),),
        ("tests/store/test_store_large.py",),
    ),
    Mutation(
        "shared-payload-dropped",
        "I10",
        "a large payload goes with the first of those who refer to it, and not with the last",
        (
            Edit(
                "WHEN NOT EXISTS (SELECT 1 FROM payload_use WHERE digest = old.digest)",
                "WHEN 1",
                "store/sqlite/migrations",
            ),
        ),
        ("tests/store/test_store_large.py",),
    ),
    Mutation(
        "cold-parent-not-told",
        "I5",
        "a child's result does not wake a parent that has left the memory",
        (
            Edit(
                "elif delivery.takes_messages or delivery.is_control:",
                "elif delivery.is_control:",
                "engine",
            ),
        ),
        ("tests/engine/test_warm_and_cold.py", "tests/semantics/test_external_events.py"),
    ),
    Mutation(
        "superseded-ids-reused",
        "I10",
        "what a rewound instance decides anew has the idempotency keys of what it left behind",
        (
            Edit(
                "if task_id <= origin.last_id and origin.instance_id == started.instance_id:",
                "if origin.instance_id == started.instance_id:",
                "core",
            ),
        ),
        ("tests/core/test_core_branches.py", "tests/semantics/test_rewind.py"),
    ),
    Mutation(
        "wall-clock",
        "I2",
        "an orchestrator's time is that of the machine",
        (Edit("return to_datetime(self._decisions.now)", "return datetime.now(UTC)", "core"),),
        ("tests/semantics/test_determinism.py",),
    ),
    Mutation(
        "chance-not-replayed",
        "I2",
        "an orchestrator's random numbers are others on every replay",
        (
            Edit(
                'self._random = Random("/".join(origins.root(self._started)))  # noqa: S311 - replayable, not secret',
                "self._random = Random()",
                "core",
            ),
        ),
        ("tests/semantics/test_determinism.py",),
    ),
    Mutation(
        "result-taken-twice",
        "I4",
        "a result that came before, or that nobody waits for, enters the history",
        (Edit("return event if event.task_scheduled_id in instance.tasks else None", "return event", "core"),),
        ("tests/core/test_core_episode.py",),
    ),
    Mutation(
        "open-activity-not-restarted",
        "I4",
        "what was at work when its worker died is not run again",
        (
            Edit(
                "if id not in live.running and id not in answered and id not in instance.retrying:",
                "if False:",
                "engine",
            ),
        ),
        ("tests/engine/test_start_up.py", "tests/testing/test_testing_crashes.py"),
    ),
    Mutation(
        "last-activities-forgotten",
        "I4",
        "what an orchestration asked for last, and did not wait for, does not survive a crash",
        (
            Edit(
                "return [(execution_id, task) for task in open if task.event_id not in instance.attempts]",
                "return []",
                "core",
            ),
        ),
        ("tests/core/test_core_episode.py",),
    ),
    Mutation(
        "transaction-repeated",
        "I4",
        "nobody notes that a transactional activity has had its one run",
        (
            Edit(
                'connection.execute(SQL["mark_transacted"], (*mark, of_row(*mark)))',
                "pass",
                "store/sqlite",
            ),
        ),
        ("tests/store/test_store_transact.py",),
    ),
    Mutation(
        "events-last-first",
        "I5",
        "the last event of a name is served first",
        (Edit("_, event = kept.popleft()", "_, event = kept.pop()", "core"),),
        ("tests/semantics/test_external_events.py",),
    ),
    Mutation(
        "events-left-by-name",
        "I5",
        "what an execution leaves comes to the next one name by name",
        (
            Edit(
                "return [event for _, event in sorted(kept, key=itemgetter(0))]",
                "return [event for _, event in kept]",
                "core",
            ),
        ),
        ("tests/core/test_core_replay.py",),
    ),
    Mutation(
        "failed-operation-stays",
        "I1",
        "what an entity's operation sent before it failed is sent all the same",
        (Edit("del self._decided[before:]\nself._state = _ABSENT", "self._state = _ABSENT", "core"),),
        ("tests/core/entity/test_core_entity.py", "tests/semantics/test_entities.py"),
    ),
    Mutation(
        "values-in-the-clear",
        "I11",
        "what should be encrypted is stored as it is",
        (
            Edit(
                "made = sealed(content, cipher, context)",
                "made = content if isinstance(content, bytes) else content.encode()\nreturn made",
                "store",
            ),
        ),
        ("tests/store/test_store_sealed.py",),
    ),
    Mutation(
        "payload-unbounded",
        "I11",
        "a value over the limit is written",
        (Edit("if size_bytes > payload_bytes_max:", "if False:", "codec"),),
        ("tests/codec/test_codec_refusals.py", "tests/codec/test_codec_payloads.py"),
    ),
]
