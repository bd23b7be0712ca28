"""Running activities: async ones in the event loop, plain ones in threads, those that ask for it in processes.

1. An activity is started only after its `TaskScheduled` is durable (I3): the engine calls `start` when the commit has returned.
2. Whatever happens to it, exactly one event comes of a run, or none where nobody waits any longer; the engine decides what it means (I4).
3. Each kind of executor has a limit of its own; what is above it waits its turn in the order of its start.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeAlias

from msgspec import Struct

from replayflow.core import rows
from replayflow.core.context import ActivityContext
from replayflow.core.definitions import ActivityDefinition, Environment, Executor
from replayflow.core.events import HistoryEvent, TaskCompleted, TaskFailed, TaskScheduled
from replayflow.engine.processes import ProcessDied, ProcessPool
from replayflow.engine.runners import Runners
from replayflow.engine.threads import ThreadPool
from replayflow.errors import FailureDetails, RetryAfter


class Run(Struct, eq=False):
    """One attempt of one activity."""

    instance_id: str
    execution_id: str
    task: TaskScheduled
    plan: Plan
    attempt: int
    is_abandoned: bool = False
    handle: asyncio.Task[None] | asyncio.TimerHandle | None = None

    def context(self) -> ActivityContext:
        return ActivityContext(
            instance_id=self.instance_id,
            task_id=self.task.event_id,
            attempt=self.attempt,
            idempotency_key=f"{self.instance_id}/{self.execution_id}/{self.task.event_id}",
            name=self.task.name,
            is_cancelled=lambda: self.is_abandoned,
        )


Finished: TypeAlias = Callable[[Run, HistoryEvent], None]


@dataclass(slots=True)
class Plan:
    """How to call one activity, worked out once."""

    definition: ActivityDefinition
    decode: Callable[[Any], Any]
    result_of: str
    line: _Line
    takes_just_input: bool

    def arguments(self, run: Run) -> tuple[Any, ...]:
        """What the function is called with."""
        definition = self.definition
        if definition.takes_input:
            value = self.decode(run.task.input)
            return (run.context(), value) if definition.takes_context else (value,)
        return (run.context(),) if definition.takes_context else ()


class _Line:
    """What runs with one kind of executor, and what waits for a place."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.active = 0
        self.waiting: deque[Run] = deque()


