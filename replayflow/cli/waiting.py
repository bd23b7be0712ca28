"""What an instance waits for, as `replayflow show` says it: a line for each, with its time; and as a document."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from replayflow.cli import values
from replayflow.client import Wait, WaitKind
from replayflow.core.suspicion import is_poison

_SHOWN_MAX = 20


def lines(waits: Sequence[Wait], id: str, store: str | None, has_app: bool) -> Iterator[tuple[str, str]]:
    """The waits for people: a label and a text each; of many the first few."""
    now = datetime.now(UTC)
    for wait in waits[:_SHOWN_MAX]:
        yield "waits for", _text(wait, now, id, store, has_app)
    if len(waits) > _SHOWN_MAX:
        yield "", f"and {len(waits) - _SHOWN_MAX:,} more; --json has them all"


def documents(waits: Sequence[Wait]) -> list[dict[str, Any]]:
    """The waits as `--json` shows them."""
    return [
        {
            "kind": str(wait.kind),
            "name": wait.name,
            "since": None if wait.since is None else wait.since.isoformat(),
            "until": None if wait.until is None else wait.until.isoformat(),
            "task_id": wait.task_id,
            "attempt": wait.attempt,
            "target": wait.target,
            "detail": wait.detail,
            "site": wait.site,
        }
        for wait in waits
    ]


def _text(wait: Wait, now: datetime, id: str, store: str | None, has_app: bool) -> str:
    parts = [_what(wait, id, store, has_app), _since(wait, now), _until(wait, now)]
    site = wait.site.rpartition("/")[2]
    return ", ".join(part for part in [*parts, site and f"asked for at {site}"] if part)


def _what(wait: Wait, id: str, store: str | None, has_app: bool) -> str:
    detail = f" ({wait.detail})" if wait.detail else ""
    option = "" if store is None else f" --store {shlex.quote(store)}"
    match wait.kind:
        case WaitKind.WORKER:
            return f"a worker: none serves this hub; start one with: replayflow worker MODULE:APP{option}"
        case WaitKind.REPAIR if wait.since is None:
            return f"other code than this: {wait.detail}"
        case WaitKind.REPAIR if is_poison(wait.detail.encode()):
            return f"its problem to be mended; then: replayflow resume {shlex.quote(id)}{option}"
        case WaitKind.REPAIR:  # its problem has a line of its own
            return f"its problem to be mended; then a worker's start tries it again, or: replayflow resume {shlex.quote(id)}{option}"
        case WaitKind.RESUME:
            return f"replayflow resume {shlex.quote(id)}{option}: it is suspended"
        case WaitKind.MESSAGE:
            return f"its turn to take in: {wait.name}{detail}"
        case WaitKind.START:
            return "its start"
        case WaitKind.ACTIVITY:
            return f"activity '{wait.name}' (task {wait.task_id}{_attempt(wait)})"
        case WaitKind.RETRY:
            what = f"'{wait.name}' (task {wait.task_id})"
            return f"attempt {wait.attempt} of {what}"
        case WaitKind.TIMER:
            return f"timer (task {wait.task_id})"
        case WaitKind.EVENT if wait.name:
            return f"event '{wait.name}'"
        case WaitKind.EVENT:
            return "an event from outside" + ("" if has_app else "; which one says its code: --app MODULE:APP")
        case WaitKind.CHILD:
            return f"child '{wait.target}' of '{wait.name}'{detail}"
        case WaitKind.MAP:
            return f"map of '{wait.name}' (task {wait.task_id}): {wait.detail}"
        case WaitKind.CALL:
            return f"operation '{wait.name}' of entity '{wait.target}'{detail}"
        case WaitKind.LOCK:
            return f"the lock of entity '{wait.target}'{detail}"


def _attempt(wait: Wait) -> str:
    return "" if wait.attempt in (None, 1) else f", attempt {wait.attempt}"


def _since(wait: Wait, now: datetime) -> str:
    return "" if wait.since is None or wait.kind is WaitKind.REPAIR else f"for {values.duration(now - wait.since)}"


def _until(wait: Wait, now: datetime) -> str:
    if wait.until is None:
        return ""
    left = wait.until - now
    when = f"until {values.moment(wait.until)} UTC"
    return f"{when} (in {values.duration(left)})" if left.total_seconds() > 0 else f"{when} (due)"
