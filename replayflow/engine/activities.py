"""Running activities: async ones in the event loop, plain ones in threads, those that ask for it in processes.

1. An activity is started only after its `TaskScheduled` is durable (I3): the engine calls `start` when the commit has returned.
2. Whatever happens to it, exactly one event comes of a run, or none where nobody waits any longer; the engine decides what it means (I4).
3. Each kind of executor has a limit of its own; what is above it waits its turn in the order of its start. Activities with limits of their own have a
   gate before that (`lines.py`); those without pay nothing for it.
"""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from datetime import timedelta
from functools import partial
from types import CoroutineType
from typing import Any, TypeAlias, cast

from replayflow.codec import Payload
from replayflow.core import events
from replayflow.core.definitions import Environment, Executor
from replayflow.core.events import HistoryEvent, TaskCompleted, TaskFailed, TaskScheduled
from replayflow.core.limiter import Allowance, Limiter, Quota, Rate
from replayflow.engine.failures import failed
from replayflow.engine.heartbeats import Pulse
from replayflow.engine.lines import Gate, Line
from replayflow.engine.processes import Place, ProcessDied, ProcessPool
from replayflow.engine.runners import DONE, Lane, Runners
from replayflow.engine.runs import Plan, Run
from replayflow.engine.threads import ThreadPool
from replayflow.engine.watch import Watch
from replayflow.errors import starved

_CLEAN_UP_SECONDS = 1.0
"""What a run that is over the grace has to come to an end, once it is told."""
Finished: TypeAlias = Callable[[Run, HistoryEvent], None]
Heard: TypeAlias = Callable[[Run, Payload, bool], bool]
"""`heartbeats.Told`, of runs."""


