"""What a hostile hand gives to the client and to the command line is refused in words, and nothing is written (I11).

An id that was taken as it came made rows elsewhere that could not run, and began anew for ever: dbos-inc/dbos-transact-py#759 (an empty one).
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replayflow import App, Client, MemoryStore, Orchestration, OrchestrationContext, TaskHub
from replayflow.client import Instance
from replayflow.core.commit import Message
from replayflow.errors import InvalidArgumentError, ReplayflowError, StoreError
from replayflow.store import SqliteStore
from replayflow.store.base import InstanceFilter, Post
from tests.cli.terminal import invoke
from tests.engine.kit import PATIENCE_SECONDS, until_running
from tests.wounds.kit import EVIL, steering

app = App()


@app.orchestrator
def waits(ctx: OrchestrationContext, x: Any) -> Orchestration[Any]:
    return (yield ctx.wait_for_external_event("told"))


TEXTS = st.text(st.characters(), max_size=30) | st.sampled_from(
    [
        "",
        " ",
        "\0",
        "a\0b",
        "\ud800",
        "\udcff",
        EVIL,
        "a" * 257,
        "a" * 2**20,
        "/",
        "#",
        "?",
        "\\",
        "@e@k",
        "@",
        "é",
        "e\u0301",
        "²",
    ]
)


async def everything(store: MemoryStore) -> list[Any]:
    page = await store.page(InstanceFilter(), 1_000)
    return [record.instance_id for record in page.records] + [await store.arrived(0, 1_000)]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS, TEXTS, TEXTS, TEXTS, st.dictionaries(TEXTS, TEXTS, max_size=2))
def test_any_text_is_taken_whole_or_refused_whole(
    id: str, name: str, version: str, key: str, tags: dict[str, str]
) -> None:
    """Whatever the texts are: what was accepted is there under the very same texts, and what was refused left nothing."""

    async def run() -> None:
        store = MemoryStore()
        async with Client(store) as client:
            try:
                instance = await client.start(name, name, instance_id=id, version=version, tags=tags)
            except ReplayflowError:
                assert await everything(store) == [[]]
                instance = await client.start("known", instance_id="known")
            else:
                state = await instance.status()
                assert (state.id, state.name, state.version or "", dict(state.tags)) == (id, name, version, tags)
                assert state.input == name
                assert [found.id async for found in client.list(id_prefix=id)] == [id]
            before = await everything(store)
            for verb in (
                lambda: instance.raise_event(name, key, dedupe_key=key),
                lambda: instance.suspend(key),
                lambda: client.signal_entity(id, name, key),
                lambda: client.list_page(cursor=key),
                lambda: client.list_page(name=name, tags=tags, id_prefix=id),
                lambda: client.get(id).status(),
                lambda: instance.restart(instance_id=key, tags=tags),
            ):
                try:
                    await verb()
                except ReplayflowError:
                    assert await everything(store) == before
                before = await everything(store)

    asyncio.run(run())


@settings(max_examples=15, deadline=None)
@given(TEXTS, TEXTS)
def test_both_stores_take_and_refuse_the_same_texts(id: str, key: str) -> None:
    async def outcome(client: Client) -> list[str]:
        said: list[str] = []
        asked: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            lambda: client.start(key, key, instance_id=id, tags={key: key}),
            lambda: client.get(id).raise_event(key, key, dedupe_key=key),
            lambda: client.get(id).raise_event(key, key, dedupe_key=key),
            lambda: client.list_page(id_prefix=key),
            lambda: client.list_page(name=key),
            lambda: client.get(key).status(),
        ]
        for ask in asked:
            try:
                await ask()
                said.append("accepted")
            except ReplayflowError as error:
                said.append(type(error).__name__)
        return said

    async def run(folder: str) -> None:
        async with Client(MemoryStore()) as one, Client(SqliteStore(Path(folder) / "hub.db")) as other:
            assert await outcome(one) == await outcome(other)

    with TemporaryDirectory() as folder:
        asyncio.run(run(folder))


NUMBERS = [10**30, 2**63, 0, -1, 10**400]
MOMENTS = [datetime(2030, 1, 1), datetime.max, datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))]  # noqa: DTZ001, DTZ901


async def test_numbers_and_times_that_no_store_holds_are_refused() -> None:
    async with TaskHub(MemoryStore(), app) as hub:
        client = hub.client
        for number in NUMBERS:
            with pytest.raises(InvalidArgumentError, match="limit is"):
                await client.list_page(limit=number)
        for moment in MOMENTS[:2]:
            with pytest.raises(InvalidArgumentError, match="naive"):
                await client.start(waits, 1, start_at=moment)
        for length in (timedelta.max, timedelta.min):
            with pytest.raises(InvalidArgumentError, match="no calendar"):
                await client.start(waits, 1, start_at=length)
        assert await client.count() == {"total": 0}


@pytest.mark.parametrize("id", [None, 3, 10**400, b"x", ["x"], {"x": 1}, object()])
async def test_an_id_that_is_no_text_has_no_handle(id: Any) -> None:
    async with Client(MemoryStore()) as client:
        with pytest.raises(InvalidArgumentError, match="an instance id is text"):
            client.get(id)


@pytest.mark.parametrize("wanted", [3, 1.5, object(), timedelta(1), "nothing", ["RUNNING", 3]])
async def test_a_status_that_is_none_is_refused(wanted: Any) -> None:
    async with Client(MemoryStore()) as client:
        with pytest.raises(InvalidArgumentError, match="a status is one of"):
            await client.count(status=wanted)


# ---- messages that nobody can read


@pytest.mark.parametrize("recursive", ["no", 1.5, None, 0])
async def test_a_request_that_could_not_be_read_back_is_refused(recursive: Any) -> None:
    """It was stored as it was given, and ended the worker that received it, and the next."""
    async with TaskHub(MemoryStore(), app) as hub:
        instance: Instance[Any] = await hub.client.start(waits, 1, instance_id="i")
        await until_running(instance)
        with pytest.raises(InvalidArgumentError, match="True or False"):
            await instance.terminate("over", recursive)
        await instance.raise_event("told", "well")
        assert await instance.result(PATIENCE_SECONDS) == "well"


@pytest.mark.parametrize("damaged", [b"junk", b"\x91\x93\x05\xc0\xa2no", b"\x91\x92\x03\x01", b"\xdd\xff\xff\xff\xff"])
async def test_a_damaged_message_stops_its_receiver_and_no_worker(
    damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A poisonous message was delivered again and again, to one worker after the other, elsewhere: celery/celery#6990, #6185."""
    store = MemoryStore()
    async with TaskHub(store, app) as hub:
        for id in ("struck", "beside"):
            await until_running(await hub.client.start(waits, 1, instance_id=id))
        outcome = await hub.client._submit(Post(Message("struck", damaged)))
        assert outcome.error is None
        beside: Instance[Any] = hub.client.get("beside")
        await beside.raise_event("told", "well")
        assert await beside.result(PATIENCE_SECONDS) == "well"
        assert "instance 'struck' cannot be read, and is left as it is" in caplog.text
    async with TaskHub(store, app) as hub:  # the next worker lives, too
        later: Instance[Any] = await hub.client.start(waits, 1, instance_id="later")
        await later.raise_event("told", "well")
        assert await later.result(PATIENCE_SECONDS) == "well"
        assert (await hub.client.get("struck").status()).status == "RUNNING"


