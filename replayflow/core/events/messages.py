"""What instances that are not parent and child have to do with each other: events, starts, requests to end."""

from __future__ import annotations

from replayflow.core.events.base import Decided, Fact, Payload, Unnumbered


class EventSent(Decided, tag=16):
    """An event was sent to another instance."""

    instance_id: str
    name: str
    input: Payload = None
    site: str = ""


class EventRaised(Fact, tag=17):
    """An event came from outside."""

    name: str
    input: Payload = None


class InstanceStarted(Unnumbered, tag=131):
    """An instance was started that is nobody's child; where its id was taken, nothing was. Its input stands in its own history."""

    instance_id: str
    name: str
    execution_id: str = ""
    version: str | None = None
    end_event: str = ""


class InstanceAsked(Unnumbered, tag=132):
    """Another instance was asked to end; `request` is "cancel" or "terminate". Where it is a child it is named by its task, which stays open."""

    instance_id: str
    request: str
    task_scheduled_id: int = 0