class Activities:
    """Runs what it is told to, and calls `finished(run, event)` in the event loop when it has ended.

    `told` hears of heartbeats; `is_held(instance_id)` says whether runs of the instance that wait behind a gate have to go on waiting. Where
    `is_first` is false, another worker may just have used up the rates that activities are limited to.
    """

    def __init__(
        self,
        environment: Environment,
        limits: dict[Executor, int],
        finished: Finished,
        told: Heard,
        is_held: Callable[[str], bool],
        is_first: bool,
    ) -> None:
        self._environment = environment
        self._codec = environment.codec
        self._finished = finished
        self._told = told
        self._is_held = is_held
        self._gates: list[Gate[Run]] = []
        self._quotas: dict[Quota, tuple[Allowance, deque[Gate[Run]]]] = {}
        self._lines: dict[Executor, Line[Run]] = {executor: Line(limit) for executor, limit in limits.items()}
        self._async = self._lines["async"]
        self._plans: dict[str, Plan] = {}
        self._runs: set[Run] = set()
        self._runners: Runners[Run] = Runners(lambda: cast("Lane[Run]", self._lane()), _waits_in)
        self._threads = ThreadPool()
        self._processes = ProcessPool()
        self.transact: Callable[[Run], Coroutine[Any, Any, HistoryEvent | None]] | None = None
        """Runs a transactional activity; where it succeeds its result travels by itself, and there is no event."""
        self._transactions: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._began_at = None if is_first else int(self._loop.time() * 1e6)
        self._is_stopping = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """How many activities are at work."""
        return sum(line.active for line in self._lines.values())

    @property
    def is_idle(self) -> bool:
        """Whether no activity is at work, and none waits for its turn."""
        return not self._runs and not self.running

    @property
    def has_line(self) -> bool:
        """Whether async activities are about to run."""
        return self._runners.has_line

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
        door = plan.door
        if door.active >= door.limit:
            door.wait(run)
        elif door is self._async:
            door.active += 1
            self._runners.put(run)
        else:
            self._begin(door, run)
        return run

    def plan_of(self, name: str) -> Plan:
        """How to call the activity."""
        return self._plans.get(name) or self._plan(name)

    def start_run(self, run: Run) -> None:
        """As `start`, for a run that somebody else has made."""
        if self._is_stopping:
            return
        self._runs.add(run)
        door = run.plan.door
        if door.active >= door.limit:
            door.wait(run)
        elif door is self._async:
            door.active += 1
            self._runners.put(run)
        else:
            self._begin(door, run)

    def _plan(self, name: str) -> Plan:
        definition = self._environment.activities[name]
        line = self._lines[definition.executor]
        plan = self._plans[name] = Plan(
            definition,
            definition.fn,
            self._codec.decoder(definition.input_type),
            f"result of activity '{name}'",
            line,
            line,
            definition.takes_input and not definition.takes_context,
            None if definition.heartbeat_timeout is None else definition.heartbeat_timeout.total_seconds(),
            self._new_pulse,
        )
        if definition.is_limited:
            plan.door = self._gate(plan)
        return plan

    def _gate(self, plan: Plan) -> Gate[Run]:
        definition = plan.definition
        concurrency, rate, key, quota = definition.concurrency, definition.rate, definition.key, definition.quota
        total, sharing = None, deque[Gate[Run]]()
        if quota is not None:
            if quota not in self._quotas:
                allowance = Allowance(quota.concurrency, quota.rate, self._opens_at(quota.rate))
                self._quotas[quota] = allowance, sharing
            total, sharing = self._quotas[quota]
        gate: Gate[Run] = Gate(
            plan.line,
            Limiter(concurrency, rate, self._opens_at(rate), total),
            sharing,
            (lambda _: None) if key is None else (lambda run: key(plan.decode(run.task.input))),
            self._begin,
            self._refuse,
            self._is_held,
            self._loop,
        )
        sharing.append(gate)
        self._gates.append(gate)
        return gate

    def _opens_at(self, rate: Rate | None) -> int | None:
        """Until when the rate may be used up by another worker that ran before."""
        if rate is None or self._began_at is None:
            return None
        return self._began_at + rate.per // timedelta(microseconds=1)

    def _new_pulse(self, run: Run) -> Pulse[Run]:
        return Pulse(run, self._codec, self._loop, self._told)

    def cancel(self, run: Run) -> None:
        """Nobody waits for the activity any longer: an async one is cancelled, a thread sees `cancelled`; nothing comes of it."""
        if run in self._runs:
            self._runs.discard(run)
            run.is_abandoned = True
            self._interrupt(run)

    def rejoin(self, instance_id: str) -> None:
        """The instance is suspended no longer: its runs that were set aside are in line again."""
        for gate in self._gates:
            gate.rejoin(instance_id)

    def at_work_for(self, instance_id: str, execution_id: str) -> dict[int, Run]:
        """What runs for the execution, by task id; calls of maps are their windows' own.

        Looks at all that runs: for an instance that comes back from being parked, or was rewound, and no other.
        """
        return {
            run.task.event_id: run
            for run in self._runs
            if type(run) is Run and run.instance_id == instance_id and run.execution_id == execution_id
        }

    async def stop(self, grace_seconds: float) -> None:
        """Nothing is started any more; what runs has so long to end, and is abandoned then."""
        self._is_stopping = True
        for gate in self._gates:
            gate.close()
        for line in self._lines.values():
            line.waiting.clear()
        if self.running:
            self._idle.clear()
            await self._idle_within(grace_seconds)
        if self.running and self._runs:
            for run in sorted(self._runs, key=lambda run: (run.idempotency_key, run.attempt)):
                if run.watch is not None and run.watch.pulse is not None:
                    run.watch.pulse.flush()
                run.is_abandoned = True
                self._interrupt(run)
            await self._idle_within(_CLEAN_UP_SECONDS)
        for transaction in self._transactions:
            transaction.cancel()
        if self._transactions:
            await asyncio.wait(self._transactions, timeout=_CLEAN_UP_SECONDS)
        await self._runners.close()
        self._runs.clear()
        self._threads.close()
        await self._processes.close()

    async def _idle_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass

    # ---- one run

    def _begin(self, line: Line[Run], run: Run) -> None:
        line.active += 1
        plan = run.plan
        executor = plan.definition.executor
        if executor == "async":
            self._runners.put(run)
            return
        if executor == "transaction":
            # Not the run's handle: who is cancelled before it begins would never give its place back.
            task = self._loop.create_task(self._run_in_transaction(line, run), name="replayflow transaction")
            self._transactions.add(task)
            task.add_done_callback(self._transactions.discard)
            return
        try:
            if executor == "thread":
                if run.task.timeout_microseconds is not None or plan.heartbeat_seconds is not None:
                    self._limit(run)
                self._threads.submit(lambda: self._run_in_thread(line, run))
            else:
                future = self._in_process(run)
                run.handle = future
                future.add_done_callback(lambda done: self._tell(line, run, self._of_process(run, done)))
        except (OSError, RuntimeError, MemoryError) as error:  # no more threads, or none of what a process needs
            self._tell(line, run, failed(run.task.event_id, starved(error) or error))

    def _in_process(self, run: Run) -> Future[Any]:
        definition = run.plan.definition
        place = None
        if definition.takes_context:
            place = Place(run.instance_id, run.task.event_id, run.attempt, run.idempotency_key, run.name, run.told)
        is_heard = place is not None or run.task.timeout_microseconds is not None
        hears = partial(self._hear, run) if is_heard else None
        return self._processes.submit(definition, run.task.input, self._codec.payload_bytes_max, place, hears)

    def _hear(self, run: Run, detail: Payload) -> None:
        """Something comes from a process, in a thread of ours. The first thing says that the function begins: its time is not that of the process."""
        pulse = run.plan.pulse_of(run)
        if not pulse.is_heard:
            pulse.is_heard = True
            try:
                self._loop.call_soon_threadsafe(self._limit, run)
            except RuntimeError:
                return  # the event loop is gone
        pulse.take(detail)

    def _limit(self, run: Run) -> None:
        """The time limits of a run in a thread or a process begin."""
        if run not in self._runs:
            return
        seconds, silence = run.task.timeout_microseconds, run.plan.heartbeat_seconds
        watch = run.watch
        if watch is None:
            watch = run.watch = Watch()
        if seconds is not None:
            watch.timeout = self._loop.call_later(seconds / 1e6, self._time_out, run, _too_long(run))
        if silence is not None:
            pulse = run.plan.pulse_of(run)
            self._listen(run, pulse, silence, lambda: self._time_out(run, _too_silent(run)))

    def _listen(self, run: Run, pulse: Pulse[Run], seconds: float, stopped: Callable[[], None]) -> None:
        """Calls `stopped` when the heart has not beaten for so long."""
        left = pulse.beaten_at + seconds - self._loop.time()
        if left <= 0:
            stopped()
        elif run.watch is not None:
            run.watch.silence = self._loop.call_later(left, self._listen, run, pulse, seconds, stopped)

    @types.coroutine
    def _lane(self) -> Generator[Any, Any, None]:
        """Async runs, one after the other."""
        while True:
            run: Run = yield DONE
            event: HistoryEvent | None = None
            called: Any = None
            plan, task = run.plan, run.task
            try:
                if not run.is_abandoned:
                    if task.timeout_microseconds is not None:
                        called = self._within(run, plan)
                    elif plan.takes_just_input:
                        fn, decode = plan.fn, plan.decode  # a slot is read five times as fast as it is called
                        called = fn(decode(task.input))
                    elif plan.heartbeat_seconds is not None:
                        called = self._within(run, plan)
                    else:
                        called = plan.fn(*plan.arguments(run))
                    is_coroutine = type(called) is CoroutineType
                    called = called if is_coroutine else _awaited(called)
                    event = TaskCompleted(task.event_id, self._codec.encode((yield from called), plan.result_of))
            except BaseException as error:
                event = self._failure(run, error)
                if event is None or isinstance(error, GeneratorExit):
                    raise
            finally:
                self._end(plan.line, run, event)
            del run, task, event, called  # or what they were would be kept until something else comes

    def _failure(self, run: Run, error: BaseException) -> HistoryEvent | None:
        """What the attempt came to that raised the error: the runner serves others, whatever this activity raises. None where it is to be raised."""
        if isinstance(error, KeyboardInterrupt):
            return None
        if isinstance(error, asyncio.CancelledError | GeneratorExit) and (run.is_abandoned or self._is_stopping):
            return None
        return failed(run.task.event_id, error)  # also where the activity cancelled itself

    async def _within(self, run: Run, plan: Plan) -> Any:
        """What the function returns within its time limits."""
        timeout, silence = run.task.timeout_microseconds, plan.heartbeat_seconds
        limit = asyncio.timeout(None if timeout is None else timeout / 1e6)
        error = _too_long(run)

        def stopped() -> None:
            nonlocal error
            if not limit.expired():
                error = _too_silent(run)
                limit.reschedule(self._loop.time())

        try:
            async with limit:
                if silence is not None:
                    self._listen(run, plan.pulse_of(run), silence, stopped)
                return await plan.fn(*plan.arguments(run))
        except TimeoutError as expired:
            if limit.expired():
                raise error from expired
            raise
        finally:
            if run.watch is not None and run.watch.silence is not None:
                run.watch.silence.cancel()

    async def _run_in_transaction(self, line: Line[Run], run: Run) -> None:
        assert self.transact is not None  # noqa: S101 - set by the engine before anything is started
        event: HistoryEvent | None = None
        try:
            if not run.is_abandoned:
                event = await self.transact(run)
        finally:
            self._end(line, run, event)

    def _run_in_thread(self, line: Line[Run], run: Run) -> None:
        event: HistoryEvent
        try:
            result = run.plan.fn(*run.plan.arguments(run))
            event = TaskCompleted(run.task.event_id, self._codec.encode(result, run.plan.result_of))
        except BaseException as error:  # the thread serves others, whatever this activity raises
            event = failed(run.task.event_id, error)
        self._tell(line, run, event)

    def _of_process(self, run: Run, done: Any) -> HistoryEvent:
        try:
            succeeded, payload, detail = done.result()
        except BrokenProcessPool:
            died = f"the process of activity '{run.task.name}' died before the activity had ended"
            return failed(run.task.event_id, ProcessDied(died))
        except BaseException as error:  # a pool that closed, or a result that did not get across
            return failed(run.task.event_id, error)
        if succeeded:
            return TaskCompleted(run.task.event_id, payload)
        if detail is not None:
            run.plan.pulse_of(run).take(detail)
        (event,) = events.decode(payload)
        assert isinstance(event, TaskFailed)  # noqa: S101 - so the child has it
        event.task_scheduled_id = run.task.event_id
        return event

    def _time_out(self, run: Run, error: TimeoutError) -> None:
        """The attempt has failed. A process is killed; a function in a thread runs on in its place, and what it returns is nobody's."""
        self._refuse(run, error)
        self._interrupt(run)

    def _refuse(self, run: Run, error: BaseException) -> None:
        """The attempt has failed, whatever becomes of the function."""
        if run in self._runs:
            self._runs.discard(run)
            if run.watch is not None and run.watch.pulse is not None:
                run.watch.pulse.flush()
            run.is_abandoned = True
            self._finished(run, failed(run.task.event_id, error))

    def _interrupt(self, run: Run) -> None:
        """Whoever does the work is told that nobody waits for it: a task by its cancellation, a process by its end."""
        handle = run.handle
        if isinstance(handle, asyncio.Task):
            handle.cancel()
        elif handle is not None:
            self._processes.end(handle)

    def _tell(self, line: Line[Run], run: Run, event: HistoryEvent) -> None:
        try:
            self._loop.call_soon_threadsafe(self._end, line, run, event)
        except RuntimeError:
            pass  # the event loop is gone, and with it whoever wanted to know

    def _end(self, line: Line[Run], run: Run, event: HistoryEvent | None) -> None:
        line.active -= 1
        if line.waiting:
            self._begin_next(line)
        elif self._is_stopping and not self.running:
            self._idle.set()
        if run.watch is not None:
            _close(run.watch, has_failed=type(event) is TaskFailed and not run.is_abandoned)
        if not run.is_abandoned:
            self._runs.discard(run)
            if event is not None:
                finished = self._finished  # read, and then called: as in the lane
                finished(run, event)

    def _begin_next(self, line: Line[Run]) -> None:
        while line.waiting and line.active < line.limit:
            entry = line.waiting.popleft()
            if isinstance(entry, Gate):
                entry.turn()
            elif not entry.is_abandoned:
                self._begin(line, entry)


def _close(watch: Watch, *, has_failed: bool) -> None:
    """The run that was watched has ended."""
    if watch.timeout is not None:
        watch.timeout.cancel()
    if watch.silence is not None:
        watch.silence.cancel()
    if watch.pulse is not None:
        if has_failed:
            watch.pulse.flush()
        watch.pulse.close()
    if watch.leave is not None:
        watch.leave()


async def _awaited(called: Awaitable[Any]) -> Any:
    """Something that can be awaited, as a coroutine; what cannot be is refused as anywhere."""
    return await called


def _too_long(run: Run) -> TimeoutError:
    seconds = (run.task.timeout_microseconds or 0) / 1e6
    return TimeoutError(f"activity '{run.name}' took longer than its timeout of {seconds:g} s")


def _too_silent(run: Run) -> TimeoutError:
    return TimeoutError(
        f"activity '{run.name}' gave no heartbeat for longer than its heartbeat_timeout of {run.plan.heartbeat_seconds:g} s"
    )


def _waits_in(run: Run, task: asyncio.Task[None]) -> None:
    """Who has to be cancelled to cancel the run. One that does not wait cannot be cancelled, and needs nobody."""
    run.handle = task