# ---- paths


@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
def test_what_is_no_path_is_no_store(path: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is no path"):
        SqliteStore(path)


async def test_a_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 400), tmp_path / ("x" * 400) / "hub.db"):
        with pytest.raises(StoreError, match="name too long"):
            await SqliteStore(path).open()
    async with Client(MemoryStore()) as client:
        with pytest.raises(InvalidArgumentError, match="no name"):
            await client.import_history(tmp_path / "a\0b")


# ---- the command line

LONG = "x" * 400
REFUSED: list[tuple[tuple[str, ...], int]] = [
    (("list", "--store", LONG), 3),
    (("start", "name", "--store", LONG), 3),
    (("doctor", "--store", f"{LONG}/hub.db"), 3),
    (("lint", LONG), 2),
    (("worker", LONG), 2),
    (("check", LONG), 2),
    (("run", LONG), 2),
    (("import", LONG), 2),
    (("replay", LONG, "hostile_flows.py:app"), 2),
    (("start", "name", "--input-file", LONG), 2),
    (("worker", "hostile_flows.py:app", "--grace", "nan"), 2),
    (("worker", "hostile_flows.py:app", "--grace", "inf"), 2),
    (("worker", "hostile_flows.py:app", "--grace", "9" * 30), 2),
    (("result", "id", "--wait", "nan"), 2),
    (("run", "hostile_flows.py:approval", "--timeout", "nan"), 2),
    (("list", "--limit", "9" * 30), 2),
    (("history", "id", "--limit", "9" * 30), 2),
    (("history", "id", "--cursor", "9" * 30), 2),
    (("tree", "id", "--children", "9" * 30), 2),
    (("check", "hostile_flows.py:app", "--limit", "9" * 30), 2),
    (("replay", "id", "hostile_flows.py:app", "--until", "9" * 30), 2),
    (("start", "name", "--at", f"+{'9' * 30}d"), 2),
    (("start", "name", "--at", "2030-01-01T00:00:00"), 2),
    (("start", "name", "--input", "[" * 100_000), 2),
    (("start", "name", "--input", "1" * 5_000), 2),
    (("start", "name", "--tag", "no equals sign"), 2),
    (("start", "name", "--tag", "a=\udcff"), 2),
    (("start", "\udcff"), 2),
    (("start", "name", "--id", "\udcff"), 2),
    (("start", "name", "--id", "a/b"), 2),
    (("start", "name", "--id", ""), 2),
    (("start", "name", "--id", "i", "--signal", "\udcff"), 2),
]


