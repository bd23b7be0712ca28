"""Ids: what an instance may be called, what children are called, UUIDs that replay."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayflow import App, MemoryStore, OrchestrationContext, TaskHub
from replayflow.core import ids
from replayflow.errors import InvalidArgumentError, RegistrationError


@pytest.mark.parametrize(
    "instance_id", ["a", "order-42", "a b", "ä-ö", "漢字", "a@b", "x" * 256, "p:0001", "👩‍🚀", "a\u00a0b"]
)
def test_an_id_is_text_of_up_to_256_characters(instance_id: str) -> None:
    assert ids.check_instance_id(instance_id) == instance_id


@pytest.mark.parametrize(
    "instance_id",
    [
        "",
        "x" * 257,
        "@counter@a",
        "a/b",
        "a\\b",
        "a#b",
        "a?b",
        "a\nb",
        "a\x00",
        "\x7f",
        "a\x85b",
        "\ud800",
        5,
        None,
        b"a",
        ["a"],
    ],
)
def test_an_id_that_is_none_is_refused_with_where_it_was_given(instance_id: object) -> None:
    with pytest.raises(InvalidArgumentError, match="the_argument"):
        ids.check_instance_id(instance_id, "the_argument")


@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_ids_are_refused_for_the_reasons_that_are_named_and_no_others(instance_id: str) -> None:
    fits = (
        0 < len(instance_id) <= 256
        and instance_id[0] != "@"
        and not any(char in "/\\#?" or ord(char) < 32 or 127 <= ord(char) < 160 for char in instance_id)
    )
    try:
        ids.check_instance_id(instance_id)
    except InvalidArgumentError:
        assert not fits
    else:
        assert fits


def test_a_child_is_called_by_its_parent_and_action() -> None:
    assert ids.child_id("p", "e" * 32, 1, True) == "p:0001"
    assert ids.child_id("p", "e" * 32, 0xABCDE, True) == "p:abcde"


def test_later_executions_have_other_children() -> None:
    first = ids.child_id("p", "a" * 32, 1, True)
    assert len({first, ids.child_id("p", "a" * 32, 1, False), ids.child_id("p", "b" * 32, 1, False)}) == 3


def test_the_suffix_of_later_executions_holds_for_a_hundred_thousand_of_them() -> None:
    suffix = ids.child_id("p", "0123456789abcdef" * 2, 1, False).removeprefix("p:0001:")
    assert len(suffix) >= 16, "half as many hex digits collide once in a hundred thousand executions"


def test_attempts_have_ids_of_their_own_that_no_child_has() -> None:
    assert ids.attempt_id("p:0001", 2) == "p:0001:2"
    assert ids.child_id("p:0001", "e", 2, True) == "p:0001:0002"


@pytest.mark.parametrize("parent", ["p" * 252, "p" * 256, "👩" * 256])
def test_an_id_that_grows_too_long_becomes_a_hash_of_fixed_length(parent: str) -> None:
    made = ids.child_id(parent, "e" * 32, 1, True)
    assert len(made) == 64
    assert made == ids.child_id(parent, "f" * 32, 1, True)
    assert made != ids.child_id(parent, "e" * 32, 2, True)
    assert ids.check_instance_id(made)


def test_the_longest_id_that_fits_is_kept() -> None:
    assert ids.child_id("p" * 251, "e", 1, True) == "p" * 251 + ":0001"


def test_a_new_uuid_is_that_of_durabletask() -> None:
    moment = datetime(2024, 2, 29, 12, 30, 0, 5, tzinfo=UTC)
    namespace = uuid.uuid5(uuid.NAMESPACE_OID, "9e952958-5e33-4daf-827f-2fa12937b875")
    assert ids.new_uuid("abc", moment, 0) == str(uuid.uuid5(namespace, "abc_2024-02-29T12:30:00.000005Z_0"))
    assert ids.new_uuid("abc", moment, 0) == "45858206-237b-5aa3-a645-4f842ea8840e"
    assert ids.new_uuid("abc", moment, 1) != ids.new_uuid("abc", moment, 0)


@pytest.mark.parametrize("version", [1, 1.0, b"1", ["1"]])
def test_a_version_that_is_no_text_is_refused_wherever_it_is_said(version: Any) -> None:
    app = App()
    refused: list[str] = []

    def body(ctx: OrchestrationContext) -> Any:
        for call in (
            lambda: ctx.continue_as_new(version=version),
            lambda: ctx.call_sub_orchestrator("body", version=version),
        ):
            with pytest.raises(InvalidArgumentError, match="a version is text") as caught:
                call()
            refused.append(str(caught.value))

    with pytest.raises(RegistrationError, match="a version is text"):
        app.orchestrator(name="versioned", version=version)(body)
    app.orchestrator(body)

    async def main() -> None:
        async with TaskHub(MemoryStore(), app) as hub:
            with pytest.raises(InvalidArgumentError, match="a version is text"):
                await hub.client.start("body", version=version)
            await (await hub.client.start("body")).result(10)

    asyncio.run(main())
    assert len(refused) == 2
