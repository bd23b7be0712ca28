"""Versions: their order, whose code an instance runs, and which instances a worker takes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayflow import (
    App,
    Codec,
    InvalidArgumentError,
    RegistrationError,
    VersionFailureStrategy,
    VersioningOptions,
    VersionMatchStrategy,
    VersionMismatchError,
)
from replayflow.core.definitions import Environment
from replayflow.core.versions import version_key


@pytest.mark.parametrize(
    "ascending",
    [
        [None, "1", "2"],
        ["9", "10", "11"],
        ["1.9", "1.10", "2", "2.0.1"],
        ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.0.post1"],
        ["1.0a1", "1.0b1", "1.0rc1", "1.0"],
        ["3", "2025-01-31", "blue", "green"],
        ["99999", "9" * 5_000, "1" + "0" * 5_000],
    ],
)
def test_versions_have_an_order(ascending: list[str | None]) -> None:
    keys = [version_key(version) for version in ascending]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "same", [(None, ""), ("1", "1.0"), ("1", "1.0.0"), ("v2", "2"), ("1.0RC1", "1.0rc1"), ("01", "1")]
)
def test_versions_that_say_the_same_compare_as_equal(same: tuple[Any, Any]) -> None:
    assert version_key(same[0]) == version_key(same[1])


texts = st.one_of(
    st.none(), st.text(max_size=8), st.from_regex(r"v?[0-9]{1,3}(\.[0-9]{1,2}){0,3}([-.]?(a|rc|post|dev)[0-9]?)?")
)


@given(st.lists(texts, min_size=2, max_size=6))
def test_the_order_is_total(versions: list[str | None]) -> None:
    keys = sorted(map(version_key, versions))
    for n, one in enumerate(keys):
        assert all((one < other) != (one == other) and not one > other for other in keys[n:])


# ---- side by side --------------------------------------------------------------------------------------------


def code(label: str) -> Any:
    def main(ctx: Any) -> Any:
        return label

    return main


def app_with(*versions: str | None) -> App:
    app = App()
    for version in versions:
        app.orchestrator(name="main", version=version)(code(version or "none"))
    return app


@pytest.mark.parametrize(
    ("versions", "wanted", "served"),
    [
        ((None,), None, "none"),
        ((None,), "7", "none"),
        (("2",), "2", "2"),
        (("2",), "1", None),
        (("2",), None, "2"),
        (("1", "2", "10"), "2", "2"),
        (("10", "2", "1"), None, "1"),
        (("1", "2"), "3", None),
        ((None, "1", "2"), None, "none"),
        ((None, "1", "2"), "1", "1"),
        ((None, "1", "2"), "3", "none"),
    ],
)
def test_an_instance_runs_the_code_of_its_version(
    versions: tuple[str | None, ...], wanted: str | None, served: str | None
) -> None:
    definition = app_with(*versions).orchestrators.serving("main", wanted)
    assert (None if definition is None else definition.fn(None)) == served


@pytest.mark.parametrize(
    ("versions", "preferred", "default"),
    [
        ((None,), None, None),
        (("2", "10", "9"), None, "10"),
        ((None, "2"), None, "2"),
        (("1", "2"), "1", "1"),
        (("1", "2"), "3", "2"),
        ((None, "2"), "3", "3"),
    ],
)
def test_a_start_by_name_has_the_default_or_the_newest_version(
    versions: tuple[str | None, ...], preferred: str | None, default: str | None
) -> None:
    assert app_with(*versions).orchestrators.default_version("main", preferred) == default


def test_a_start_by_function_has_the_function_s_own_version() -> None:
    app = App()
    old, one, two = code("old"), code("one"), code("two")
    for fn, version in ((old, None), (one, "1"), (two, "2")):
        app.orchestrator(name="main", version=version)(fn)
    names = app.orchestrators
    assert [names.default_version("main", None, fn) for fn in (old, one, two)] == [None, "1", "2"]
    assert names.default_version("main", "1", old) is None, "the default would run other code"
    assert names.default_version("main", "7", old) == "7"
    environment = Environment(Codec(), {}, names)
    assert [environment.orchestrator(called).version for called in (old, one, two, "main")] == [None, "1", "2", "2"]


def test_a_version_is_taken_once_and_including_keeps_all() -> None:
    app, other = app_with("1", "2"), App()
    with pytest.raises(RegistrationError, match=r"'main with the version '2'' is taken by .*version='\.\.\.'"):
        app.orchestrator(name="main", version="2")(code("another"))
    other.include(app)
    other.orchestrator(name="main", version="3")(code("3"))
    assert [each.version for each in other.orchestrators.every()] == ["3", "2", "1"]
    assert [each.version for each in app.orchestrators.every()] == ["2", "1"]
    taken = app_with("2")
    taken.activity(name="extra")(lambda: None)
    with pytest.raises(RegistrationError):
        app.include(taken)
    assert not app.activities, "nothing was included"
    del other.orchestrators["main"]
    assert list(other.orchestrators.every()) == []


def test_an_empty_version_is_none() -> None:
    app = app_with("")
    assert app.orchestrators["main"].version is None
    assert VersioningOptions(version="", default_version="") == VersioningOptions()


# ---- what a worker takes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "ours", "taken", "refused"),
    [
        ("none", "2", [None, "1", "2", "3"], []),
        ("strict", "2.0", ["2", "2.0.0"], [None, "1", "3"]),
        ("strict", None, [None], ["1"]),
        ("current_or_older", "2.0", [None, "1.9.9", "2", "2.0-rc1"], ["2.0.1", "10"]),
    ],
)
def test_a_worker_takes_what_its_strategy_says(
    strategy: str, ours: str | None, taken: list[str | None], refused: list[str | None]
) -> None:
    options = VersioningOptions(version=ours, match_strategy=strategy)
    environment = Environment(Codec(), {}, app_with(None).orchestrators, versioning=options)
    assert not any(isinstance(environment.serving("main", version), VersionMismatchError) for version in taken)
    assert all(isinstance(environment.serving("main", version), VersionMismatchError) for version in refused)
    assert options.mismatch("replayflow.schedule", None) is None


def test_a_mismatch_says_both_versions_and_what_the_worker_takes() -> None:
    options = VersioningOptions("2", match_strategy=VersionMatchStrategy.STRICT)
    mismatch = options.mismatch("main", "1")
    assert mismatch is not None
    assert mismatch.code == "RF135"
    assert "of version '1' of 'main'" in str(mismatch)
    assert "of version '2', takes that version alone" in str(mismatch)
    environment = Environment(Codec(), {}, app_with("1", "2").orchestrators)
    lacking = environment.serving("main", "3")
    assert "it has the versions '1', '2'" in str(lacking)
    assert "version='3'" in str(lacking)


def test_options_that_make_no_sense_are_refused() -> None:
    assert VersioningOptions(failure_strategy="FAIL").failure_strategy is VersionFailureStrategy.FAIL
    cases: list[tuple[dict[str, Any], str]] = [
        ({"match_strategy": "newest"}, "match_strategy is 'newest'; it is one of 'none', 'strict', 'current_or_older'"),
        ({"failure_strategy": "explode"}, "failure_strategy is 'explode'; it is one of 'reject', 'fail'"),
        ({"match_strategy": "current_or_older"}, "give version="),
        ({"version": 2}, "a version is text"),
    ]
    for wrong, message in cases:
        with pytest.raises(InvalidArgumentError, match=message):
            VersioningOptions(**wrong)
