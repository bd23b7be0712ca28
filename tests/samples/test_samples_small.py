"""Every small sample does what it says, on every store, again and again, and after a kill."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import pytest

from replayflow import (
    Client,
    HeartbeatRecorded,
    Instance,
    Status,
    TaskAttemptFailed,
    TaskHub,
    TaskScheduled,
    ValueRecorded,
)
from samples import (
    aggregator,
    approval,
    batch,
    encrypted,
    hello_sequence,
    importer,
    monitor,
    new_code,
    nightly_report,
    order_row,
    order_saga,
    payroll,
    sub_orchestrations,
    transfer,
)

CHECKOUT = Path(__file__).parent.parent.parent
LAST_LINE = {
    "hello_sequence": "Hello London!",
    "payroll": "July: 4 salaries paid, 17,300 in all",
    "order_saga": "order-2: not shipped, no carrier goes to Atlantis",
    "order_row": "order-2: too expensive, 0 workflows",
    "approval": "a yacht: no answer in time",
    "aggregator": "rome: 70 readings, at most 26.0 degrees",
    "importer": "400 lines, 79,800 in all, from dk, fi, no, se",
    "monitor": "the print job was done at look 8",
    "nightly_report": "the shop in Porto: 119 orders",
    "new_code": "autumn: a lamp, paid for, shipped",
    "transfer": "charles: not paid, till has 500, and cannot pay 900",
}
PATIENCE_SECONDS = 30


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else str(tmp_path / "samples.db")


async def activities_of(instance: Instance[Any]) -> list[str]:
    return [event.name async for event in instance.history() if isinstance(event, TaskScheduled)]


# ---- as programs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "last_line"), LAST_LINE.items())
def test_a_sample_run_twice_says_the_same(
    name: str, last_line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main: Callable[[str], Any] = sys.modules[f"samples.{name}"].main
    for _ in range(2):
        if iscoroutinefunction(main):
            asyncio.run(main(str(tmp_path / "twice.db")))
        else:
            main(str(tmp_path / "twice.db"))
        assert capsys.readouterr().out.splitlines()[-1] == last_line


@pytest.mark.parametrize(("name", "last_line"), LAST_LINE.items())
async def test_a_killed_sample_goes_on(name: str, last_line: str, tmp_path: Path) -> None:
    async with running(name, tmp_path / "killed.db") as first:
        assert first.stdout is not None
        assert await first.stdout.readline()
    async with running(name, tmp_path / "killed.db") as second:
        output, _ = await second.communicate()
    assert second.returncode == 0
    assert output.decode().splitlines()[-1] == last_line


@asynccontextmanager
async def running(name: str, store: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The sample in a process of its own, which is killed if it has not ended when the block does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-m", f"samples.{name}", str(store)), cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


# ---- one by one ------------------------------------------------------------------------------------------------


async def test_hello_greets_in_order(store: str) -> None:
    async with TaskHub(store, hello_sequence.app) as hub:
        instance = await hub.client.start(hello_sequence.hello_sequence)
        assert await instance.result(PATIENCE_SECONDS) == ["Hello Tokyo!", "Hello Seattle!", "Hello London!"]


async def test_each_order_keeps_to_the_code_that_it_began_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await new_code.main(str(tmp_path / "orders.db"))
    assert capsys.readouterr().out.splitlines()[3:] == [
        "spring: a book, shipped",
        "summer: a vase in gift paper, shipped",
        "autumn: a lamp, paid for, shipped",
    ]


async def test_a_transfer_moves_all_of_the_money_or_none_of_it(store: str) -> None:
    async with TaskHub(store, transfer.app) as hub:
        instance = await hub.client.start(transfer.pay_wages, [("ada", 700), ("alan", 400), ("grace", 300)])
        assert await instance.result(PATIENCE_SECONDS) == [
            "ada: 700 paid, 300 left",
            "alan: not paid, till has 300, and cannot pay 400",
            "grace: 300 paid, 0 left",
        ]


def a_folder(path: Path) -> Path:
    (path / "deep").mkdir(parents=True)
    (path / "one.txt").write_text("the same")
    (path / "deep" / "two.txt").write_text("the same")
    (path / "three.txt").write_text("something else")
    return path


async def test_the_batch_finds_copies(store: str, tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "files")
    async with TaskHub(store, batch.app) as hub:
        summary = await batch.summarize(hub, str(folder))
    assert (summary.files, summary.bytes) == (3, 30)
    assert summary.copies == [[str(folder / "deep" / "two.txt"), str(folder / "one.txt")]]


async def test_the_batch_tells_what_it_could_not_read(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_folder(tmp_path / "files")
    tries = []
    really_read = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == "three.txt":
            tries.append(path)
            raise PermissionError("not for you")
        return really_read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    async with TaskHub(store, batch.app) as hub:
        summary = await batch.summarize(hub, str(folder))
    assert (summary.files, len(summary.copies)) == (2, 1)
    assert summary.unread == {str(folder / "three.txt"): "PermissionError: not for you"}
    assert len(tries) == 2


async def test_a_second_batch_sees_what_has_changed(store: str, tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "files")
    async with TaskHub(store, batch.app) as hub:
        await batch.summarize(hub, str(folder))
        (folder / "four.txt").write_text("new")
        assert (await batch.summarize(hub, str(folder))).files == 4


async def test_a_batch_that_was_left_unfinished_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(a_folder(tmp_path / "files"))
    store = tmp_path / "batch.db"
    async with Client(store, batch.app) as client:
        await client.start(batch.batch, folder, instance_id=batch.id_of(folder))
    await batch.main(folder, str(store))
    assert capsys.readouterr().out.startswith("an earlier run has not finished; it goes on\n3 files, 30 bytes\n")


@pytest.mark.parametrize(
    ("destination", "is_shipped", "activities"),
    [
        ("Lisbon", True, ["reserve", "charge", "ship"]),
        ("Atlantis", False, ["reserve", "charge", "ship", "call_back", "refund", "release"]),
    ],
)
async def test_the_saga_undoes_in_reverse_what_it_did(
    destination: str, is_shipped: bool, activities: list[str], store: str
) -> None:
    order = order_saga.Order("o-1", "a compass", destination)
    async with TaskHub(store, order_saga.app) as hub:
        instance = await hub.client.start(order_saga.order_saga, order)
        assert (await instance.result(PATIENCE_SECONDS)).shipped is is_shipped
        assert await activities_of(instance) == activities


@pytest.mark.parametrize(("approved", "text"), [(True, "a pen: approved by Ada"), (False, "a pen: refused by Ada")])
async def test_an_answer_in_time_decides(approved: bool, text: str, store: str) -> None:
    request = approval.Request("a pen", patience=timedelta(days=3))
    async with TaskHub(store, approval.app) as hub:
        instance = await hub.client.start(approval.approval, request)
        await instance.raise_event("answer", approval.Answer(approved, "Ada"))
        assert await instance.result(PATIENCE_SECONDS) == text


async def test_without_an_answer_the_deadline_decides(store: str) -> None:
    request = approval.Request("a pen", patience=timedelta(milliseconds=50))
    async with TaskHub(store, approval.app) as hub:
        instance = await hub.client.start(approval.approval, request)
        assert await instance.result(PATIENCE_SECONDS) == "a pen: no answer in time"


async def test_the_monitor_looks_until_the_job_is_done_and_keeps_a_short_history(store: str) -> None:
    watch = monitor.Watch("the job", interval=timedelta(milliseconds=1))
    async with TaskHub(store, monitor.app) as hub:
        instance = await hub.client.start(monitor.monitor, watch)
        assert await instance.result(PATIENCE_SECONDS) == "the job was done at look 8"
        assert (await instance.status()).custom_status == "100 %"
        assert await activities_of(instance) == ["percent_done"]


async def test_the_monitor_gives_up_in_the_end(store: str) -> None:
    watch = monitor.Watch("the job", interval=timedelta(milliseconds=1), looks_max=3)
    async with TaskHub(store, monitor.app) as hub:
        instance = await hub.client.start(monitor.monitor, watch)
        assert await instance.result(PATIENCE_SECONDS) == "the job is at 30 % after 3 looks; giving up"


async def test_a_night_that_is_asked_for_has_its_report(store: str) -> None:
    async with TaskHub(store, nightly_report.app) as hub:
        schedule = await hub.client.create_schedule(
            "nightly", nightly_report.nightly_report, "Porto", every=timedelta(days=365), on_existing="update"
        )
        run = await schedule.trigger()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await schedule.status()).last_run != run.id:  # noqa: ASYNC110 - a store tells nobody of a change
                await asyncio.sleep(0.005)
        assert await run.result(PATIENCE_SECONDS) == "Porto: 35 orders"


async def test_children_are_instances_and_a_failed_one_gets_a_successor(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sub_orchestrations, "_refused", set[str]())
    region = sub_orchestrations.Region("north", [sub_orchestrations.Cluster("web", 2)])
    async with TaskHub(store, sub_orchestrations.app) as hub:
        instance = await hub.client.start(sub_orchestrations.build_region, region, instance_id="north")
        assert await instance.result(PATIENCE_SECONDS) == {"web": ["web-1", "web-2"]}
        statuses = {state.id: state.status async for state in hub.client.list(id_prefix="north")}
    assert statuses == {
        "north": Status.COMPLETED,
        "north:0001": Status.COMPLETED,
        "north:0001:0001": Status.FAILED,
        "north:0001:0001:2": Status.COMPLETED,
        "north:0001:0002": Status.COMPLETED,
    }


async def test_the_region_is_shown_with_all_its_instances(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        await sub_orchestrations.main(str(tmp_path / "regions.db"))
        shown = capsys.readouterr().out
        assert "web: web-1, web-2, web-3\ndata: data-1, data-2\n" in shown
        assert "build_region" in shown


# ---- entities --------------------------------------------------------------------------------------------------


async def test_the_aggregator_counts_every_reading_once_and_keeps_records(store: str) -> None:
    async with TaskHub(store, aggregator.app) as hub:
        for _ in range(2):
            for n in range(30):
                await hub.client.signal_entity("@station@bergen", "report", float(n), dedupe_key=str(n))
        await hub.client.signal_entity("@station@bergen", "report", -500.0)
        await hub.client.signal_entity("@station@tromso", "report", 4.5)
        compared = await hub.client.start(aggregator.compare, ["bergen", "tromso"])
        assert await compared.result(PATIENCE_SECONDS) == "bergen is 10.0 degrees warmer than tromso"
        assert (await hub.client.read_entity("@station@bergen")).count == 30
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await hub.client.read_entity("@records@all") != {"bergen": 29.0, "tromso": 4.5}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


def test_an_order_is_a_row_and_a_workflow_or_neither(tmp_path: Path) -> None:
    shop = str(tmp_path / "shop.db")
    asyncio.run(order_row.main(shop))
    with closing(sqlite3.connect(shop)) as connection:
        assert connection.execute("SELECT number, parcel IS NOT NULL FROM orders").fetchall() == [("order-1", 1)]
        assert connection.execute("SELECT id FROM instance").fetchall() == [("order-1",)]


def test_what_is_encrypted_is_read_with_the_key_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cryptography")
    monkeypatch.setenv("RECORDS_KEYS", f"old:{'00' * 32} new:{'11' * 32}")
    asyncio.run(encrypted.main(str(tmp_path / "encrypted.db")))
    assert capsys.readouterr().out.splitlines() == [
        "with the key:    Ada Lovelace is well",
        "without the key: (encrypted) (encrypted)",
    ]
    assert b"Ada" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


async def test_the_importer_goes_on_where_it_was_and_asks_no_more_often_than_it_may(store: str) -> None:
    async with TaskHub(store, importer.app) as hub:
        instance = await hub.client.start(importer.importer, 100)
        report = await instance.result(PATIENCE_SECONDS)
        events = [event async for event in instance.history()]
    assert (report.total, report.countries) == (sum(range(100)), ["dk", "fi", "no", "se"])
    (failed,) = [event for event in events if isinstance(event, TaskAttemptFailed)]
    told = [event.detail for event in events if isinstance(event, HeartbeatRecorded)]
    assert failed.failure_details.type == "ConnectionError"
    assert (50, sum(range(50))) in told  # which is where the second attempt began
    (recorded,) = [event for event in events if isinstance(event, ValueRecorded)]
    assert recorded.value == report.batch


# ---- payroll ---------------------------------------------------------------------------------------------------


async def test_a_payroll_that_is_mended_pays_nobody_twice(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accounts = tmp_path / "accounts"
    accounts.write_text("Ada a\nEdsger e\nBarbara b\n", "utf-8")
    async with TaskHub(store, payroll.app) as hub:
        instance = await hub.client.start(payroll.payroll, payroll.Payroll("May", str(accounts)))
        assert await payroll.mended_result(instance, accounts) == "May: 4 salaries paid, 17,300 in all"
    said = capsys.readouterr().out
    assert [said.count(f"to {name}") for name in payroll.SALARIES] == [1, 1, 1, 1]
    assert "Grace has no account" in said
