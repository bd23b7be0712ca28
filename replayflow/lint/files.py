"""From paths to findings. Files are read, never imported."""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from replayflow.lint.checks import check
from replayflow.lint.findings import Finding, Ignored, finding
from replayflow.lint.module import Module

_PASSED_OVER = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "build", "dist"})
_SIGNS = (b"orchestrator", b"OrchestrationContext")


def python_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files, and the Python files of the folders, in the order of their names; hidden folders and those of tools are passed over."""
    for path in paths:
        if path.is_dir():
            for folder, folders, names in os.walk(path):
                folders[:] = sorted(each for each in folders if each not in _PASSED_OVER and not each.startswith("."))
                yield from (Path(folder) / name for name in sorted(names) if name.endswith(".py"))
        else:
            yield path


def lint_file(path: Path) -> list[Finding]:
    """What is wrong in the file.

    Raises:
        OSError: it cannot be read.
    """
    return lint_source(path.read_bytes(), str(path))


def lint_source(source: bytes, path: str = "<source>") -> list[Finding]:
    """What is wrong in the source text, by line. What cannot be parsed is a finding, where it could have had an orchestrator."""
    if not any(sign in source for sign in _SIGNS):
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes, say: the user's own tools tell of these
            module = Module(ast.parse(source))
    except SyntaxError as error:
        return [_unreadable(path, error.lineno or 1, error.offset or 1, error.msg)]
    except (ValueError, RecursionError, MemoryError) as error:  # a null byte; nested deeper than Python's parser goes
        return [_unreadable(path, 1, 1, str(error) or type(error).__name__)]
    ignored = Ignored(source)
    found = {
        each for code in module.codes() for each in check(module, code, path) if not ignored.hides(each, code.function)
    }
    return sorted(found)


def _unreadable(path: str, line: int, column: int, why: str) -> Finding:
    place = ast.Pass(lineno=max(line, 1), col_offset=max(column - 1, 0), end_lineno=max(line, 1))
    return finding(path, place, "RFL00", why)
