"""Golden histories: what former versions recorded is read byte for byte, and fits the code that it was recorded with, for ever."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from msgspec.structs import FieldInfo, fields

from replayflow import App, Client, NonDeterminismError, OrchestrationContext
from replayflow.core import events
from replayflow.core.entity.ids import is_entity_id
from replayflow.core.events import KINDS, HistoryEvent
from replayflow.core.instance import Instance
from replayflow.store import MemoryStore
from replayflow.testing import check_history
from tests.core.driver import folded
from tests.golden.app import app
from tests.golden.record import HERE, IsKeptAlready, record
from tests.golden.scenes import SCENES

VERSIONS = sorted(path for path in (HERE / "histories").iterdir() if path.is_dir())
EXPORTS = [path for version in VERSIONS for path in sorted(version.glob("*.jsonl")) if path.stem != "pieces"]


class Kept(NamedTuple):
    """What one version stored of one execution."""

    instance: str
    start: bytes
    pieces: list[bytes]

    @property
    def chunks(self) -> list[bytes]:
        return [self.start, *self.pieces]


def kept(version: Path) -> Iterator[Kept]:
    for line in (version / "pieces.jsonl").read_text("utf-8").splitlines():
        one = json.loads(line)
        yield Kept(one["instance"], base64.b64decode(one["start"]), [base64.b64decode(each) for each in one["pieces"]])


def of(path: Path) -> str:
    return str(path.relative_to(HERE / "histories"))


# ---- the code fits


@pytest.mark.parametrize("path", EXPORTS, ids=of)
def test_the_code_fits_what_it_recorded(path: Path) -> None:
    assert check_history(app, path) >= 1


def test_every_scene_has_been_kept() -> None:
    assert set(SCENES) <= {path.stem for path in EXPORTS}


@pytest.mark.parametrize("version", VERSIONS, ids=of)
def test_other_code_would_not_fit(version: Path) -> None:
    """Or the tests above could not fail."""
    other = App()
    other.include(app)
    definition = other.orchestrators.pop("rounds")
    other.orchestrators.versions.pop("rounds", None)

    @other.orchestrator(name="rounds")
    def changed(ctx: OrchestrationContext, n: int) -> Any:
        yield ctx.wait_for_external_event("go")
        return (yield from definition.fn(ctx, n))

    with pytest.raises(NonDeterminismError):
        check_history(other, version / "executions.jsonl")


async def test_a_golden_export_can_be_imported_and_exported_as_it_was() -> None:
    for path in EXPORTS:
        lines = path.read_text("utf-8").splitlines(keepends=True)
        async with Client(MemoryStore(), app) as client:
            await client.import_history(lines)
            ids = [json.loads(line)["instance"] for line in lines if line.startswith('{"instance"')]
            assert [line async for line in client.export(ids)][1:] == lines[1:], of(path)


# ---- the bytes are read


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.__name__)
def test_every_kind_of_event_occurs_in_some_golden_history(kind: type[HistoryEvent]) -> None:
    assert kind in KINDS_KEPT


def _kinds_kept() -> set[type[HistoryEvent]]:
    chunks = (chunk for version in VERSIONS for one in kept(version) for chunk in one.chunks)
    return {type(event) for chunk in chunks for event in events.decode(chunk)}


KINDS_KEPT = _kinds_kept()


@pytest.mark.parametrize("version", VERSIONS, ids=of)
def test_golden_bytes_are_written_again_as_they_were_but_for_fields_that_came_later(version: Path) -> None:
    """Fields are only ever added, at the end and with a default (`core/events`): that is the one newer form that there is."""
    for one in kept(version):
        for chunk in one.chunks:
            again = events.encode(events.decode(chunk))
            if again != chunk:
                assert_only_longer(msgspec.msgpack.decode(chunk), msgspec.msgpack.decode(again))


def assert_only_longer(then: list[list[Any]], now: list[list[Any]]) -> None:
    assert len(then) == len(now)
    for was, is_ in zip(then, now, strict=True):
        kind = KINDS[was[0]]
        names = fields(kind)
        assert is_[: len(was)] == was, kind.__name__
        for later, field in zip(is_[len(was) :], names[len(was) - 1 :], strict=True):
            assert later == default_of(field), f"{kind.__name__}.{field.name}"


def default_of(field: FieldInfo) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def test_a_field_that_came_later_is_the_one_newer_form() -> None:
    then = msgspec.msgpack.decode(events.encode([events.TimerCreated(1, 5, "a.py:1")]))
    assert_only_longer([then[0][:-1]], [[*then[0][:-1], ""]])
    for now in ([[*then[0][:-1], "b.py:2"]], [[*then[0][:-2], 6, ""]], [then[0][:-2]], []):
        with pytest.raises((AssertionError, ValueError)):
            assert_only_longer([then[0][:-1]], now)


@pytest.mark.parametrize("version", VERSIONS, ids=of)
def test_a_golden_history_folds_to_one_instance_at_once_and_piece_by_piece(version: Path) -> None:
    for one in kept(version):
        if is_entity_id(one.instance) or not one.pieces:
            continue
        pieces = events.decode_pieces(b"".join(one.pieces), len(one.pieces))
        whole = [[pieces[0][0], *events.decode(one.start), *pieces[0][1:]], *pieces[1:]]
        at_once, by_pieces = Instance(), Instance()
        at_once.apply_all(event for piece in whole for event in piece)
        by_pieces.apply_pieces(whole)
        assert folded(at_once) == folded(by_pieces)
        assert (
            at_once.started == events.decode(one.start)[0] or "rewound" in one.instance
        )  # a child's parent may be another by now


# ---- recording


async def test_what_is_golden_is_written_once(tmp_path: Path) -> None:
    for name in ("histories/x/a.jsonl", "hubs/y.db", "hubs/z.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("golden", "utf-8")
    for name in ("x", "y", "z"):
        with pytest.raises(IsKeptAlready, match="is there already, and golden"):
            await record(name, tmp_path)
    assert (tmp_path / "hubs/y.db").read_text("utf-8") == "golden"
    assert not (tmp_path / "histories/y").exists()


async def test_what_is_recorded_now_is_read_as_what_is_golden(tmp_path: Path) -> None:
    """The command works, whenever it will be needed."""
    files = await record("now", tmp_path)
    assert {path.stem for path in files} == {*SCENES, "pieces", "now"}
    for path in files:
        if path.parent.name == "now" and path.stem != "pieces":
            assert check_history(app, path) >= 1
    assert {
        type(e) for one in kept(tmp_path / "histories" / "now") for c in one.chunks for e in events.decode(c)
    } == set(KINDS.values())
