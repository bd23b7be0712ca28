"""Whose code is an orchestrator's: the decorated, the annotated, what they call with their context; and what a comment lets pass."""

from __future__ import annotations

from textwrap import dedent

import pytest

from replayflow.lint import lint_source

HEAD = """\
import time
import replayflow
from replayflow import App, OrchestrationContext
app = App()
"""


def lines(text: str) -> list[int]:
    """The lines of the text that have findings."""
    above = HEAD.count("\n")
    return [found.line - above for found in lint_source((HEAD + dedent(text)).encode())]


@pytest.mark.parametrize(
    "text",
    [
        "@app.orchestrator\ndef main(c):\n    time.time()",
        "@app.orchestrator(name='x', version='2')\ndef main(c, i=None):\n    time.time()",
        "@shop.flows.orchestrator\ndef main(c):\n    time.time()",
        "# annotated\ndef main(ctx: OrchestrationContext):\n    time.time()",
        "# quoted\ndef main(ctx: 'OrchestrationContext'):\n    time.time()",
        "# qualified\ndef main(ctx: replayflow.OrchestrationContext):\n    time.time()",
        "class Flows:\n  def main(self, ctx: OrchestrationContext):\n    time.time()",
        "def main(ctx):\n\n    time.time()\napp.orchestrator(name='x')(main)",
        "def main(ctx):\n\n    time.time()\napp.orchestrator(main)",
    ],
)
def test_orchestrators_are_found(text: str) -> None:
    assert lines(text) == [3]


@pytest.mark.parametrize(
    "text",
    [
        "@app.activity\ndef work(x):\n    time.time()",
        "@app.activity(name='x')\ndef work(x):\n    time.time()",
        "def anything(ctx):\n    time.time()",
        "@app.entity\ndef counter(ctx, x):\n    time.time()",
        "def main(ctx: OrchestrationContext):\n    @app.activity\n    def inner():\n        time.time()\n    yield",
    ],
)
def test_other_functions_may_do_what_they_like(text: str) -> None:
    assert lines(text) == []


def test_what_is_called_with_the_context_is_orchestrator_code() -> None:
    text = """\
    def deepest(c, x):
        time.time()
        yield
    def helper(x, c):
        yield from deepest(c, x)
    def plain(x):
        time.time()
    @app.orchestrator
    def main(ctx):
        yield from helper(1, ctx)
        plain(1)
    """
    assert lines(text) == [2]


def test_methods_are_followed_by_self_and_parameters_are_not_mistaken_for_functions() -> None:
    text = """\
    class Flows:
        def step(self, ctx):
            time.time()
            yield ctx.call_activity("a")
        @app.orchestrator
        def main(self, ctx):
            self.step(ctx)
            yield from self.step(ctx)
    def now(ctx):
        time.time()
    def other(ctx: OrchestrationContext, now):
        yield now(ctx)
    """
    assert lines(text) == [3, 7]


def test_a_helper_that_is_a_generator_has_to_be_yielded_from() -> None:
    text = """\
    def helper(ctx):
        yield ctx.call_activity("a")
    def maker(ctx):
        return ctx.call_activity("a")
    @app.orchestrator
    def main(ctx):
        helper(ctx)
        yield helper(ctx)
        yield from helper(ctx)
        yield maker(ctx)
    """
    assert lines(text) == [7, 8]


def test_a_function_inside_an_orchestrator_is_looked_at_once() -> None:
    text = """\
    @app.orchestrator
    def main(ctx):
        def body(saga):
            time.time()
            yield
        return (yield from ctx.saga(body))
    """
    assert lines(text) == [4]


def test_what_is_recorded_may_do_what_it_likes() -> None:
    text = """\
    @app.orchestrator
    def main(ctx):
        def look(x):
            return time.time()
        a = ctx.record(look, 1)
        b = ctx.record(lambda: time.time())
        c = ctx.record(time.time)
        d = ctx.record(max, time.time())
        yield
    """
    assert lines(text) == [8]


# ---- comments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("comment", "hides"),
    [
        ("# replayflow: ignore", True),
        ("#replayflow:ignore[RFL01]", True),
        ("# replayflow: ignore[RFL02, rfl01] - because", True),
        ("# replayflow: ignore[RFL02]", False),
        ("# replayflow ignore", False),
    ],
)
def test_a_comment_hides_what_it_names(comment: str, hides: bool) -> None:
    assert lines(f"@app.orchestrator\ndef main(ctx):\n    x = time.time()  {comment}\n    yield") == (
        [] if hides else [3]
    )
    assert lines(f"@app.orchestrator\ndef main(ctx):  {comment}\n    x = time.time()\n    yield") == (
        [] if hides else [3]
    )
    assert lines(f"@app.orchestrator  {comment}\ndef main(ctx):\n    x = time.time()\n    yield") == (
        [] if hides else [3]
    )


def test_a_comment_hides_its_own_line_and_a_file_s_the_file() -> None:
    text = "@app.orchestrator\ndef main(ctx):\n    time.time()  # replayflow: ignore[RFL01]\n    time.time()\n    yield"
    assert lines(text) == [4]
    assert lines(f"# replayflow: ignore-file[RFL01]\n{text}") == []
    assert lines(f"# replayflow: ignore-file[RFL02]\n{text}") == [5]
    assert lines(f"X = '# replayflow: ignore-file'\n{text}") == [5], "a text is no comment"


def test_a_call_over_several_lines_is_hidden_from_any_of_them() -> None:
    text = "@app.orchestrator\ndef main(ctx):\n    time.strftime(\n        '%H',  # replayflow: ignore[RFL01]\n    )\n    yield"
    assert lines(text) == []
