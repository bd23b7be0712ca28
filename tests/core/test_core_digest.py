"""A digest changes with what the code does, and with nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from replayflow.core.digest import digest_of


def compiled(source: str, lines_above: int = 0, name: str = "one.py") -> Callable[..., Any]:
    scope: dict[str, Any] = {}
    exec(compile("\n" * lines_above + source, name, "exec"), scope)  # noqa: S102 - the test's own text
    found: Callable[..., Any] = scope["f"]
    return found


CODE = "def f(ctx):\n    x = yield ctx.call_activity('a', 1)\n    return x in {'p', 'q', 'r'}\n"


def test_where_the_code_stands_does_not_matter() -> None:
    assert digest_of(compiled(CODE)) == digest_of(compiled(CODE, lines_above=40, name="two.py"))


@pytest.mark.parametrize(
    "changed",
    [
        CODE.replace("'a'", "'b'"),
        CODE.replace("1", "2"),
        CODE.replace("call_activity", "call_sub_orchestrator"),
        CODE.replace("'r'", "'s'"),
        CODE.replace("    return", "    yield x\n    return"),
    ],
)
def test_what_the_code_does_matters(changed: str) -> None:
    assert digest_of(compiled(CODE)) != digest_of(compiled(changed))


def test_functions_inside_belong_to_it() -> None:
    outer = "def f(ctx):\n    def g():\n        return {}\n    yield g()\n"
    assert digest_of(compiled(outer.format(1))) != digest_of(compiled(outer.format(2)))


def test_every_process_has_the_same() -> None:
    program = f"from tests.core.test_core_digest import *; print(digest_of(compiled({CODE!r})))"
    seen = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(seen) == 1


def test_what_has_no_code_of_its_own_has_a_digest_too() -> None:
    assert digest_of(partial(print, 1)) == digest_of(partial(print, 2))
