"""What every worker has beside its app: the orchestrator of schedules, and the activity that a saga waits for until it is mended."""

from __future__ import annotations

from replayflow.core.activity_context import ActivityContext
from replayflow.core.definitions import ActivityDefinition
from replayflow.core.saga import MENDING
from replayflow.errors import NonRetryableError
from replayflow.patterns.schedule import DEFINITION
from replayflow.registry import App


async def mending(ctx: ActivityContext, failure: str) -> None:
    """Fails at the first attempt, which parks the instance; that there is another one means that somebody has resumed it."""
    if ctx.attempt == 1:
        raise NonRetryableError(failure)


_MENDING = ActivityDefinition(
    MENDING, mending, "async", takes_context=True, takes_input=True, input_type=str, result_type=None
)


def add_built_ins(app: App) -> App:
    """The app, which has them now, too."""
    app.activities.setdefault(MENDING, _MENDING)
    app.orchestrators.add(DEFINITION)
    return app
