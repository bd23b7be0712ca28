"""The census: what it measures, what it keeps when it is stopped or killed, and an audit that does not look away."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from replayflow import Client, Instance, InstanceNotFoundError, TaskHub
from samples import census, census_demonstration, census_report
from samples.census import RUN_LOG, Standing, id_of, standing_of
from samples.census import census as orchestrator
from samples.census_demonstration import Ledger, audit, demonstrate
from samples.census_report import Ranked, Report, SourceFacts, Unparsable, facts_of, report_of, source_paths

CHECKOUT = Path(__file__).parent.parent.parent
PATIENCE_SECONDS = 30
# The shell that started the tests may have told its children to ignore Ctrl-C.
RUN_CENSUS = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from samples.census import main
sys.exit(main())
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    root = tmp_path / "small"
    (root / "pkg" / "site-packages").mkdir(parents=True)
    (root / "pkg" / "site-packages" / "foreign.py").write_text("import nothing\n")
    (root / "pkg" / "good.py").write_text(
        "import os.path, sys\nfrom . import x\nfrom os import sep\n\nclass A:\n    def f(self):\n        pass\n\nasync def g(): ...\n"
    )
    (root / "pkg" / "bad.py").write_text("print 'hello'\n")
    (root / "undecodable.py").write_bytes(b"name = '\xf6'\n")
    (root / "empty.py").write_bytes(b"")
    return root


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Files enough that a worker is at them for half a second or more."""
    root = tmp_path / "large"
    root.mkdir()
    body = "".join(f"def function_{n}(a, b):\n    return [a + b, {{a: b}}, (a, b, {n})]\n\n\n" for n in range(1_000))
    for number in range(30):
        (root / f"module_{number:02}.py").write_text(f"import os\n{body}")
    (root / "broken.py").write_text("def\n")
    return root


# ---- measuring -------------------------------------------------------------------------------------------------


def test_a_file_is_measured(small: Path) -> None:
    assert facts_of(small, "pkg/good.py") == SourceFacts(
        "pkg/good.py", 9, functions=2, classes=1, longest_function="f", longest_function_lines=2, imports=["os", "sys"]
    )


@pytest.mark.parametrize(
    ("path", "problem"),
    [("pkg/bad.py", "SyntaxError: "), ("undecodable.py", "SyntaxError: "), ("gone.py", "FileNotFoundError: ")],
)
def test_a_file_that_does_not_parse_is_counted_with_the_reason(path: str, problem: str, small: Path) -> None:
    facts = facts_of(small, path)
    assert facts.problem is not None
    assert facts.problem.startswith(problem)


def test_what_is_installed_on_top_is_not_counted(small: Path) -> None:
    assert source_paths(small) == ["empty.py", "pkg/bad.py", "pkg/good.py", "undecodable.py"]


def test_the_order_of_the_facts_does_not_change_the_report() -> None:
    facts = [SourceFacts(f"{name}.py", lines=7, imports=["os", name], problem=name) for name in "bca"]
    report = report_of(facts)
    assert report == report_of(reversed(facts))
    assert report.longest_files == [Ranked("a.py", 7), Ranked("b.py", 7), Ranked("c.py", 7)]
    assert report.most_imported[0] == Ranked("os", 3)
    assert report.unparsable == [Unparsable("a.py", "a"), Unparsable("b.py", "b"), Unparsable("c.py", "c")]


def test_a_ranking_has_ten_places() -> None:
    report = report_of(SourceFacts(f"{number:02}.py", lines=number) for number in range(30))
    assert [one.count for one in report.longest_files] == list(range(29, 19, -1))
    assert report.most_classes == []


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_the_engine_reports_what_counting_directly_reports(kind: str, small: Path, tmp_path: Path) -> None:
    store = "memory://" if kind == "memory" else tmp_path / "census.db"
    async with TaskHub(store, census.app) as hub:
        instance = await hub.client.start(orchestrator, str(small))
        report = await instance.result(PATIENCE_SECONDS)
        assert await standing_of(instance) == Standing(4, 4)
    assert report == report_of(facts_of(small, path) for path in source_paths(small))
    assert (report.files, report.lines, len(report.unparsable)) == (4, 11, 2)


# ---- stopped, resumed, begun anew ------------------------------------------------------------------------------


