"""What a check found, and where; and the comments that say it is all right."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass

from replayflow.lint.rules import RULES

_IGNORE = re.compile(r"#\s*replayflow:\s*ignore(-file)?(?:\[([^\]]*)\])?")
_EVERY = frozenset({"*"})


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A place that breaks a rule. Lines and columns count from 1; `message` says what is there, why it matters, and what to write instead."""

    path: str
    line: int
    column: int
    code: str
    message: str
    end_line: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.code} {self.message}"


def finding(path: str, node: ast.AST, code: str, what: str, instead: str | None = None) -> Finding:
    """The finding at the node, with the words of its rule."""
    rule = RULES[code]
    line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1
    end = getattr(node, "end_lineno", None) or line
    return Finding(path, line, column, code, f"{what}: {rule.why}; {instead or rule.instead}", end)


class Ignored:
    """The comments of a file: `# replayflow: ignore[RFL01]` on a line, or on a `def` for all of it; `ignore-file` for the file. No list: all."""

    def __init__(self, source: bytes) -> None:
        self._lines: dict[int, frozenset[str]] = {}
        self._file: frozenset[str] = frozenset()
        if b"replayflow:" not in source:
            return
        try:
            for token in tokenize.tokenize(io.BytesIO(source).readline):
                if token.type == tokenize.COMMENT:
                    self._read(token)
        except (tokenize.TokenError, SyntaxError, ValueError):
            pass  # what the parser took and the tokenizer does not is looked at as if it had no comments from there

    def _read(self, token: tokenize.TokenInfo) -> None:
        found = _IGNORE.search(token.string)
        if found is None:
            return
        codes = _EVERY if found[2] is None else frozenset(code.strip().upper() for code in found[2].split(","))
        if found[1]:
            self._file |= codes
        else:
            self._lines[token.start[0]] = codes

    def hides(self, found: Finding, function: ast.AST) -> bool:
        """Whether a comment says that the finding, in the function, is all right."""
        if _has(self._file, found.code):
            return True
        lines = [*range(found.line, found.end_line + 1)] if self._lines else []
        decorators = getattr(function, "decorator_list", [])
        head = [function, *decorators]
        lines += [line for node in head if (line := getattr(node, "lineno", None)) is not None]
        return any(_has(self._lines.get(line, frozenset()), found.code) for line in lines)


def _has(codes: frozenset[str], code: str) -> bool:
    return code in codes or "*" in codes
