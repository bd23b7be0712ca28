"""Maps at work: which calls of which instance run here, and what becomes of their ends.

A call that ends makes room for the next at once; that its result becomes durable is another matter, and goes on beside it. The order of things is in
`docs/decisions/0007-map.md`, what is due in `core/map/mapping.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from replayflow.codec import Codec
from replayflow.core.events import (
    HistoryEvent,
    MapDrained,
    MapItemFailed,
    MapPage,
    MapProgress,
    MapRetried,
    TaskCompleted,
    TaskFailed,
)
from replayflow.core.instance import Alarm, Status
from replayflow.core.map.blocks import encode_items
from replayflow.core.map.mapping import PAGE, OpenMap
from replayflow.core.nothing import NOTHING
from replayflow.core.origins import key_scope
from replayflow.engine.activities import Activities
from replayflow.engine.live import Live
from replayflow.engine.windows import CallRun, Window
from replayflow.errors import FailureDetails, ReplayflowError


class Maps:
    """Runs the calls of open maps. `enqueue(live)` is told of news in a mailbox, `post(run, event)` of an end that finds nobody in."""

    def __init__(
        self,
        codec: Codec,
        activities: Activities,
        enqueue: Callable[[Live], None],
        post: Callable[[CallRun, HistoryEvent], None],
    ) -> None:
        self._codec = codec
        self._activities = activities
        self._enqueue = enqueue
        self._post = post

    def follow(self, live: Live, maps: Iterable[OpenMap]) -> None:
        """The windows of these maps are where the fold, which is durable, says."""
        for open in maps:
            if live.instance.maps.get(open.id) is not open:
                self._close(live, open.id)
            elif live.instance.status is not Status.SUSPENDED and not live.instance.is_finished:
                window = live.windows.get(open.id)
                if window is None and not open.is_stopping:
                    window = self._window(live, open)
                if window is not None:
                    window.follow(open, live.mailbox, live.numbers)
                    self._slide(live, window)
                    self._start(window.next_page())
                if open.is_stopping:
                    self._drain(live, open, window)

    def end(self, live: Live) -> None:
        """The execution is over, and its maps with it."""
        for id in list(live.windows):
            self._close(live, id)

    def ring(self, live: Live, alarm: Alarm) -> None:
        """The wait of some calls is over. A suspended instance does not hear it; its alarms are set again when it is resumed."""
        if live.instance.status is Status.SUSPENDED:
            return
        open = live.instance.maps[alarm.id]
        waiting = open.rings[alarm.at]
        children = sorted(waiting - {PAGE}) if open.scheduled.is_orchestrator else []
        if children:
            live.mailbox.append(MapRetried(open.id, children))
            self._enqueue(live)
        window = live.windows.get(open.id)
        if window is None:
            return
        if not open.scheduled.is_orchestrator:
            window.due.ring(alarm.at)
            self._slide(live, window)
        if PAGE in waiting:
            self._start(window.page_again())

    def has_run(self, live: Live | None, run: CallRun, event: HistoryEvent) -> None:
        """A call has ended: its result gathers with the others, and the next one starts."""
        window, number = run.window, run.number
        window.ended(run)
        if live is None:
            self._post(run, self._alone(run, event))
        elif live.execution_id != run.execution_id or live.instance.is_finished:
            return
        elif number == PAGE or live.windows.get(window.open.id) is not window:
            # A page, or the end of a call from before the instance was set aside: the fold drops what it has.
            live.mailbox.append(self._alone(run, event))
            self._enqueue(live)
        else:
            self._gather(live, window, run, event)
            self._slide(live, window)
        if window.open.is_stopping and live is not None and live.windows.get(window.open.id) is window:
            self._drain(live, window.open, window)

    def _drain(self, live: Live, open: OpenMap, window: Window | None) -> None:
        """A map that is stopping is over when nothing is at work for it. Said twice it is taken in once."""
        if not open.at_work and (window is None or not window.under_way()):
            live.mailbox.append(MapDrained(open.id))
            self._enqueue(live)

    def _gather(self, live: Live, window: Window, run: CallRun, event: Any) -> None:
        progress, is_new = window.gathering(live.mailbox)
        if type(event) is TaskCompleted:
            progress.numbers.append(run.number)
            progress.results.append(event.result)
            if event.result is not None:
                window.count(len(event.result))
        else:
            progress.failures.append(_failure(run, event))
        if is_new:
            self._enqueue(live)

    def _slide(self, live: Live, window: Window) -> None:
        """As many calls run as may."""
        if live.instance.status is Status.SUSPENDED or live.instance.is_finished:
            return
        while (run := window.next()) is not None:
            self._activities.start_run(run)

    def _start(self, run: CallRun | None) -> None:
        if run is not None:
            self._activities.start_run(run)

    def _window(self, live: Live, open: OpenMap) -> Window | None:
        scheduled = open.scheduled
        plan = None if scheduled.is_orchestrator else self._activities.plan_of(scheduled.name)
        page = None if scheduled.pages is None else self._activities.plan_of(scheduled.pages)
        if plan is None and page is None:
            return None  # children run by themselves
        if live.windows is NOTHING:
            live.windows = {}
        window = live.windows[open.id] = Window(live.id, live.execution_id, open, plan, page, live.mailbox)
        started = live.instance.started
        if started is not None and started.origins:
            window.scope = key_scope(started, open.id) or window.scope
        return window

    def _close(self, live: Live, id: int) -> None:
        window = live.windows.pop(id, None)
        if window is not None:
            for run in window.under_way():
                self._activities.cancel(run)

    def _alone(self, run: CallRun, event: HistoryEvent) -> MapProgress | MapPage:
        """The end of a call as an event of its own."""
        map_id = run.task.event_id
        if isinstance(event, TaskFailed):
            return MapProgress(map_id, [], [], [_failure(run, event)])
        assert isinstance(event, TaskCompleted)  # noqa: S101 - a run ends in one way or the other
        if run.number != PAGE:
            return MapProgress(map_id, [run.number], [event.result], [])
        try:
            return self._page(run, event.result)
        except ReplayflowError as error:
            details = FailureDetails.of(error)
            return MapProgress(map_id, [], [], [MapItemFailed(PAGE, run.attempt, details)])

    def _page(self, run: CallRun, payload: bytes | None) -> MapPage:
        """The page that an activity returned.

        Raises:
            PayloadError: it is no page, or too large.
        """
        scheduled = run.window.open.scheduled
        items, cursor = self._codec.decode(payload, tuple[list[Any], Any], f"page of activity '{run.task.name}'")
        blocks = encode_items(self._codec, items, scheduled.batch_size, f"map of '{scheduled.name}'")
        number = run.window.open.pages
        next_cursor = self._codec.encode(cursor, "cursor of the next page")
        return MapPage(scheduled.event_id, number, blocks, len(items), next_cursor, scheduled.batch_size)


def _failure(run: CallRun, event: HistoryEvent) -> MapItemFailed:
    assert isinstance(event, TaskFailed)  # noqa: S101 - a run ends in one way or the other
    return MapItemFailed(
        run.number, run.attempt, event.failure_details, retry_after_microseconds=event.retry_after_microseconds
    )
