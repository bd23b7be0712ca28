"""What an episode comes to: the commit, and what follows once it is durable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeAlias

from msgspec import Struct

from replayflow.core.commit import Commit, Message, Start
from replayflow.core.events import (
    HistoryEvent,
    SubOrchestrationRetried,
    TaskScheduled,
)
from replayflow.core.instance import Alarm
from replayflow.core.map.mapping import OpenMap


class Episode(Struct, eq=False):
    """What an episode came to: the commit, and what to do once it is durable.

    `held` is what was not taken because the instance is suspended; `retried` are children that begin anew; `mapped` are the maps that
    something has happened to. Where there is a `problem` the instance is to be parked with it, once the commit is durable. `removes` says that
    this is an entity which goes.
    """

    commit: Commit | None = None
    held: list[HistoryEvent] = []
    scheduled: list[TaskScheduled] = []
    canceled: list[int] = []
    mapped: list[OpenMap] = []
    alarms: list[Alarm] = []
    retried: list[SubOrchestrationRetried] = []
    starts: list[Start] = []
    messages: list[Message] = []
    problem: str | None = None
    removes: bool = False


class PlainEpisode(Struct, eq=False):
    """An `Episode` in which results of activities came in and activities were asked for, and nothing else: what nearly every one is."""

    commit: Commit
    scheduled: list[TaskScheduled]
    held: ClassVar[Sequence[HistoryEvent]] = ()
    canceled: ClassVar[Sequence[int]] = ()
    mapped: ClassVar[Sequence[OpenMap]] = ()
    alarms: ClassVar[Sequence[Alarm]] = ()
    retried: ClassVar[Sequence[SubOrchestrationRetried]] = ()
    starts: ClassVar[Sequence[Start]] = ()
    messages: ClassVar[Sequence[Message]] = ()
    problem: ClassVar[str | None] = None
    removes: ClassVar[bool] = False


AnyEpisode: TypeAlias = Episode | PlainEpisode
