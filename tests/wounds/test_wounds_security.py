"""Security: nothing stored runs, nothing stored is told to a log, and files are their owner's alone.

Stores that keep pickled values run whatever somebody put there; here the source itself is looked through for every way by which that could come.
"""

from __future__ import annotations

import ast
import asyncio
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import replayflow
from replayflow import (
    ActivityError,
    App,
    Instance,
    Limits,
    Orchestration,
    OrchestrationContext,
    RetryPolicy,
    TaskHub,
)
from replayflow.errors import ReplayflowError, StoreError
from replayflow.store.sqlite.lock import FileLock
from tests.ciphers import ToyCipher
from tests.cli.terminal import invoke
from tests.engine.kit import PATIENCE_SECONDS, until_state

PACKAGE = Path(replayflow.__file__).parent
MODULES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}

# ---- what the source may not do

FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "jsonpickle",
    "yaml",
    "code",
    "runpy",
    "imp",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "globals", "vars.update", "os.system", "subprocess.run"}
IMPORTERS = {
    "cli/target.py": "the target that a user typed",
    "encryption.py": "the library by its own name, and the cipher that the operator's environment names",
    "engine/processes.py": "the function of a registered activity, in the process that runs it",
}
WITH_SEND = {"send", "recv"}  # a `multiprocessing.Connection` pickles with these; with `send_bytes` it does not


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("module", MODULES)
def test_no_module_unpickles_evaluates_or_imports_by_a_stored_name(module: str) -> None:
    tree = MODULES[module]
    imported = {alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    imported |= {str(n.module).split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not imported & FORBIDDEN_MODULES
    for called, node in calls(tree):
        assert called not in FORBIDDEN_CALLS, f"line {node.lineno}"
        if called.endswith("import_module"):
            assert module in IMPORTERS, f"line {node.lineno}"
        if module == "engine/processes.py":
            assert called.rpartition(".")[2] not in WITH_SEND, f"line {node.lineno}: that would pickle"


READERS = ("codec", "core", "store", "archive")
OWN_NAMES = {
    "codec/simplify.py": "the fields of a class, by their declared names",
    "codec/texts.py": "a class of a module that is imported already, by its own name, for a message",
    "core/entity/definition.py": "the fields of a state, by their declared names",
    "archive/plain.py": "the fields of an event, by their declared names",
    "archive/checks.py": "the fields of an event, by their declared names",
    "store/incoming.py": "two columns of a row, named there",
    "store/memory/finding.py": "status or name, as the caller chose",
}


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith(READERS)])
def test_no_reader_of_what_is_stored_looks_up_an_attribute_by_a_name_from_there(module: str) -> None:
    for called, node in calls(MODULES[module]):
        if called in ("getattr", "setattr", "hasattr", "operator.attrgetter", "attrgetter", "methodcaller"):
            is_fixed = all(isinstance(argument, ast.Constant) for argument in node.args[1:2])
            assert is_fixed or module in OWN_NAMES, f"line {node.lineno}: {ast.unparse(node)}"


PLAIN_SQL = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "PRAGMA")
OTHER_SQL = {
    ("store/sqlite/schema.py", "statement"): "a statement of a numbered migration",
    ("store/sqlite/schema.py", "_SET_VERSION[number]"): "a number of ours, which PRAGMA takes in no other way",
    ("store/sqlite/schema.py", "_SET_APPLICATION"): "the same",
    ("store/sqlite/upgrading.py", "_busy_timeout(self._busy_seconds)"): "the same",
    ("store/sqlite/statements.py", "self._by_count[count]"): "a named statement for several rows",
    ("store/sqlite/ahead.py", "statement"): "what the transaction's own code was given, by name",
    ("store/sqlite/records.py", "statement"): "what its callers give it, by name",
    ("store/sqlite/guard.py", "statement"): "the user's own, under an authorizer",
    ("store/sqlite/inside.py", "statement"): "what its callers give it, by name",
    ("core/transaction.py", "statement"): "the user's own",
}


def test_every_statement_is_a_named_one() -> None:
    """No value is ever part of a statement's text: what is executed has a name, or is a word without a value."""
    seen: set[tuple[str, str]] = set()
    found = 0
    for module, tree in MODULES.items():
        for called, node in calls(tree):
            if called.rpartition(".")[2] not in ("execute", "executemany", "executescript"):
                continue
            found += 1
            said = node.args[0]
            if isinstance(said, ast.Constant):
                assert str(said.value).startswith(PLAIN_SQL), f"{module}, line {node.lineno}"
            elif not (isinstance(said, ast.Subscript) and ast.unparse(said.value) in ("SQL", "WHOLE")):
                key = (module, ast.unparse(said))
                assert key in OTHER_SQL, f"{module}, line {node.lineno}: {ast.unparse(said)}"
                seen.add(key)
    assert found > 50
    assert seen == OTHER_SQL.keys()  # the list of exceptions has none that is gone


# ---- files


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_whatever_the_umask_the_files_are_their_owners_alone(tmp_path: Path) -> None:
    with umask(0o000):
        asyncio.run(_run(tmp_path / "hub.db"))
        assert (
            invoke("export", "--output", str(tmp_path / "out.jsonl"), "--store", str(tmp_path / "hub.db")).exit_code
            == 0
        )
        assert invoke("import", str(tmp_path / "out.jsonl"), "--store", str(tmp_path / "new.db")).exit_code == 0
    assert set(modes(tmp_path).values()) == {0o600}, modes(tmp_path)
    assert {"hub.db", "hub.db-lock", "out.jsonl", "new.db"} <= modes(tmp_path).keys()
    assert not [name for name in modes(tmp_path) if "partial" in name]


