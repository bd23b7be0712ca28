"""Few packages, free licences, files as they were installed; and an audit that says what it could not find out."""

from __future__ import annotations

import json
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from tests.audit.advisories import read
from tests.audit.dependencies import FREE, changed_files, closure, every, licence, required

OWN = {"click", "msgpack", "msgspec", "rich"}
PACKAGES = every()


def test_replayflow_asks_for_four_packages_each_by_a_lower_bound_alone() -> None:
    assert {asked.name for asked in required()} == OWN
    for asked in required(frozenset({"cron", "encryption", "pydantic"})):
        assert [bound.operator for bound in asked.specifier] == [">="], str(
            asked
        )  # an upper bound would hold our users back


def test_what_is_installed_is_within_the_bounds() -> None:
    for asked in required():
        assert PACKAGES[asked.name].version in asked.specifier


def test_with_all_that_those_need_there_are_eight_at_most() -> None:
    assert closure().keys() > OWN
    assert len(closure()) + 1 <= 8  # with replayflow itself: the README says so


@pytest.mark.parametrize("name", PACKAGES)
def test_each_has_a_free_licence(name: str) -> None:
    assert FREE.search(licence(PACKAGES[name])), licence(PACKAGES[name])


@pytest.mark.parametrize("name", PACKAGES)
def test_each_is_as_it_was_installed(name: str) -> None:
    assert list(changed_files(PACKAGES[name])) == []


def test_a_file_that_was_changed_or_is_gone_is_seen(tmp_path: Path) -> None:
    about = tmp_path / "thing-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n", "utf-8")
    hash = "sha256=LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564"  # of "foo"
    (about / "RECORD").write_text(f"a.py,{hash},3\nb.py,{hash},3\nc.py,{hash},3\nRECORD,,\n", "utf-8")
    (tmp_path / "a.py").write_text("foo", "utf-8")
    (tmp_path / "b.py").write_text("bar", "utf-8")
    assert list(changed_files(Distribution.at(about))) == ["b.py has been changed", "c.py is missing"]


# ---- what the advisory service says

VERSIONS = {"a": "1.0", "b": "2.0"}
BAD = {"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": [], "description": "long"}


def answer(**said: object) -> str:
    return json.dumps({"dependencies": [{"name": name, **about} for name, about in said.items()], "fixes": []})  # type: ignore[dict-item]


def test_what_is_known_against_a_package_is_named_with_its_mend() -> None:
    found = read(answer(a={"version": "1.0", "vulns": [BAD]}, b={"version": "2.0", "vulns": []}), "", VERSIONS)
    assert found.vulnerable == {"a 1.0": ["PYSEC-1, mended in 1.1"]}
    assert found.text == "VULNERABLE: a 1.0: PYSEC-1, mended in 1.1\naudited: b 2.0: no known vulnerability"


def test_what_the_service_does_not_know_has_not_been_audited() -> None:
    found = read(answer(a={"skip_reason": "not found", "vulns": []}), "", VERSIONS)
    assert (found.clean, found.vulnerable, list(found.unknown)) == ([], {}, ["a 1.0", "b 2.0"])
    assert found.text.startswith("not audited: a 1.0, b 2.0: ")


@pytest.mark.parametrize("said", ["", "{}", "null", '{"dependencies": 3}', "Traceback"])
def test_no_answer_is_no_good_answer(said: str) -> None:
    found = read(said, "first\nno route to host\n", VERSIONS)
    assert found.clean == []
    assert set(found.unknown.values()) == {"pip-audit has no answer (no route to host)"}
