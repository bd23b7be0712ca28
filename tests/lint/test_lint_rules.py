"""Each rule finds what it is for, and not what looks like it."""

from __future__ import annotations

from textwrap import dedent, indent

import pytest

from replayflow import Task, TimerTask
from replayflow.core.tasks import ActivityTask, EventTask, SubOrchestrationTask
from replayflow.lint import RULES, lint_source
from replayflow.lint.yields import TASK_ATTRIBUTES

HEAD = """\
import asyncio, contextlib, os, random, requests, subprocess, sys, threading, time, uuid
import numpy as np
import datetime
from datetime import date, datetime as dt
from pathlib import Path
from time import sleep as nap, time as now
from replayflow import App, OrchestrationContext, when_all

app = App()
CACHE = {}
LIMIT = 3
now_there = dt.now
"""


def codes(body: str, head: str = HEAD) -> list[str]:
    """The rules that an orchestrator with the body breaks."""
    text = f"{head}\n@app.orchestrator\ndef main(ctx, order):\n{indent(dedent(body), '    ')}\n    yield\n"
    return [found.code for found in lint_source(text.encode())]


BROKEN = {
    "RFL01": [
        "started = now()",
        "x = time.time_ns()",
        "x = dt.now()",
        "x = dt.utcnow().isoformat()",
        "x = datetime.datetime.now(datetime.timezone.utc)",
        "x = date.today()",
        "x = now_there()",
        "x = time.strftime('%H')",
        "x = [time.monotonic() for _ in order]",
        "def inner():\n    return time.time()",
        "import time as clock\nx = clock.time()",
    ],
    "RFL02": [
        "x = random.random()",
        "random.shuffle(order)",
        "x = random.Random()",
        "x = np.random.rand()",
        "x = os.urandom(8)",
        "x = hash(order)",
        "import secrets\nx = secrets.token_hex()",
    ],
    "RFL03": ["x = uuid.uuid4()", "from uuid import uuid1\nx = str(uuid1())"],
    "RFL04": [
        "x = open('file').read()",
        "with open('file') as file:\n    pass",
        "x = requests.get('https://example.org').json()",
        "subprocess.run(['ls'])",
        "x = os.listdir('.')",
        "x = Path('file').read_text()",
        "x = (Path('folder') / 'file').exists()",
        "x = order.path.read_bytes()",
        "x = input()",
        "import socket\nx = socket.create_connection(('a', 1))",
    ],
    "RFL05": ["x = os.environ['HOME']", "x = os.getenv('HOME')", "x = sys.argv[1]", "x = os.getcwd()"],
    "RFL06": ["time.sleep(1)", "nap(1)"],
    "RFL07": ["threading.Thread(target=print).start()", "asyncio.run(main)", "asyncio.get_event_loop()"],
    "RFL09": [
        "for sku in {'a', 'b'}:\n    yield ctx.call_activity('x', sku)",
        "for sku in set(order):\n    ctx.send_event('other', 'x', sku)",
        "skus = set(order)\nyield when_all([ctx.call_activity('x', sku) for sku in skus])",
        "skus = {s for s in order}\nskus |= {'z'}\nfor n, sku in enumerate(list(skus)):\n    yield ctx.call_activity('x', sku)",
        "yield ctx.map('x', frozenset(order) - {'a'})",
    ],
    "RFL10": [
        "global LIMIT\nLIMIT = 4",
        "CACHE[order] = 1",
        "CACHE.update(order)",
        "del CACHE[order]",
        "def inner():\n    CACHE.setdefault(1, 2)",
    ],
    "RFL11": [
        "while True:\n    yield ctx.create_timer(1)",
        "while 1:\n    for x in order:\n        if x:\n            break\n    yield ctx.create_timer(1)",
        "while True:\n    pass",
    ],
    "RFL12": [
        "x = ctx.call_activity('a')['total']",
        "x = ctx.call_activity('a').total",
        "x = ctx.call_activity('a') + 1",
        "if ctx.call_activity('a'):\n    pass",
        "x = f\"{ctx.call_activity('a')}\"",
        "for x in ctx.call_activity('a'):\n    pass",
        "x = ctx.call_activity('a')\ny = x['total']",
        "x = ctx.call_sub_orchestrator('a')\nif not x:\n    pass",
        "x = ctx.call_activity('a')\nyield ctx.call_activity('b', x)",
        "yield ctx.call_activity('b', ctx.call_activity('a'))",
        "ctx.create_timer(1)",
        "ctx.wait_for_external_event('go')",
        "ctx.set_custom_status(ctx.call_activity('a'))",
        "ctx.saga(order)",
        "yield ctx.saga(order)",
        "with ctx.lock_entities(['@a@b']):\n    pass",
        "return ctx.call_activity('a')",
        "x = ctx.wait_for_external_event('n')\nwhile x < 3:\n    yield ctx.call_activity('a')",
    ],
    "RFL13": [
        "try:\n    yield ctx.create_timer(1)\nexcept:\n    pass",
        "try:\n    yield ctx.create_timer(1)\nexcept BaseException as error:\n    print(error)",
        "try:\n    yield ctx.create_timer(1)\nexcept (ValueError, BaseException):\n    x = 1",
        "try:\n    yield ctx.create_timer(1)\nfinally:\n    return 1",
        "with contextlib.suppress(BaseException):\n    yield ctx.create_timer(1)",
    ],
}
FINE = {
    "RFL01": [
        "x = ctx.current_utc_datetime",
        "x = time.gmtime(order)",
        "x = dt.fromisoformat(order)",
        "time = order\nx = time.time()",
    ],
    "RFL02": [
        "x = ctx.random.choice(order)",
        "random = ctx.random\nx = random.random()",
        "x = random.Random(7)",
        "id = 3\nx = id",
    ],
    "RFL03": ["x = ctx.new_uuid()", "x = uuid.uuid5(uuid.NAMESPACE_URL, order)", "x = uuid.UUID(order)"],
    "RFL04": [
        "x = Path('a') / 'b'",
        "x = os.path.join('a', 'b')",
        "def open(x): ...\nx = open(1)",
        "raise requests.HTTPError()",
    ],
    "RFL05": ["x = order['environ']", "x = sys.maxsize", "os = order\nx = os.environ"],
    "RFL06": ["yield ctx.create_timer(1)", "x = order.sleep(1)"],
    "RFL07": ["raise asyncio.TimeoutError()", "x = threading.TIMEOUT_MAX"],
    "RFL09": [
        "for sku in sorted({'a', 'b'}):\n    yield ctx.call_activity('x', sku)",
        "total = 0\nfor sku in set(order):\n    total += 1",
        "for sku in dict.fromkeys(order):\n    yield ctx.call_activity('x', sku)",
        "skus = set(order)\nskus = list(order)\nfor sku in skus:\n    yield ctx.call_activity('x', sku)",
        "yield ctx.map('x', sorted(set(order)))",
    ],
    "RFL10": ["CACHE = {}\nCACHE[1] = 2", "x = CACHE.get(1)", "kept = []\nkept.append(LIMIT)", "ctx.tags = 1"],
    "RFL11": [
        "while True:\n    if (yield ctx.create_timer(1)):\n        break",
        "while True:\n    yield ctx.create_timer(1)\n    return",
        "while order:\n    yield ctx.create_timer(1)",
        "while True:\n    yield ctx.create_timer(1)\n    ctx.continue_as_new(1)",
    ],
    "RFL12": [
        "x = yield ctx.call_activity('a')\ny = x['total']",
        "x = (yield from ctx.call_activity('a')).total",
        "ctx.call_activity('a')",
        "task = ctx.call_activity('a')\nother = ctx.create_timer(1)\nx = yield when_all([task, other])\ny = task.result",
        "task = ctx.create_timer(1)\nif order is task:\n    task.cancel()",
        "x = ctx.call_activity('a')\nx = yield x\ny = x + 1",
        "yield from ctx.saga(order)",
        "x = yield from ctx.saga(order)",
        "with (yield ctx.lock_entities(['@a@b'])):\n    pass",
        "return (yield ctx.call_activity('a'))",
        "kept = {}\nkept['a'] = ctx.call_activity('a')",
    ],
    "RFL13": [
        "try:\n    yield ctx.create_timer(1)\nexcept Exception:\n    pass",
        "try:\n    yield ctx.create_timer(1)\nexcept BaseException:\n    yield ctx.call_activity('undo')\n    raise",
        "try:\n    x = int(order)\nexcept:\n    x = 0",
        "with contextlib.suppress(ValueError):\n    yield ctx.create_timer(1)",
    ],
}


