"""The live line of `run`: one line on stderr that says how far an instance is; nothing where stderr is no terminal."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

from replayflow.cli import output, values
from replayflow.client import InstanceState
from replayflow.core import events
from replayflow.core.events import HistoryEvent
from replayflow.core.map.progress import MapStates


@dataclass(frozen=True, slots=True)
class Count:
    """How many activities the present execution has scheduled, and how many of them have ended; and the same of the items of its maps."""

    done: int
    scheduled: int
    items_done: int = 0
    items: int = 0


async def count(history: AsyncIterable[HistoryEvent]) -> Count:
    """The activities in a history, and the items of its maps."""
    scheduled: set[int] = set()
    ended: set[int] = set()
    states = MapStates()
    async for event in history:
        states.take(event)
        if isinstance(event, events.TaskScheduled):
            scheduled.add(event.event_id)
        elif isinstance(event, events.TaskCompleted | events.TaskFailed | events.TaskCanceled):
            ended.add(event.task_scheduled_id)
    maps = states.now()
    items_done = sum(one.done + one.failed for one in maps)
    return Count(len(scheduled & ended), len(scheduled), items_done, sum(one.total for one in maps))


class ProgressLine:
    """The line. While it is there, what others print appears above it; `close` takes it away, and may be called twice."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        self._began = time.monotonic()
        self._state: InstanceState | None = None
        self._count = Count(0, 0)
        self._spinner = Spinner("dots")
        self._live: Live = Live(
            console=Console(stderr=True, markup=False, highlight=False, emoji=False),
            get_renderable=self._render,
            refresh_per_second=8,
            transient=True,
        )
        self._live.start()

    def show(self, state: InstanceState, count: Count) -> None:
        self._state, self._count = state, count

    def close(self) -> None:
        self._live.stop()

    def _render(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        line = Table.grid(padding=(0, 2, 0, 0), expand=True)
        cells: list[RenderableType] = [self._spinner, *self._texts()]
        for _ in cells:
            line.add_column(no_wrap=True)
        line.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        custom_status = None if self._state is None else self._state.custom_status
        line.add_row(*cells, Text(values.one_line(values.plain(custom_status)), style="dim"))
        return line

    def _texts(self) -> list[Text]:
        from rich.text import Text

        elapsed = values.duration(timedelta(seconds=round(time.monotonic() - self._began, 1)))
        if self._state is None:
            return [Text("starting"), Text(elapsed)]
        activities = f"activities {self._count.done}/{self._count.scheduled}"
        counts = [Text(activities)] if self._count.scheduled or not self._count.items else []
        if self._count.items:
            counts.append(Text(f"items {self._count.items_done:,}/{self._count.items:,}"))
        return [
            Text(output.printable(self._state.name), style="bold"),
            *counts,
            Text(elapsed),
            output.status(self._state),
        ]