def instances(path: Path) -> list[str]:
    """Those in the hub, if there is one."""
    if not path.exists():
        return []
    return [shown["id"] for shown in json.loads(invoke("list", "--json", "--store", str(path)).stdout)["instances"]]


@pytest.mark.parametrize(
    ("command", "code"), REFUSED, ids=[" ".join(c)[:40].encode(errors="replace").decode() for c, _ in REFUSED]
)
def test_the_command_line_refuses_in_words_and_makes_nothing(
    command: tuple[str, ...], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile_flows.py").write_text(
        "from replayflow import App\napp = App()\n@app.orchestrator\ndef approval(ctx): pass\n"
    )
    result = invoke(*command)
    assert result.exit_code == code, result.output[-400:]
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert steering(result.stderr) == []
    assert instances(tmp_path / "replayflow.db") == []


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["--input", "--id", "--at", "--version", "--tag", "--signal", "--payload", "--dedupe-key"]), TEXTS
)
def test_any_text_on_the_command_line_starts_whole_or_not_at_all(option: str, text: str) -> None:
    beside = {
        "--signal": ["--id", "i"],
        "--payload": ["--id", "i", "--signal", "s"],
        "--dedupe-key": ["--id", "i", "--signal", "s"],
    }
    with TemporaryDirectory() as folder:
        path = Path(folder) / "hub.db"
        result = invoke("start", "name", option, text, *beside.get(option, []), "--store", str(path), "--json")
        assert result.exit_code in (0, 2), result.output
        assert "Traceback" not in result.stderr
        if result.exit_code == 0:
            assert instances(path) == [json.loads(result.stdout)["id"]]
        else:
            assert json.loads(result.stderr)["error"]["message"]
            assert instances(path) == []


def test_bytes_that_are_no_text_are_refused_or_kept_as_a_path(tmp_path: Path) -> None:
    """argv, the environment and stdin are bytes; what is no UTF-8 among them must not end a command with a traceback."""
    command = [sys.executable, "-m", "replayflow"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUTF8": "1"}

    def run(*arguments: bytes | str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*command, *arguments], input=stdin, capture_output=True, cwd=tmp_path, env=environment, check=False
        )

    started = run("start", "name", "--id", "i", "--store", b"caf\xe9.db")
    assert (started.returncode, started.stdout) == (0, b"i\n"), started.stderr
    assert Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.db")).is_file()
    refused = run("start", b"n\xff", "--input", "-", "--store", "new.db", stdin=b'"\xff"')
    assert (refused.returncode, refused.stdout) == (2, b""), refused
    assert b"the text on stdin is not UTF-8" in refused.stderr
    assert b"Traceback" not in refused.stderr
    assert not (tmp_path / "new.db").exists()


def test_json_with_a_key_twice_and_numbers_that_are_none_means_the_same_wherever_it_is_read(tmp_path: Path) -> None:
    """A text that two readers read in two ways is a way around whoever looked first; here the worker reads what was checked."""
    path = tmp_path / "hub.db"
    texts = ['{"a": 1, "a": 2}', "[NaN, Infinity, -Infinity]", "1e400", "-0.0", '"\\ud800"', "1" + "0" * 400]
    ids = [invoke("start", "name", "--input", text, "--store", str(path)).stdout.strip() for text in texts]

    async def inputs() -> list[Any]:
        async with Client(path) as client:
            return [(await client.get(id).status()).input for id in ids]

    found = asyncio.run(inputs())
    assert repr(found) == repr([json.loads(text) for text in texts])
    for id in ids:
        assert invoke("show", id, "--json", "--store", str(path)).exit_code == 0
        json.loads(
            invoke("show", id, "--json", "--store", str(path)).stdout, parse_constant=lambda name: pytest.fail(name)
        )
