"""What may have killed the workers before this one runs alone, and is parked when it has done so often enough.

1. What is held is not loaded before its party is watched, and that it is watched is durable first.
2. Everything else goes on beside it, as ever; where nothing is held, nothing is done.
3. No party is watched for longer than `core/suspicion.py` says: what takes long does not keep the others from running.
4. What a worker does about suspects when it is stopped in the middle is nothing: they stay what they were.

The reasons, and what a crash can do at each point, are in `docs/decisions/0015-poison.md`.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from replayflow.core import suspicion
from replayflow.core.commit import Commit
from replayflow.core.entity.ids import is_entity_id
from replayflow.core.events import ExecutionResumed
from replayflow.core.suspicion import POISON_PREFIX, Suspicion
from replayflow.engine.committer import Committer
from replayflow.engine.intake import Intake
from replayflow.engine.limits import Limits
from replayflow.engine.live import Live
from replayflow.engine.patience import until_it_answers
from replayflow.errors import ReplayflowError, StoreCorruptError
from replayflow.store.base import Operation, Outcome, Park, Store, Suspect
from replayflow.store.sound import load_sound

_LOOK_SECONDS = 0.02
_LINGER_SECONDS = 0.2
_NAMED_MAX = 5
_logger = logging.getLogger("replayflow")


class Suspects:
    """Lets what is held go, one party after the other, with `look_at`; `resident` says what is in memory of an instance."""

    def __init__(
        self,
        store: Store,
        epoch: int,
        committer: Committer,
        intake: Intake,
        resident: Callable[[str], Live | None],
        look_at: Callable[[str], None],
        limits: Limits,
    ) -> None:
        self._store = store
        self._epoch = epoch
        self._committer = committer
        self._intake = intake
        self._resident = resident
        self._look_at = look_at
        self._deaths_alone = limits.deaths_alone
        self._rest_seconds = limits.rest.total_seconds()
        self._held: dict[str, Suspect] = {}
        self._is_stopping = False

    def stop(self) -> None:
        """Nobody else is let go, and who is watched by now stays a suspect."""
        self._is_stopping = True

    async def hold(self) -> None:
        """What is held is known, and not loaded. To be done before anything is."""
        self._held = {one.instance_id: one for one in await until_it_answers(self._store.suspects)}
        self._intake.held_back.update(self._held)

    async def run(self) -> None:
        """All that was held is parked, or goes on like everything else."""
        if not self._held:
            return
        for id in [id for id, one in self._held.items() if one.suspicion.strikes >= self._deaths_alone]:
            await self._park(self._held.pop(id))
        if not self._held:
            return
        _logger.warning(
            "the last workers died with the same instances at work, which run one after the other now, to find out which of them it was: %s",
            _listed([f"'{id}'" for id in self._held]),
        )
        await asyncio.sleep(suspicion.rest_seconds(self._rest_seconds, [one.suspicion for one in self._held.values()]))
        seen: dict[str, Suspicion | None] = {}
        for party in suspicion.parties((id, one.suspicion) for id, one in self._held.items()):
            if self._is_stopping:
                return
            await self._write(seen | {id: self._held[id].suspicion.watched() for id in party})
            self._intake.held_back.difference_update(party)
            for id in party:
                self._look_at(id)
            doubtful = await self._observe(party)
            seen = {id: self._held[id].suspicion.released() if id in doubtful else None for id in party}
        if not self._is_stopping:
            await self._write(seen)

    async def _write(self, found: Mapping[str, Suspicion | None]) -> None:
        await until_it_answers(partial(self._store.suspect, found, self._epoch))

    async def _observe(self, party: Sequence[str]) -> set[str]:
        """The party has been watched for as long as it takes; returns those of it that have not shown themselves harmless."""
        doubtful = set(party)
        # The watch begins when they are at work: on a busy machine reading them may take as long as it lasts.
        while any(map(self._intake.is_expected, party)) and not self._is_stopping:  # noqa: ASYNC110 - as below
            await asyncio.sleep(_LOOK_SECONDS)
        try:
            async with asyncio.timeout(suspicion.watch_seconds(self._held[id].suspicion for id in party)):
                # Looked at from outside: to be told of progress would cost every commit a question.
                while doubtful := {id for id in doubtful if not self._is_harmless(id)}:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            pass
        if any(self._resident(id) is not None for id in party):
            # What has just made progress may kill with what it does next, which is not the next party's doing.
            await asyncio.sleep(_LINGER_SECONDS)
        return doubtful

    def _is_harmless(self, id: str) -> bool:
        """Whether the instance has made progress, or has nothing to do."""
        if self._intake.is_expected(id):
            return False
        live = self._resident(id)
        return live is None or live.sequence > self._held[id].suspicion.piece + 1 or live.is_idle

    async def _park(self, suspect: Suspect) -> None:
        id = suspect.instance_id
        found, _ = await until_it_answers(partial(load_sound, self._store, [id]))
        for loaded in found:
            live = Live(id, loaded.record.execution_id)
            try:
                live.restore(loaded)
                for delivery in loaded.inbox:
                    live.receive(delivery)
            except StoreCorruptError:
                break  # whoever loads it next says so
            problem = _verdict(live, loaded.record.name, suspect.suspicion.strikes)
            # A request to resume it has been heard: it died of that. One that stayed would have it die again.
            heard = live.numbers_of([event for event in live.mailbox if isinstance(event, ExecutionResumed)])
            strike_out = Commit(id, live.execution_id, live.sequence, 0, None, consumed=heard)
            if await self._are_written([strike_out, Park(id, live.execution_id, problem.encode())]):
                _logger.error("instance '%s' is parked: %s", id, problem)
        self._intake.held_back.discard(id)
        self._look_at(id)  # a request to resume it, or to end it, may be there already

    async def _are_written(self, operations: Sequence[Operation]) -> bool:
        last: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def settle(outcome: Outcome | None, error: ReplayflowError | None) -> None:
            refused = error if outcome is None else outcome.error
            if refused is not None:
                _logger.error("what has killed its worker could not be parked: %s", refused)
            left.pop()
            if not left and not last.done():
                last.set_result(refused is None)

        left = list(operations)
        for operation in operations:
            self._committer.add(operation, settle)
        return await last


def _verdict(live: Live, name: str, strikes: int) -> str:
    """Why it is parked, and what to do. Who looks at a row has to find all of it there."""
    at_work = _at_work(live)
    code = f"entity '{live.id}'" if is_entity_id(live.id) else f"orchestrator '{name}'"
    what = f"{_listed(at_work)}, or its {code}" if at_work else f"its {code}, which had nothing else under way"
    died = "1 worker died" if strikes == 1 else f"{strikes} workers died, one after the other,"
    return (
        f"{POISON_PREFIX}{died} while this instance was the only suspect at work; what it had under way: {what}. "
        f"Mend what kills the process (or run the activity with executor='process'), then: replayflow resume {shlex.quote(live.id)}"
    )


def _at_work(live: Live) -> list[str]:
    instance = live.instance
    tasks = [task for id, task in instance.tasks.items() if id not in instance.retrying]
    named = [f"activity '{task.name}' (task {task.event_id})" for task in tasks]
    named += [f"map of '{open.scheduled.name}' (task {open.id})" for open in instance.maps.values()]
    named += [f"activity '{task.name}' (of execution {execution_id})" for execution_id, task in live.orphans]
    return named


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - _NAMED_MAX
    return ", ".join(texts[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
