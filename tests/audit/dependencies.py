"""The packages that replayflow brings along, as they are installed here."""

from __future__ import annotations

import base64
import csv
import hashlib
import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

FREE = re.compile(r"\b(MIT|MIT-0|BSD|BSD-2-Clause|BSD-3-Clause|Apache-2\.0|PSF-2\.0)\b")


def required(extras: frozenset[str] = frozenset()) -> list[Requirement]:
    """What replayflow itself asks for here, with those extras."""
    return list(_asked_by(distribution("replayflow"), extras))


def closure(extras: frozenset[str] = frozenset()) -> dict[str, Distribution]:
    """All that is installed because of replayflow, by name, and because of what that needs in its turn.

    Raises:
        PackageNotFoundError: one of them is not installed.
    """
    found: dict[str, Distribution] = {}
    waiting = required(extras)
    while waiting:
        asked = waiting.pop()
        name = re.sub(r"[-_.]+", "-", asked.name).lower()
        if name not in found:
            found[name] = distribution(asked.name)
            waiting += _asked_by(found[name], frozenset(asked.extras))
    return found


def every() -> dict[str, Distribution]:
    """The same with all extras, as far as they are installed."""
    found = closure()
    for extra in distribution("replayflow").metadata.get_all("Provides-Extra") or []:
        try:
            found |= closure(frozenset({extra}))
        except PackageNotFoundError:
            continue
    return found


def licence(package: Distribution) -> str:
    """What the package says of its licence, in the three ways in which packages say it."""
    about = package.metadata
    said = [*(about.get_all("License-Expression") or []), *(about.get_all("License") or [])]
    said += [each for each in about.get_all("Classifier") or [] if each.startswith("License ::")]
    return " / ".join(text[:80] for text in said)


def changed_files(package: Distribution) -> Iterator[str]:
    """The package's files that are not what its installer wrote down, or not there."""
    # Not `package.files`: newer Pythons leave out of it what is missing.
    for name, expected, _ in csv.reader((package.read_text("RECORD") or "").splitlines()):
        algorithm, _, digest = expected.partition("=")
        path = Path(str(package.locate_file(name)))
        if not digest:
            continue
        if not path.exists():
            yield f"{name} is missing"
        elif (
            base64.urlsafe_b64encode(hashlib.new(algorithm, path.read_bytes()).digest()).rstrip(b"=").decode() != digest
        ):
            yield f"{name} has been changed"


def _asked_by(package: Distribution, extras: frozenset[str]) -> Iterator[Requirement]:
    for text in package.requires or []:
        asked = Requirement(text)
        if asked.marker is None or any(asked.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield asked
