"""Instances that clients in this process start: each is created and makes its first step in one transaction.

Where very many are started at once, they begin some at a time, and the event loop goes round in between: the first are on their way to the disk,
by the writing thread, while the next begin. Begun all in one go they would leave the writer without work, and then the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from replayflow.clock import Clock
from replayflow.codec.reference import may_refer
from replayflow.core.definitions import Environment
from replayflow.engine.committer import Committer, Settle
from replayflow.engine.episodes import Episodes
from replayflow.engine.live import Live
from replayflow.engine.memory import Memory
from replayflow.engine.patience import Backoff
from replayflow.errors import ReplayflowError
from replayflow.store.base import Create, Outcome

_BEGUN_PER_TURN = 100


class Beginnings:
    """Those that are about to begin, in order. `fail` is told of an error after which nothing may be built on what memory has."""

    def __init__(
        self,
        memory: Memory,
        episodes: Episodes,
        environment: Environment,
        committer: Committer,
        backoff: Backoff,
        clock: Clock,
        fail: Callable[[BaseException], None],
    ) -> None:
        self._memory = memory
        self._lives = memory.lives
        self._episodes = episodes
        self._environment = environment
        self._committer = committer
        self._backoff = backoff
        self._clock = clock
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._line: deque[tuple[Create, Settle]] = deque()

    @property
    def is_quiet(self) -> bool:
        """Whether nobody is about to begin."""
        return not self._line

    def can_begin_at_once(self, create: Create) -> bool:
        """Whether the first step can be made before the creation is written. That nobody has its id is for others to know."""
        start = create.start
        return (
            create.on_existing in ("error", "return")  # a replacement continues a history, which has to be looked at
            and start.wake_at <= self._clock.now()
            and start.name in self._environment.orchestrators
            and start.instance_id not in self._lives
            and not self._memory.is_stopping
            and not self._backoff.seconds
            and not may_refer(start.event)  # what it passes on is in the store alone
        )

    def add(self, create: Create, settle: Settle) -> None:
        """The instance, whose id nobody has, is created in its turn, and begins with that where it can; `settle` is told what became of it."""
        if not self._line:
            self._loop.call_soon(self._pump, context=self._episodes.context)
        self._line.append((create, settle))

    def abandon(self, error: ReplayflowError) -> None:
        """Nobody begins any more."""
        line, self._line = self._line, deque()
        for _, settle in line:
            settle(None, error)

    def _pump(self) -> None:
        """Some of them begin; the rest of the loop gets its turn after that."""
        line = self._line
        try:
            for _ in range(min(len(line), _BEGUN_PER_TURN)):
                create, settle = line[0]
                if self.can_begin_at_once(create):
                    self._begin(create, settle)
                else:
                    self._committer.add(create, settle)
                line.popleft()
        except BaseException as error:
            # As in `Episodes._pump`: a KeyboardInterrupt of the user's, or a fault of ours. Who stands in line is told when the engine ends.
            self._fail(error)
            if not isinstance(error, Exception):
                raise
            return
        if line:
            self._loop.call_soon(self._pump, context=self._episodes.context)

    def _begin(self, create: Create, settle: Settle) -> None:
        """Creation and first episode travel in one transaction; where the first is refused, so is the second, which continues nothing then."""
        live = Live.of_start(create.start)
        step = self._episodes.episode(live)
        assert step is not None  # noqa: S101 - a first episode always has its start to write

        was_wanted = False

        def created(outcome: Outcome | None, error: ReplayflowError | None) -> None:
            nonlocal was_wanted
            if outcome is not None and outcome.started and live.id not in self._lives:
                was_wanted = self._memory.intake.unwant(live.id)
                self._lives[live.id] = live
                self._memory.warm.touch(live)
                outcome.started = []
            settle(outcome, error)

        def begun(outcome: Outcome | None, error: ReplayflowError | None) -> None:
            if self._lives.get(live.id) is live:
                step.settle(outcome, error)
                if was_wanted:
                    self._memory.reload_if_in(live)
                    self._memory.look_at(live.id)  # where it is parked by now, what has come for it may be a request
            else:
                self._memory.close_executor(live)

        self._committer.add(create, created)
        self._committer.add(step.operation, begun)