@pytest.mark.parametrize(("code", "body"), [(code, body) for code, bodies in BROKEN.items() for body in bodies])
def test_what_breaks_a_rule_is_found(code: str, body: str) -> None:
    assert codes(body) == [code]


@pytest.mark.parametrize(("code", "body"), [(code, body) for code, bodies in FINE.items() for body in bodies])
def test_what_only_looks_like_it_is_not(code: str, body: str) -> None:
    assert codes(body) == []


def test_every_rule_has_both_tests() -> None:
    elsewhere = {"RFL00", "RFL08"}
    assert set(BROKEN) == set(FINE) == set(RULES) - elsewhere


def test_async_orchestrators_and_awaits_are_found() -> None:
    text = """
    @app.orchestrator
    async def main(ctx):
        await ctx.call_activity("a")

    @app.orchestrator
    def other(ctx):
        yield ctx.call_activity("a")

    async def not_one(hub):
        await hub.client.start(main)
    """
    (found,) = lint_source(dedent(text).encode())
    assert (found.code, found.line) == ("RFL08", 3)
    assert "orchestrator 'main' is async def" in found.message


def test_a_file_that_cannot_be_parsed_is_a_finding_and_not_a_crash() -> None:
    for text in ("@app.orchestrator\ndef main(ctx:\n", "orchestrator = \0", "# orchestrator\nx = " + "(" * 5_000):
        (found,) = lint_source(text.encode())
        assert found.code == "RFL00"


def test_a_message_says_what_why_and_what_instead() -> None:
    (found,) = lint_source(
        f"{HEAD}\n@app.orchestrator\ndef main(ctx):\n    x = now()\n    yield\n".encode(), "flows.py"
    )
    assert str(found) == (
        "flows.py:16:9: RFL01 time.time(): the time is another at every replay; use ctx.current_utc_datetime"
    )


def test_the_attributes_of_tasks_are_known() -> None:
    public = {
        name
        for cls in (Task, TimerTask, ActivityTask, EventTask, SubOrchestrationTask)
        for name in dir(cls)
        if not name.startswith("_")
    }
    assert {
        name for name in public if name in ("result", "exception", "is_complete", "is_failed", "cancel", "title")
    } <= TASK_ATTRIBUTES
    assert {"result", "exception", "is_complete", "is_failed", "cancel"} <= public
