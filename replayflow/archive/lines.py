"""Instances with their histories as lines of JSON, and such lines read back.

A file begins with a line that says what it is. Of each instance follow: a line about it; for each of its executions, oldest first, a line and the
execution's events, a line each; the messages that no history has yet; and a line that ends it, without which the file was cut short.

1. Nothing is kept of a file but the instance that is being read: a file may be larger than memory, an instance may not.
2. What `read` gives is whole and checked; where a line is wrong, the error has its number.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from replayflow.archive.checks import check_event, is_moment
from replayflow.archive.plain import event_from, plain_of
from replayflow.clock import to_datetime
from replayflow.codec import Codec
from replayflow.core.events import ExecutionStarted, HistoryEvent, OrchestratorStarted
from replayflow.core.ids import check_instance_id, is_unicode
from replayflow.errors import InvalidArgumentError

FORMAT = 1


@dataclass(slots=True)
class ArchivedExecution:
    """One execution: its first events, then its pieces, each of which begins with its episode's time."""

    id: str
    start: list[HistoryEvent]
    pieces: list[list[HistoryEvent]] = field(default_factory=list)

    @property
    def started(self) -> ExecutionStarted:
        started = self.start[0]
        assert isinstance(started, ExecutionStarted)  # noqa: S101 - whoever made this has looked
        return started


@dataclass(slots=True)
class ArchivedMessage:
    """What stood in the instance's inbox."""

    events: list[HistoryEvent]
    execution_id: str | None = None
    is_control: bool = False


@dataclass(slots=True)
class Archived:
    """An instance as it was at one moment: all that a hub has of it, but for the keys of messages that it has had.

    `executions` has the oldest first, the present one last. `orphans` are activities that ended executions still owe a run, each with its
    execution. Times are microseconds since 1970.
    """

    id: str
    created_at: int
    executions: list[ArchivedExecution]
    about: dict[str, Any] = field(default_factory=dict)
    """Name, status and times as the instance's row showed them, for readers; nothing is restored from it."""
    parent_id: str | None = None
    tags: dict[str, str] | None = None
    problem: str | None = None
    orphans: list[tuple[str, HistoryEvent]] = field(default_factory=list)
    messages: list[ArchivedMessage] = field(default_factory=list)

    @property
    def present(self) -> ArchivedExecution:
        return self.executions[-1]


def whole_pieces(execution: ArchivedExecution) -> Iterator[list[HistoryEvent]]:
    """The pieces as they are replayed and listed: the first has what the execution began with in it, behind its time."""
    for number, piece in enumerate(execution.pieces):
        yield piece if number else [piece[0], *execution.start, *piece[1:]]


# ---- writing ---------------------------------------------------------------------------------------------------


def header(version: str, now: int) -> str:
    """The first line of a file."""
    return _line({"replayflow": version, "format": FORMAT, "exported_at": _iso(now)})


def lines_of(archived: Archived, codec: Codec) -> Iterator[str]:
    """The lines of one instance."""
    yield _line(
        {
            "instance": archived.id,
            **archived.about,
            "created_at": _iso(archived.created_at),
            "created_at_microseconds": archived.created_at,
            **_given("parent_instance_id", archived.parent_id),
            **_given("tags", archived.tags),
            **_given("problem", archived.problem),
            **_given("orphans", [[owner, plain_of(event, codec)] for owner, event in archived.orphans]),
        }
    )
    for execution in archived.executions:
        yield _line({"execution": execution.id, "begins_with": len(execution.start)})
        pieces = whole_pieces(execution) if execution.pieces else [execution.start]
        for number, event in enumerate((event for piece in pieces for event in piece), 1):
            at = {"at": _iso(event.now_microseconds)} if isinstance(event, OrchestratorStarted) else {}
            yield _line({"number": number, **at, **plain_of(event, codec)})
    for message in archived.messages:
        yield _line(
            {
                "message": [plain_of(event, codec) for event in message.events],
                **_given("execution_id", message.execution_id),
                **_given("is_control", message.is_control),
            }
        )
    yield _line({"end": archived.id})


def _given(name: str, value: Any) -> dict[str, Any]:
    return {name: value} if value else {}


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _iso(microseconds: int) -> str:
    return to_datetime(microseconds).isoformat()


# ---- reading ---------------------------------------------------------------------------------------------------


def read(lines: Iterable[str], codec: Codec, source: str) -> Iterator[Archived]:
    """The instances in the lines, one after another; `source` is the file's name for messages.

    Raises:
        InvalidArgumentError: a line is not what has to come there; the message has its number. What came before was whole.
    """
    reader = _Reader(codec, source)
    number = 0
    for number, text in enumerate(lines, 1):
        reader.where = f"{source}, line {number}"
        if text.strip():
            done = reader.take(_object(text, reader.where))
            if done is not None:
                yield done
    if reader.open is not None:
        raise InvalidArgumentError(
            f"{source} was cut short after line {number}: the end of instance '{reader.open.id}' is missing"
        )
    if not reader.has_header:
        raise InvalidArgumentError(f"{source} is empty, and no export")