async def _run(path: Path) -> None:
    async with TaskHub(path, app) as hub:
        await (await hub.client.start(quick, "x")).result(PATIENCE_SECONDS)
        assert set(modes(path.parent).values()) == {0o600}, modes(path.parent)  # the side files, while they are there


def test_a_lock_file_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    """In a folder where others can write, the name may be there before us."""
    (tmp_path / "hub.db-lock").symlink_to(tmp_path / "victim")
    lock = FileLock(tmp_path / "hub.db-lock")
    with pytest.raises(StoreError, match="cannot be opened"):
        lock.acquire()
    assert lock.is_taken()  # nobody can say
    assert not (tmp_path / "victim").exists()


def test_a_lock_file_that_is_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hub.db-lock")
    lock = FileLock(tmp_path / "hub.db-lock")
    lock.is_taken()  # it would have waited for somebody who writes
    if lock.acquire():
        lock.release()


def test_an_export_goes_through_no_link_that_was_laid_for_it(tmp_path: Path) -> None:
    asyncio.run(_run(tmp_path / "hub.db"))
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "out.jsonl").symlink_to(tmp_path / "victim")
    assert invoke("export", "--output", str(tmp_path / "out.jsonl"), "--store", str(tmp_path / "hub.db")).exit_code == 0
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (tmp_path / "out.jsonl").is_symlink()


# ---- secrets

CANARY = "canary-7f3a"
app = App()


@app.activity
async def knows(secret: Any) -> Any:
    return {"secret": secret, "more": [f"{CANARY}-result"]}


@app.activity
async def fails(secret: Any) -> None:
    raise LookupError("the reason, which its author chose to tell")


@app.activity
async def returns_what_cannot_travel(secret: Any) -> Any:
    return {"secret": secret, "what": object()}


@app.orchestrator
def quick(ctx: OrchestrationContext, secret: str) -> str:
    return secret


@app.orchestrator
def busy(ctx: OrchestrationContext, secret: str) -> Orchestration[Any]:
    ctx.set_custom_status({"secret": secret})
    found = yield ctx.call_activity(knows, secret)
    try:
        yield ctx.call_activity(fails, secret, retry=RetryPolicy(max_attempts=2, first_interval=timedelta(0)))
    except ActivityError:
        pass
    try:
        yield ctx.call_activity(returns_what_cannot_travel, secret)
    except ActivityError:
        pass
    yield from ctx.map(knows, [secret, secret])
    yield ctx.call_sub_orchestrator(quick, secret)
    told = yield ctx.wait_for_external_event("told")
    ctx.set_custom_status(told)
    return [found, told]


@app.orchestrator
def ends_badly(ctx: OrchestrationContext, secret: str) -> Orchestration[None]:
    yield ctx.call_activity(fails, secret)


@app.orchestrator
def strays(ctx: OrchestrationContext, secret: str) -> Orchestration[None]:
    yield ctx.call_activity("nobody_knows_it", secret)


@pytest.mark.parametrize("is_sealed", [False, True], ids=["in the clear", "sealed"])
async def test_no_value_of_a_user_reaches_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, is_sealed: bool
) -> None:
    """Inputs, results, events, custom statuses and keys appear in no record of any level, whatever fails and whatever is parked."""
    caplog.set_level(logging.DEBUG)
    cipher = ToyCipher(secret=CANARY.encode()) if is_sealed else None
    errors: list[BaseException] = []
    path = tmp_path / "hub.db"
    async with TaskHub(path, app, limits=Limits(grace=timedelta(0)), cipher=cipher) as hub:
        client = hub.client
        instance: Instance[Any] = await client.start(busy, CANARY, instance_id="i", tags={"team": "a"})
        bad: Instance[Any] = await client.start(ends_badly, CANARY, instance_id="bad")
        await client.start(strays, CANARY, instance_id="parked")
        await until_state(client.get("parked"), lambda state: state.problem)
        await instance.suspend()
        await instance.raise_event("told", CANARY)
        await instance.resume()
        for awaited in (
            bad.result(PATIENCE_SECONDS),
            client.start(busy, CANARY, instance_id="i"),
            client.start(busy, object(), instance_id="j"),  # what cannot travel
            client.get("unknown").raise_event("told", CANARY),
            bad.raise_event("told", CANARY),
        ):
            try:
                await awaited
            except ReplayflowError as error:
                errors.append(error)
        assert (await instance.result(PATIENCE_SECONDS))[1] == CANARY
    async with TaskHub(path, app, limits=Limits(grace=timedelta(0)), cipher=cipher) as hub:  # all of it is replayed
        await until_state(hub.client.get("parked"), lambda state: state.problem)
        assert CANARY not in str((await hub.client.get("parked").status()).problem)
    told = caplog.text + "".join(f"{record.__dict__!r}" for record in caplog.records)
    assert "bad" in told  # something was told
    assert CANARY not in told
    assert len(errors) == 5
    assert not [error for error in errors if CANARY in f"{error} {error!r}"]
    if is_sealed:
        assert CANARY.encode() not in await asyncio.to_thread(content, tmp_path)


def content(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


def test_what_a_key_is_made_of_is_shown_nowhere() -> None:
    from replayflow.encryption import AesGcmCipher

    key = CANARY.encode().ljust(32, b"k")
    shown = AesGcmCipher({"2026": key})
    assert CANARY not in f"{shown} {shown!r}"
    with pytest.raises(ReplayflowError) as refused:
        AesGcmCipher({"2026": key + b"x"})
    assert CANARY not in str(refused.value)
