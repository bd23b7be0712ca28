"""Who is measured, in what order, and what becomes of a measurement that fails."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import contestants
from benchmarks.contestants import Contestant
from benchmarks.question import Figure, Figures, Question
from benchmarks.questions import QUESTIONS
from benchmarks.runner import MeasurementError, ask

CHECKOUT = Path(__file__).parent.parent.parent
FLOOR = """
import json, sys
print("something else first")
print(json.dumps({"system": "floor", "workload": sys.argv[1], "n": int(sys.argv[2]), "activities_per_s": 1000.0, "peak_rss_mb": 10.0}))
"""


async def never(n: int, folder: Path) -> Figures:
    raise AssertionError("nobody measures here")


QUESTION = Question("made-up", "what is made up", never, (Figure("per_s", "rate"),), (10,), (10,))


def program(code: str) -> Contestant:
    return Contestant("one", "one", lambda workload, n: [sys.executable, "-c", code, workload, str(n)])


def fixed(name: str, command: list[str] | None, may_fail: bool = False) -> Contestant:
    """Its command is the same whatever is asked."""

    def answer(_workload: str, _n: int) -> list[str] | None:
        return command

    return Contestant(name, name, answer, may_fail)


def who_signs(name: str, book: Path, figures: Figures) -> Contestant:
    """Its measurement writes its name, workload and n into the book."""
    code = f"import sys; open({str(book)!r}, 'a').write(' '.join([{name!r}, *sys.argv[1:]]) + '\\n'); print({json.dumps(figures)!r})"
    return Contestant(name, name, lambda workload, n: [sys.executable, "-c", code, workload, str(n)])


def test_measurements_take_turns(tmp_path: Path) -> None:
    book = tmp_path / "book"
    both = [who_signs("one", book, {"per_s": 1}), who_signs("other", book, {"per_s": 2})]
    answer = ask(QUESTION, 10, both, rounds=2)
    assert book.read_text().splitlines() == ["one made-up 10", "other made-up 10"] * 2
    assert answer.lines == {"one": [{"per_s": 1}] * 2, "other": [{"per_s": 2}] * 2}
    assert answer.failures == {}


def test_who_has_no_such_workload_is_not_measured() -> None:
    answer = ask(QUESTION, 10, [fixed("one", None)], rounds=2)
    assert (answer.lines, answer.failures) == ({}, {})


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; sys.exit('out of luck')", "failed with exit code 1:\nout of luck"),
        ("print('fast')", "printed no line of JSON at its end, but 'fast"),
        ("pass", "printed no line of JSON"),
    ],
)
def test_a_failed_measurement_says_why(code: str, says: str) -> None:
    with pytest.raises(MeasurementError) as caught:
        ask(QUESTION, 10, [program(code)], rounds=1)
    assert says in str(caught.value)
    assert "made-up 10" in str(caught.value)


def test_a_peer_that_fails_is_told_of_and_not_tried_again(tmp_path: Path) -> None:
    book = tmp_path / "book"
    code = f"import sys; open({str(book)!r}, 'a').write('x'); sys.exit('no server')"
    peer = fixed("peer", [sys.executable, "-c", code], may_fail=True)
    absent = fixed("absent", [str(tmp_path / "nowhere")], may_fail=True)
    answer = ask(QUESTION, 10, [peer, absent, who_signs("one", tmp_path / "other", {"per_s": 1})], rounds=3)
    assert book.read_text() == "x"
    assert "no server" in answer.failures["peer"]
    assert "cannot be run" in answer.failures["absent"]
    assert answer.lines == {"one": [{"per_s": 1}] * 3}


def test_ours_has_every_workload_and_the_floor_its_own() -> None:
    ours, floor = contestants.replayflow(), contestants.floor(Path("floor.py"))
    assert ours.command("idle", 0) == [sys.executable, "-m", "benchmarks.workloads", "idle", "0"]
    assert floor.command("chain", 5) == [sys.executable, "floor.py", "chain", "5"]
    assert {name for name in QUESTIONS if floor.command(name, 5)} == {"chain", "fan", "latency", "long", "recover"}


def test_the_environment_may_say_where_the_floor_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLAYFLOW_FLOOR", "/somewhere/floor.py")
    assert contestants.floor_path() == Path("/somewhere/floor.py")
    monkeypatch.delenv("REPLAYFLOW_FLOOR")
    assert contestants.floor_path() == CHECKOUT.parent / "shared" / "bench" / "floor.py"


class Known:
    name = "known"
    label = "known 2.0, in memory"

    def command(self, workload: str, n: int) -> list[str] | None:
        return ["known", workload, str(n)] if n < 100 else None


def test_peers_are_measured_where_they_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("benchmarks.peers")
    module.__spec__ = ModuleSpec("benchmarks.peers", None)
    module.installed = lambda: [Known()]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.peers", module)
    (peer,) = contestants.peers()
    assert (peer.name, peer.label, peer.may_fail) == ("known", "known 2.0, in memory", True)
    assert peer.command("chain", 99) == ["known", "chain", "99"]
    assert peer.command("chain", 100) is None


# ---- the whole program -----------------------------------------------------------------------------------------


def benchmarks(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)


def test_the_suite_prints_what_it_asks_and_writes_it_down(tmp_path: Path) -> None:
    floor, written = tmp_path / "floor.py", tmp_path / "out.json"
    floor.write_text(FLOOR)
    done = benchmarks("chain", "disk", "--n", 5, "--rounds", 2, "--floor", floor, "--no-peers", "--json", written)
    assert done.returncode == 0, done.stderr
    assert "cores" in done.stdout
    assert "\nchain 5: " in done.stdout
    assert "the floor" in done.stdout
    assert "bars: " in done.stdout
    document = json.loads(written.read_text())
    assert [answer["question"] for answer in document["answers"]] == ["chain", "disk"]
    rate = document["answers"][0]["figures"][0]
    ours = rate["systems"]["replayflow"]
    assert len(ours["values"]) == 2
    assert rate["systems"]["floor"]["values"] == [1000, 1000]
    assert rate["replayflow_is_times_as_good"]["floor"] == pytest.approx(ours["median"] / 1000)
    assert document["answers"][1]["figures"][0]["systems"].keys() == {"replayflow"}


def test_without_a_floor_there_are_figures_all_the_same(tmp_path: Path) -> None:
    done = benchmarks("chain", "--n", 2, "--rounds", 1, "--floor", tmp_path / "none.py", "--no-peers")
    assert done.returncode == 0, done.stderr
    assert f"no floor at {tmp_path / 'none.py'}" in done.stdout
    assert "ratio 0" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["chian"], "no question chian; there are chain, "),
        (["chain", "--rounds", "0"], "1 or more"),
        (["chain", "long", "--n", "1"], "for long it is 2 or more"),
    ],
)
def test_what_cannot_be_asked_is_refused(arguments: list[str], says: str) -> None:
    done = benchmarks(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
