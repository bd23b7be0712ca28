"""What an execution has under way that another one asked for: after a rewind the tasks are the same, and so are the keys under which they run."""

from __future__ import annotations

from replayflow.core.events import TaskScheduled
from replayflow.core.origins import key_scope
from replayflow.engine.activities import Activities
from replayflow.engine.live import Live
from replayflow.engine.runs import Run


def start_inherited(live: Live, task: TaskScheduled, activities: Activities, attempt: int) -> bool:
    """Whether the task was inherited. If so it runs, under the key that it had."""
    started = live.instance.started
    scope = None if started is None else key_scope(started, task.event_id)
    if scope is None:
        return False
    plan = activities.plan_of(task.name)
    told = live.instance.heartbeats.get(task.event_id)
    key = f"{scope}/{task.event_id}"
    run = Run(live.id, live.execution_id, task, plan, attempt, told=told, inherited_key=key)
    live.running[task.event_id] = run
    activities.start_run(run)
    return True


def adopt(live: Live, activities: Activities) -> None:
    """What still runs for the execution that was rewound, and is open once more, runs for this one: nobody does it twice."""
    started = live.instance.started
    origin = started.origins[-1] if started is not None and started.origins else None
    if origin is None or origin.instance_id != live.id:
        return
    for id, run in activities.at_work_for(live.id, origin.execution_id).items():
        if id <= origin.last_id and id in live.instance.tasks and id not in live.running:
            run.inherited_key = run.idempotency_key  # it may not have begun, and asks for its key when it does
            run.execution_id = live.execution_id
            live.running[id] = run
            live.owing = live.owing - {(origin.execution_id, id)}