class Activities:
    """Runs what it is told to, and calls `finished(run, event)` in the event loop when it has ended."""

    def __init__(self, environment: Environment, limits: dict[Executor, int], finished: Finished) -> None:
        self._environment = environment
        self._codec = environment.codec
        self._finished = finished
        self._lines: dict[Executor, _Line] = {executor: _Line(limit) for executor, limit in limits.items()}
        self._async = self._lines["async"]
        self._plans: dict[str, Plan] = {}
        self._runs: set[Run] = set()
        self._runners: Runners[Run] = Runners(self._run_async, _waits_in)
        self._threads = ThreadPool()
        self._processes = ProcessPool()
        self.transact: Callable[[Run], Coroutine[Any, Any, HistoryEvent | None]] | None = None
        """Runs a transactional activity; where it succeeds its result travels by itself, and there is no event."""
        self._transactions: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._is_stopping = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """How many activities are at work."""
        return sum(line.active for line in self._lines.values())

    def start(
        self,
        instance_id: str,
        execution_id: str,
        task: TaskScheduled,
        attempt: int,
    ) -> Run:
        """The activity runs as soon as there is a place for it. While stopping nothing is started: it is durable, and runs some other day."""
        plan = self._plans.get(task.name) or self._plan(task.name)
        run = Run(instance_id, execution_id, task, plan, attempt)
        if self._is_stopping:
            return run
        self._runs.add(run)
        line = plan.line
        if line.active >= line.limit:
            line.waiting.append(run)
        elif line is self._async:
            line.active += 1
            self._runners.put(run)
        else:
            self._begin(line, run)
        return run

    def plan_of(self, name: str) -> Plan:
        """How to call the activity."""
        return self._plans.get(name) or self._plan(name)

    def start_run(self, run: Run) -> None:
        """As `start`, for a run that somebody else has made."""
        if self._is_stopping:
            return
        self._runs.add(run)
        line = run.plan.line
        if line.active >= line.limit:
            line.waiting.append(run)
        elif line is self._async:
            line.active += 1
            self._runners.put(run)
        else:
            self._begin(line, run)

    def _plan(self, name: str) -> Plan:
        definition = self._environment.activities[name]
        plan = self._plans[name] = Plan(
            definition,
            self._codec.decoder(definition.input_type),
            f"result of activity '{name}'",
            self._lines[definition.executor],
            definition.takes_input and not definition.takes_context,
        )
        return plan

    def cancel(self, run: Run) -> None:
        """Nobody waits for the activity any longer: an async one is cancelled, a thread sees `cancelled`; nothing comes of it."""
        if run in self._runs:
            self._runs.discard(run)
            run.is_abandoned = True
            if isinstance(run.handle, asyncio.Task):
                run.handle.cancel()

    def at_work_for(self, instance_id: str, execution_id: str) -> dict[int, Run]:
        """What runs for the execution, by task id. Looks at all that runs: for an instance that comes back from being parked, and no other."""
        return {
            run.task.event_id: run
            for run in self._runs
            if run.instance_id == instance_id and run.execution_id == execution_id
        }

    async def stop(self, grace_seconds: float) -> None:
        """Nothing is started any more; what runs has so long to end, and is abandoned then."""
        self._is_stopping = True
        for line in self._lines.values():
            line.waiting.clear()
        if self.running:
            self._idle.clear()
            try:
                async with asyncio.timeout(grace_seconds):
                    await self._idle.wait()
            except TimeoutError:
                pass
        leftover = [run.handle for run in self._runs if isinstance(run.handle, asyncio.Task)]
        leftover += self._transactions
        for run in self._runs:
            run.is_abandoned = True
        for handle in leftover:
            handle.cancel()
        if leftover:
            await asyncio.wait(leftover, timeout=1)
        await self._runners.close()
        self._runs.clear()
        self._threads.close()
        await self._processes.close()

    # ---- one run

    def _begin(self, line: _Line, run: Run) -> None:
        line.active += 1
        executor = run.plan.definition.executor
        if executor == "async":
            self._runners.put(run)
            return
        if executor == "transaction":
            # Not the run's handle: who is cancelled before it begins would never give its place back.
            task = self._loop.create_task(self._run_in_transaction(line, run), name="replayflow transaction")
            self._transactions.add(task)
            task.add_done_callback(self._transactions.discard)
            return
        timeout = run.task.timeout_microseconds
        if timeout is not None:
            run.handle = self._loop.call_later(timeout / 1e6, self._time_out, run)
        if executor == "thread":
            self._threads.submit(lambda: self._run_in_thread(line, run))
        else:
            future = self._processes.submit(run.plan.definition, run.task.input, self._codec.payload_bytes_max)
            future.add_done_callback(lambda done: self._tell(line, run, self._of_process(run, done)))

    async def _run_async(self, run: Run) -> None:
        event: HistoryEvent | None = None
        plan, task = run.plan, run.task
        try:
            if run.is_abandoned:
                return
            if task.timeout_microseconds is not None:
                result = await self._within(run, plan)
            elif plan.takes_just_input:
                result = await plan.definition.fn(plan.decode(task.input))
            else:
                result = await plan.definition.fn(*plan.arguments(run))
            event = TaskCompleted(task.event_id, self._codec.encode(result, plan.result_of))
        except (asyncio.CancelledError, GeneratorExit) as error:
            if run.is_abandoned or self._is_stopping:
                raise
            event = failure_of(task.event_id, error)  # the activity cancelled itself
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the runner serves others, whatever this activity raises
            event = failure_of(task.event_id, error)
        finally:
            self._end(plan.line, run, event)

    async def _within(self, run: Run, plan: Plan) -> Any:
        seconds = (run.task.timeout_microseconds or 0) / 1e6
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await plan.definition.fn(*plan.arguments(run))
        except TimeoutError as error:
            if limit.expired():
                raise TimeoutError(
                    f"activity '{run.task.name}' took longer than its timeout of {seconds:g} s"
                ) from error
            raise

    async def _run_in_transaction(self, line: _Line, run: Run) -> None:
        assert self.transact is not None  # noqa: S101 - set by the engine before anything is started
        event: HistoryEvent | None = None
        try:
            if not run.is_abandoned:
                event = await self.transact(run)
        finally:
            self._end(line, run, event)

    def _run_in_thread(self, line: _Line, run: Run) -> None:
        event: HistoryEvent
        try:
            result = run.plan.definition.fn(*run.plan.arguments(run))
            event = TaskCompleted(run.task.event_id, self._codec.encode(result, run.plan.result_of))
        except BaseException as error:  # the thread serves others, whatever this activity raises
            event = failure_of(run.task.event_id, error)
        self._tell(line, run, event)

    def _of_process(self, run: Run, done: Any) -> HistoryEvent:
        try:
            succeeded, payload = done.result()
        except BrokenProcessPool:
            died = f"the process of activity '{run.task.name}' died before the activity had ended"
            return failure_of(run.task.event_id, ProcessDied(died))
        except BaseException as error:  # a pool that closed, or a result that did not get across
            return failure_of(run.task.event_id, error)
        if succeeded:
            return TaskCompleted(run.task.event_id, payload)
        return TaskFailed(run.task.event_id, rows.decode_failure(payload))

    def _time_out(self, run: Run) -> None:
        """The attempt has failed; the function runs on, its place is taken until it ends, and what it returns is nobody's."""
        if run in self._runs:
            self._runs.discard(run)
            run.is_abandoned = True
            seconds = (run.task.timeout_microseconds or 0) / 1e6
            error = TimeoutError(f"activity '{run.task.name}' took longer than its timeout of {seconds:g} s")
            self._finished(run, failure_of(run.task.event_id, error))

    def _tell(self, line: _Line, run: Run, event: HistoryEvent) -> None:
        try:
            self._loop.call_soon_threadsafe(self._end, line, run, event)
        except RuntimeError:
            pass  # the event loop is gone, and with it whoever wanted to know

    def _end(self, line: _Line, run: Run, event: HistoryEvent | None) -> None:
        line.active -= 1
        if line.waiting:
            self._begin_next(line)
        elif self._is_stopping and not self.running:
            self._idle.set()
        if run.handle is not None and isinstance(run.handle, asyncio.TimerHandle):
            run.handle.cancel()
        if not run.is_abandoned:
            self._runs.discard(run)
            if event is not None:
                self._finished(run, event)

    def _begin_next(self, line: _Line) -> None:
        while line.waiting and line.active < line.limit:
            run = line.waiting.popleft()
            if not run.is_abandoned:
                self._begin(line, run)


def _waits_in(run: Run, task: asyncio.Task[None]) -> None:
    """Who has to be cancelled to cancel the run. One that does not wait cannot be cancelled, and needs nobody."""
    run.handle = task


def failure_of(task_id: int, error: BaseException) -> TaskFailed:
    """The failed attempt as an event."""
    retry_after = int(error.seconds * 1_000_000) if isinstance(error, RetryAfter) else None
    details = FailureDetails.of(error)
    return TaskFailed(task_id, details, retry_after)
