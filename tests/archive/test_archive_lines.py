"""Lines: what is wrong in a file is named by its line, before anything of its instance is used."""

from __future__ import annotations

import json
from typing import Any

import pytest

from replayflow.archive import lines
from replayflow.archive.lines import Archived, ArchivedExecution
from replayflow.codec import Codec
from replayflow.core.events import ExecutionStarted, OrchestratorStarted, TaskScheduled
from replayflow.errors import InvalidArgumentError

codec = Codec()
ONE = Archived(
    "a",
    5,
    [
        ArchivedExecution(
            "x",
            [ExecutionStarted("flow", codec.encode(1), "a", "x")],
            [[OrchestratorStarted(6), TaskScheduled(1, "act", None)], [OrchestratorStarted(7)]],
        )
    ],
)
HEAD, ABOUT, EXECUTION, TIME, STARTED, ASKED, LATER, END = (lines.header("0", 1), *lines.lines_of(ONE, codec))


def edited(line: str, **fields: Any) -> str:
    return json.dumps(json.loads(line) | fields)


def test_what_was_written_is_read() -> None:
    assert list(lines.read([HEAD, *lines.lines_of(ONE, codec)], codec, "f")) == [ONE]
    assert list(lines.read([HEAD, "\n", ABOUT, EXECUTION, TIME, STARTED, ASKED, LATER, " ", END], codec, "f")) == [ONE]


def test_an_export_of_nothing_has_nothing() -> None:
    assert list(lines.read([HEAD], codec, "f")) == []


WHOLE = [HEAD, ABOUT, EXECUTION, TIME, STARTED, ASKED, LATER, END]


@pytest.mark.parametrize(
    ("number", "line", "text"),
    [
        (1, "{}", "f, line 1: this is no export"),
        (1, edited(HEAD, format=99), "has format 99, and this version reads 1"),
        (2, "nonsense", "f, line 2 is not JSON"),
        (2, "[" * 100_000, "line 2 is not JSON"),
        (2, "[]", r"line 2: \[\] is no JSON object"),
        (2, "{}", "line 2: a line is about"),
        (2, EXECUTION, "line 2: .* comes before any 'instance' line"),
        (2, END, "comes before any 'instance' line"),
        (2, edited(ABOUT, instance=3), "'instance' is 3, and has to be text"),
        (2, edited(ABOUT, instance="a/b"), "a/b"),
        (2, edited(ABOUT, created_at_microseconds="now"), "'created_at_microseconds' is missing, or no whole number"),
        (2, edited(ABOUT, tags=[1]), "'tags' is"),
        (2, edited(ABOUT, orphans=[1]), "no pair of an execution and its activity"),
        (2, edited(ABOUT, orphans=1), "1 is no list"),
        (2, edited(ABOUT, problem=1), "'problem' is 1"),
        (3, ABOUT, "line 3: the end of instance 'a' is missing"),
        (3, edited(EXECUTION, execution=None), "'execution' is None"),
        (3, edited(EXECUTION, execution="y"), "execution 'y' of 'a' begins with the start of execution 'x' of 'a'"),
        (3, edited(EXECUTION, begins_with=0), "'begins_with' of execution 'x' is 0"),
        (3, edited(EXECUTION, begins_with=3), "'begins_with' of execution 'x' is 3"),
        (3, "", "events come before the 'execution' line"),
        (5, "", "does not begin with ExecutionStarted"),
        (5, '{"event": "Nonsense"}', "line 5: this version of replayflow knows no event 'Nonsense'"),
        (8, edited(END, end="b"), "line 8: this does not end instance 'a'"),
        (8, "", "f was cut short after line 8: the end of instance 'a' is missing"),
        (8, END + "\n" + ABOUT, "is not JSON"),
        (8, '{"message": 3}', "3 is no list"),
    ],
)
def test_a_wrong_line_is_named(number: int, line: str, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        list(lines.read([*WHOLE[: number - 1], line, *WHOLE[number:]], codec, "f"))


def test_an_instance_may_be_there_once() -> None:
    with pytest.raises(InvalidArgumentError, match="line 9: the instance 'a' is in the file twice"):
        list(lines.read([*WHOLE, ABOUT], codec, "f"))


def test_a_file_that_is_empty_is_none() -> None:
    with pytest.raises(InvalidArgumentError, match="f is empty, and no export"):
        list(lines.read([], codec, "f"))