@asynccontextmanager
async def worker(root: Path, store: Path, log: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A census in a process of its own, which is killed if it has not ended when the block does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUN_CENSUS, str(root), "--store", str(store), *options),
        cwd=CHECKOUT,
        env={**os.environ, RUN_LOG: str(log)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def run_to_the_end(root: Path, store: Path, log: Path, *options: str) -> str:
    async with worker(root, store, log, *options) as process:
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def some_results(instance: Instance[Report]) -> None:
    while True:
        try:
            if (await standing_of(instance)).done > 2:
                return
        except InstanceNotFoundError:
            pass
        await asyncio.sleep(0.01)


async def test_a_census_stopped_by_ctrl_c_says_how_to_go_on_and_does(large: Path, tmp_path: Path) -> None:
    store, log = tmp_path / "census.db", tmp_path / "runs.log"
    async with Client(store, census.app) as client:
        instance: Instance[Report] = client.get(id_of(large))
        async with worker(large, store, log) as first:
            await some_results(instance)
            first.send_signal(signal.SIGINT)
            output, _ = await first.communicate()
        assert first.returncode == census.INTERRUPTED
        assert f"    python -m samples.census {large} --store {store}" in output.decode().splitlines()
        kept = (await standing_of(instance)).done
        assert 0 < kept < 31

        assert f"Going on: {kept} of 31 files are measured already." in await run_to_the_end(large, store, log)
        runs = len(log.read_text().splitlines())

        finished = await run_to_the_end(large, store, log)
        assert "All is counted already" in finished
        assert "Files that do not parse: 1\n  broken.py\n" in finished
        assert len(log.read_text().splitlines()) == runs

        await run_to_the_end(large, store, log, "--fresh")
        assert len(log.read_text().splitlines()) == runs + 31


async def test_a_census_may_begin_anew_before_it_has_finished(large: Path, tmp_path: Path) -> None:
    store, log = tmp_path / "census.db", tmp_path / "runs.log"
    async with Client(store, census.app) as client:
        async with worker(large, store, log):
            await some_results(client.get(id_of(large)))
        assert "31 files" in await run_to_the_end(large, store, log, "--fresh")


def test_the_demonstration_kills_resumes_and_finds_every_promise_kept(
    large: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census_demonstration, "WORKER_SECONDS_MAX", PATIENCE_SECONDS)
    code = demonstrate(large)
    said, complaints = capfd.readouterr()
    assert code == 0, said
    assert "kill -9" in said
    assert said.count("\n  ok ") == 5
    assert "BROKEN" not in said
    assert complaints == ""


def test_a_worker_that_ends_before_the_kill_breaks_the_demonstration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demonstrate(tmp_path) == 1
    assert "BROKEN  the first worker ended by itself, with exit code 0" in capsys.readouterr().out


def test_what_is_no_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert census.main([str(tmp_path / "nowhere")]) == 2
    assert "is no folder" in capsys.readouterr().err


async def test_a_census_that_another_process_counts_is_refused(small: Path, tmp_path: Path) -> None:
    store = tmp_path / "census.db"
    async with TaskHub(store, census.app), worker(small, store, tmp_path / "runs.log") as second:
        _, errors = await second.communicate()
    assert second.returncode == 1
    assert errors.decode().startswith("census: the hub ")


# ---- the audit -------------------------------------------------------------------------------------------------

KILLED = Ledger({1: "a.py", 2: "b.py"}, {1: ["A"]})
ENDED = Ledger({1: "a.py", 2: "b.py"}, {1: ["A"], 2: ["B"]})


@pytest.mark.parametrize(
    ("broken", "log", "at_the_end", "files_reported"),
    [
        (None, "7 a.py\n7 b.py\n8 b.py\n", ENDED, 2),
        ("none of these", "7 a.py\n7 b.py\n8 a.py\n", ENDED, 2),
        ("every file was measured", "7 a.py\n7 b.py\n8 b.py\n8 b.py\n", ENDED, 2),
        ("every file was measured", "7 a.py\n", ENDED, 2),
        ("1 results", "7 a.py\n7 b.py\n", Ledger(ENDED.files, {1: ["changed"], 2: ["B"]}), 2),
        ("every file is", "7 a.py\n7 b.py\n", Ledger(ENDED.files, {1: ["A"], 2: ["B", "B"]}), 2),
        ("every file is", "7 a.py\n7 b.py\n", Ledger(ENDED.files, {1: ["A"]}), 2),
        ("every file is", "7 a.py\n7 b.py\n", Ledger({1: "a.py"}, {1: ["A"]}), 2),
        ("the report", "7 a.py\n7 b.py\n", ENDED, 1),
    ],
)
def test_the_audit_names_the_promise_that_was_broken(
    broken: str | None,
    log: str,
    at_the_end: Ledger,
    files_reported: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("pass\n")
    (tmp_path / "runs.log").write_text(log)
    report = report_of(facts_of(tmp_path, path) for path in source_paths(tmp_path)[:files_reported])
    assert audit(tmp_path, KILLED, at_the_end, tmp_path / "runs.log", report) is (broken is None)
    marked = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines() if "BROKEN" in line]
    assert [line.startswith(broken or "") for line in marked] == [True] * (broken is not None)


def test_the_report_is_shown_whole(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    census_report.show(report_of(facts_of(small, path) for path in source_paths(small)))
    shown = capsys.readouterr().out
    assert shown.startswith("4 files, 11 lines, 2 functions, 1 classes\n")
    assert "\nImported by most files\n        1  os\n        1  sys\n" in shown
    assert all(line == line.rstrip() for line in shown.splitlines())
