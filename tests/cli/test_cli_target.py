"""MODULE:NAME: what it finds, and what it says where there is nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from replayflow.cli.target import load_app, load_orchestrator, split
from replayflow.errors import InvalidArgumentError
from tests.cli.terminal import accepted, databases, refused

HEAD = "from replayflow import App\napp = App()\n"


def write(name: str, text: str) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


@pytest.mark.parametrize(
    ("target", "module", "name"),
    [
        ("flows:app", "flows", "app"),
        ("shop.flows:apps.main", "shop.flows", "apps.main"),
        ("flows/orders.py:app", "flows/orders.py", "app"),
        ("flows", "flows", None),
        (r"C:\shop\flows.py", r"C:\shop\flows.py", None),
        (r"C:\shop\flows.py:app", r"C:\shop\flows.py", "app"),
        ("C:flows.py", "C:flows.py", None),
    ],
)
def test_a_target_is_split_at_its_last_colon(target: str, module: str, name: str | None) -> None:
    assert split(target) == (module, name)


@pytest.mark.parametrize("target", [":app", "flows:"])
def test_half_a_target_is_refused(target: str) -> None:
    with pytest.raises(InvalidArgumentError, match="MODULE:NAME"):
        split(target)


def test_a_file_is_imported_under_its_stem_with_its_folder_on_the_path(folder: Path) -> None:
    write("shop/prices.py", "PRICE = 3\n")
    write("shop/orders.py", HEAD + "import prices\n@app.orchestrator\ndef price(ctx):\n    return prices.PRICE\n")
    app, definition = load_orchestrator("shop/orders.py:price")
    assert definition.fn.__module__ == "orders"
    assert sys.path[0] == str(folder / "shop")
    assert app is load_app("shop/orders.py")


def test_the_only_app_and_the_only_orchestrator_need_no_name() -> None:
    write("single.py", HEAD + "@app.orchestrator\ndef one(ctx):\n    return 1\n")
    assert accepted("run", "single") == 1


def test_an_orchestrator_is_found_by_its_registered_name() -> None:
    write("named.py", HEAD + "@app.orchestrator(name='check-out')\ndef one(ctx):\n    return 1\n")
    assert accepted("run", "named:check-out") == 1


def test_the_app_that_includes_the_others_runs_what_they_share() -> None:
    write("parts.py", HEAD + "@app.orchestrator\ndef two(ctx):\n    return (yield ctx.call_activity('add'))\n")
    write(
        "whole.py",
        "import parts\nfrom parts import two\n"
        + HEAD
        + "app.include(parts.app)\n@app.activity\ndef add() -> int:\n    return 2\n",
    )
    assert accepted("run", "whole:two", "--timeout", "10") == 2


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere:app", "there is no module 'nowhere'"),
        ("flows.nowhere:app", "there is no module 'flows.nowhere'"),
        ("nowhere.py:app", "there is no file nowhere.py"),
        ("flows:nothing", "the module 'flows' has no 'nothing'; it has app, checkout, gated, approval, busy"),
        ("flows:app", "is an App, and an orchestrator is wanted here; there is flows:checkout"),
        ("flows:charge", "is an activity"),
        ("flows:FLOWS_TEXT", "has no 'FLOWS_TEXT'"),
        ("flows:Order", "is a type"),
        ("flows", "several orchestrators"),
        ("plain:walk", "registered with no app"),
        ("plain:wait", "is `async def`"),
        ("plain", "plain has no orchestrator"),
        ("shelf/json.py", "cannot be imported as 'json'"),
    ],
)
def test_what_is_no_orchestrator_is_named(target: str, said: str) -> None:
    write("plain.py", "def walk(ctx):\n    yield\nasync def wait(ctx):\n    pass\n")
    write("shelf/json.py", HEAD)
    assert said in refused(2, "run", target)
    assert databases() == []


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("flows:checkout", "is an orchestrator, and an App is wanted here; there is flows:app"),
        ("twice", "several Apps; say which one: twice:app, twice:other"),
        ("empty", "empty has no App"),
    ],
)
def test_what_is_no_app_is_named(target: str, said: str) -> None:
    write("twice.py", HEAD + "other = App()\nsame = app\n")
    write("empty.py", "")
    assert said in refused(2, "worker", target)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import absent_thing\n", "ModuleNotFoundError: No module named 'absent_thing'"),
        ("def f(:\n", "SyntaxError"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("def f():\n    return 1 / 0\nf()\n", "return 1 / 0"),
    ],
)
def test_an_import_that_fails_shows_the_users_traceback_and_nothing_of_ours(text: str, said: str) -> None:
    from tests.cli.terminal import invoke

    write("broken.py", text)
    result = invoke("run", "broken:x")
    assert result.exit_code == 2
    assert said in result.stderr
    assert "broken.py" in result.stderr
    assert "replayflow/cli" not in result.stderr.replace("\\", "/")
    assert "importlib" not in result.stderr


def test_a_function_that_cannot_be_registered_is_told_with_its_place() -> None:
    write("flow.py", HEAD + "@app.orchestrator\nasync def f(ctx):\n    pass\n")
    text = refused(2, "run", "flow:f")
    assert "error RF101: orchestrator 'f' is `async def`" in text
    assert "flow.py, line 3" in text
    assert "replayflow explain RF101" in text
