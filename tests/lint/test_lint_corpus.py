"""Few false alarms, and no crash: over this repository, over the standard library, and over any text."""

from __future__ import annotations

import ast
import os
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayflow.lint import lint_file, lint_source, python_files
from replayflow.lint.checks import check
from replayflow.lint.module import Code, Module

CHECKOUT = Path(__file__).parent.parent.parent
ON_PURPOSE = {
    "RFL08": "async def, which registration refuses",
    "RFL12": "timers and waits that nobody waits for: what becomes of them is what is tested",
    "RFL13": "an orchestrator that swallows a request to cancel",
}
STANDARD_LIBRARY = Path(os.__file__).parent
SHARE = 60
"""One file in so many of the standard library is looked at; which, depends on nothing but their names."""


@pytest.mark.parametrize("folder", ["samples", "benchmarks", "replayflow"])
def test_our_own_orchestrators_are_clean(folder: str) -> None:
    files = list(python_files([CHECKOUT / folder]))
    assert len(files) > 5
    assert [str(found) for path in files for found in lint_file(path)] == []


def test_the_orchestrators_of_our_tests_break_only_the_rules_that_they_break_on_purpose() -> None:
    files = list(python_files([CHECKOUT / "tests"]))
    assert len(files) > 50
    found = [each for path in files for each in lint_file(path)]
    assert [str(each) for each in found if each.code not in ON_PURPOSE] == []
    assert found


def test_any_function_of_the_standard_library_can_be_looked_at_as_if_it_were_an_orchestrator() -> None:
    files = [path for n, path in enumerate(python_files([STANDARD_LIBRARY])) if n % SHARE == 7]
    assert len(files) > 10
    looked = found = 0
    for path in files:
        lint_file(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module = Module(ast.parse(path.read_bytes()))
        except (SyntaxError, ValueError):
            continue  # the library has some that are broken on purpose
        for function in [each for several in module.functions.values() for each in several][:40]:
            code = Code(function, {"self", "ctx"}, is_orchestrator=True)
            module._look_into(code)
            found += len(list(check(module, code, str(path))))
            looked += 1
    assert looked > 50  # some systems leave much of the library out
    assert found > 0


@given(st.text(max_size=200))
def test_any_text_has_findings_or_none_and_never_an_error(text: str) -> None:
    lint_source(f"# orchestrator\n{text}".encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=100))
def test_any_bytes_do_too(content: bytes) -> None:
    lint_source(b"# orchestrator\n" + content)


def test_folders_of_tools_are_passed_over(tmp_path: Path) -> None:
    for name in ("a.py", "deep/b.py", ".venv/c.py", "__pycache__/d.py", "node_modules/e.py", "f.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in python_files([tmp_path, tmp_path / "f.txt"])]
    assert found == ["a.py", "deep/b.py", "f.txt"]
