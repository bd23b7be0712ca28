"""The table of mutations does not rot: each fits the source, breaks it in earnest, and names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.mutations.patching import Edit, Mutation, SourceChanged, mutated
from tests.mutations.table import MUTATIONS
from tests.mutations.trial import ROOT, Verdict, run_tests

PACKAGE = ROOT / "replayflow"
INVARIANTS = {f"I{number}" for number in range(1, 12)}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_each_mutation_fits_the_source_and_leaves_it_a_program(mutation: Mutation) -> None:
    changed = mutated(PACKAGE, mutation)
    assert changed
    for path, text in changed.items():
        was = path.read_text("utf-8")
        if path.suffix == ".py":
            assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(was))
        else:
            assert text != was


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_each_mutation_names_tests_that_are_there(mutation: Mutation) -> None:
    for killer in mutation.killers:
        path, _, name = killer.partition("::")
        assert (ROOT / path).is_file()
        if name:
            assert re.search(rf"def {re.escape(name)}\b", (ROOT / path).read_text("utf-8"))


def test_every_invariant_is_broken_by_some_mutation() -> None:
    assert {mutation.invariant for mutation in MUTATIONS} == INVARIANTS
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 14


# ---- finding the lines


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with `one()` in two places, at two depths, and `two()` in one."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.py").write_text("def f():\n    one()\n    if x:\n        two()\n        three()\n", "utf-8")
    (tmp_path / "inner" / "b.sql").write_text("SELECT 1\none()\n", "utf-8")
    (tmp_path / "c.txt").write_text("two()\n", "utf-8")
    return tmp_path


def mutation(*edits: Edit) -> Mutation:
    return Mutation("it", "I1", "something", edits, ())


def test_lines_are_found_at_any_depth_and_replaced_there(package: Path) -> None:
    changed = mutated(package, mutation(Edit("two()\nthree()", "if y:\n    four()")))
    assert changed == {package / "a.py": "def f():\n    one()\n    if x:\n        if y:\n            four()\n"}


def test_a_part_of_the_package_may_be_named_and_lines_may_go(package: Path) -> None:
    assert mutated(package, mutation(Edit("one()", "", "inner"))) == {package / "inner" / "b.sql": "SELECT 1\n"}


def test_edits_of_one_file_add_up(package: Path) -> None:
    changed = mutated(package, mutation(Edit("two()", "2"), Edit("three()", "3")))
    assert changed[package / "a.py"].endswith("        2\n        3\n")


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        pytest.param(Edit("one()", ""), r"2 times \(a\.py, b\.sql\) in replayflow/,", id="twice"),
        pytest.param(Edit("four()", ""), "nowhere in replayflow/,", id="nowhere"),
        pytest.param(Edit("two()", "", "inner"), "nowhere in replayflow/inner,", id="nowhere in this part"),
        pytest.param(Edit("two()\none()", ""), "nowhere", id="not one after the other"),
        pytest.param(Edit("tw", ""), "nowhere", id="not the whole line"),
    ],
)
def test_lines_that_are_not_there_once_are_an_error(package: Path, edit: Edit, found: str) -> None:
    with pytest.raises(SourceChanged, match=rf"mutation 'it': the source has changed: these lines are {found}"):
        mutated(package, mutation(edit))


# ---- running tests over a copy


def test_the_first_failure_is_named_a_hang_is_one_and_nothing_is_none(tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_it.py").write_text(
        "import threading\ndef test_right(): pass\ndef test_wrong(): assert not 1\n"
        "def test_waits():\n    print()\n    threading.Event().wait()\n",
        "utf-8",
    )
    assert run_tests(tmp_path, ["tests/test_it.py::test_right"], 60).failed is None
    wrong = run_tests(tmp_path, ["tests/test_it.py"], 60)
    assert (wrong.failed, wrong.hung) == ("tests/test_it.py::test_wrong", False)
    hung = run_tests(tmp_path, ["tests/test_it.py::test_waits"], 2)
    assert hung.hung
    assert hung.failed in ("tests/test_it.py::test_waits", "the collection of tests")  # as far as it came
    assert run_tests(tmp_path, ["tests/nowhere.py"], 60).failed == "pytest itself, which ended with 4"


def test_a_verdict_says_what_was_broken_and_who_noticed() -> None:
    one = mutation()
    assert str(Verdict(one, "tests/t.py::test_a", False, False, 1.25)) == (
        "killed    it (I1): killed by tests/t.py::test_a in 1.2 s"
    )
    assert "hangs at tests/t.py::test_a" in str(Verdict(one, "tests/t.py::test_a", True, False, 1))
    assert str(Verdict(one, "t", False, True, 1)).endswith(", not by the tests that it names")
    assert str(Verdict(one, None, False, True, 100)).startswith("SURVIVED  it (I1): something; no test")