class _Reader:
    def __init__(self, codec: Codec, source: str) -> None:
        self.where = source
        self.has_header = False
        self.open: Archived | None = None
        self._codec = codec
        self._seen: set[str] = set()
        self._events: list[HistoryEvent] = []
        self._begins_with: Any = 1

    def take(self, line: dict[str, Any]) -> Archived | None:
        """The line is read; returns the instance that it ends."""
        if not self.has_header:
            self._begin_file(line)
        elif "event" in line:
            self._instance(line)
            self._events.append(self._event(line))
        elif "instance" in line:
            self._begin(line)
        elif "execution" in line:
            self._end_execution()
            self._instance(line).executions.append(ArchivedExecution(_text(line, "execution", self.where), []))
            self._begins_with = line.get("begins_with", 1)
        elif "message" in line:
            self._instance(line).messages.append(self._message(line))
        elif "end" in line:
            return self._end(line)
        else:
            raise InvalidArgumentError(
                f"{self.where}: a line is about an 'instance', an 'execution', an 'event', a 'message' or an 'end', and this has none of them"
            )
        return None

    def _begin_file(self, line: dict[str, Any]) -> None:
        if not isinstance(line.get("format"), int):
            raise InvalidArgumentError(
                f"{self.where}: this is no export of replayflow, which begins with a line that has a 'format'"
            )
        if line["format"] > FORMAT:
            raise InvalidArgumentError(
                f"{self.where}: the export has format {line['format']}, and this version reads {FORMAT}: use a newer replayflow"
            )
        self.has_header = True

    def _begin(self, line: dict[str, Any]) -> None:
        if self.open is not None:
            raise InvalidArgumentError(
                f"{self.where}: the end of instance '{self.open.id}' is missing before this line"
            )
        id = _text(line, "instance", self.where)
        if not id.startswith("@"):
            check_instance_id(id)
        if id in self._seen:
            raise InvalidArgumentError(f"{self.where}: the instance '{id}' is in the file twice")
        created_at = line.get("created_at_microseconds")
        if not isinstance(created_at, int):
            raise InvalidArgumentError(f"{self.where}: 'created_at_microseconds' is missing, or no whole number")
        if not is_moment(created_at):
            raise InvalidArgumentError(
                f"{self.where}: 'created_at_microseconds' is {created_at}, which no calendar has"
            )
        self.open = Archived(
            id,
            created_at,
            [],
            about={name: line[name] for name in ("name", "version", "status", "completed_at") if name in line},
            parent_id=_text(line, "parent_instance_id", self.where) if "parent_instance_id" in line else None,
            tags=_tags(line.get("tags"), self.where),
            problem=_text(line, "problem", self.where) if "problem" in line else None,
            orphans=[self._orphan(pair) for pair in _list(line.get("orphans", []), self.where)],
        )

    def _instance(self, line: dict[str, Any]) -> Archived:
        if self.open is None:
            raise InvalidArgumentError(f"{self.where}: {line!r:.80} comes before any 'instance' line")
        return self.open

    def _end_execution(self) -> None:
        """The events that have come since are those of the last execution."""
        came, self._events = self._events, []
        open = self.open
        if open is None or not open.executions:
            if came:
                raise InvalidArgumentError(f"{self.where}: events come before the 'execution' line that they belong to")
            return
        execution = open.executions[-1]
        pieces: list[list[HistoryEvent]] = []
        for event in came:
            if isinstance(event, OrchestratorStarted):
                pieces.append([event])
            else:
                (pieces[-1] if pieces else execution.start).append(event)
        if pieces and not execution.start:
            count = self._begins_with
            if not isinstance(count, int) or not 0 < count < len(pieces[0]):
                raise InvalidArgumentError(
                    f"{self.where}: 'begins_with' of execution '{execution.id}' is {count!r:.80}, which is not how many events it began with"
                )
            execution.start, pieces[0] = pieces[0][1 : 1 + count], [pieces[0][0], *pieces[0][1 + count :]]
        if not execution.start or not isinstance(execution.start[0], ExecutionStarted):
            raise InvalidArgumentError(f"{self.where}: execution '{execution.id}' does not begin with ExecutionStarted")
        started = execution.started
        if (started.instance_id, started.execution_id) != (open.id, execution.id):
            raise InvalidArgumentError(
                f"{self.where}: execution '{execution.id}' of '{open.id}' begins with the start of execution "
                f"'{started.execution_id}' of '{started.instance_id}'"
            )
        execution.pieces = pieces

    def _message(self, line: dict[str, Any]) -> ArchivedMessage:
        came = [self._event(one) for one in _list(line["message"], self.where)]
        execution_id = _text(line, "execution_id", self.where) if "execution_id" in line else None
        return ArchivedMessage(came, execution_id, line.get("is_control") is True)

    def _orphan(self, pair: Any) -> tuple[str, HistoryEvent]:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise InvalidArgumentError(f"{self.where}: {pair!r:.80} is no pair of an execution and its activity")
        return pair[0], self._event(pair[1])

    def _event(self, plain: object) -> HistoryEvent:
        event = event_from(plain, self._codec, self.where)
        check_event(event, self.where, self._codec.payload_bytes_max)
        return event

    def _end(self, line: dict[str, Any]) -> Archived:
        done = self._instance(line)
        self._end_execution()
        if line["end"] != done.id or not done.executions:
            raise InvalidArgumentError(f"{self.where}: this does not end instance '{done.id}', whose lines came before")
        self._seen.add(done.id)
        self.open = None
        return done


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"{where} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"{where}: {value!r:.80} is no JSON object")
    return value


def _text(line: dict[str, Any], name: str, where: str) -> str:
    value = line.get(name)
    if not _is_storable(value):
        raise InvalidArgumentError(f"{where}: '{name}' is {value!r:.80}, and has to be text")
    return cast("str", value)


def _is_storable(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value and is_unicode(value)


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidArgumentError(f"{where}: {value!r:.80} is no list")
    return value


def _tags(value: Any, where: str) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not all(_is_storable(text) for pair in value.items() for text in pair):
        raise InvalidArgumentError(f"{where}: 'tags' is {value!r:.80}, and has to be an object of texts")
    return value
