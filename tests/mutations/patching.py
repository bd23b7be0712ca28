"""A mutation, and what it makes of a source tree.

An edit names whole lines, as they are written at the outermost indentation: they are found at any indentation, in any file of the package (or of the
part of it that is named), so that code may move without its mutations. They have to be there exactly once: where they are not, the source has
changed, and the mutation says so instead of quietly testing nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

_KINDS = (".py", ".sql")


@dataclass(frozen=True, slots=True)
class Edit:
    """The lines `old`, once in the part `within` of the package, give way to the lines `new`."""

    old: str
    new: str
    within: str = ""


@dataclass(frozen=True, slots=True)
class Mutation:
    """What is broken on purpose: `invariant` (of ARCHITECTURE.md) and, in words, how; `killers` are the tests that are likely to notice."""

    name: str
    invariant: str
    breaks: str
    edits: tuple[Edit, ...]
    killers: tuple[str, ...]


class SourceChanged(Exception):
    """A mutation does not fit the source any more."""


def mutated(package: Path, mutation: Mutation) -> dict[Path, str]:
    """The files of the package that the mutation changes, with their new texts.

    Raises:
        SourceChanged: lines of it are not in the package, or more than once.
    """
    texts: dict[Path, str] = {}
    for edit in mutation.edits:
        places = [
            (path, text, *place) for path, text in _sources(package, edit, texts) for place in _places(text, edit.old)
        ]
        if len(places) != 1:
            where = f"replayflow/{edit.within}"
            found = "nowhere" if not places else f"{len(places)} times ({', '.join(path.name for path, *_ in places)})"
            raise SourceChanged(
                f"mutation '{mutation.name}': the source has changed: these lines are {found} in {where}, and have to be there once; "
                f"mend tests/mutations/table.py:\n{indent(edit.old, '    ')}"
            )
        path, text, first, count, margin = places[0]
        lines = text.splitlines(keepends=True)
        lines[first : first + count] = [indent(edit.new, margin) + "\n"] if edit.new else []
        texts[path] = "".join(lines)
    return texts


def _sources(package: Path, edit: Edit, texts: dict[Path, str]) -> Iterator[tuple[Path, str]]:
    for path in sorted(package.rglob("*")):
        if path.suffix in _KINDS and path.relative_to(package).as_posix().startswith(edit.within):
            yield path, texts.get(path) or path.read_text("utf-8")


def _places(text: str, old: str) -> Iterator[tuple[int, int, str]]:
    """Where the lines begin, how many they are, and how far they are indented."""
    wanted = old.splitlines()
    if wanted[0] not in text:
        return
    lines = text.splitlines()
    for first in range(len(lines) - len(wanted) + 1):
        margin = lines[first][: len(lines[first]) - len(lines[first].lstrip())]
        if all(lines[first + n] == (margin + line if line else "") for n, line in enumerate(wanted)):
            yield first, len(wanted), margin
