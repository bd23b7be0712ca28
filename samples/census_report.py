"""What the census measures of a source file, and what it reports of many: plain Python that knows nothing of the engine.

The same facts, in any order, make the same report: every ranking breaks its ties by name.
"""

import ast
import heapq
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

TOP = 10
# A null byte and deep nesting are no SyntaxError in every version of Python, and a file may have gone since it was listed.
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError, OSError)


@dataclass(slots=True)
class SourceFacts:
    """One file; `problem` says why it does not parse, and is None where it does. Imports are top-level names, without the relative ones."""

    path: str
    lines: int = 0
    functions: int = 0
    classes: int = 0
    longest_function: str = ""
    longest_function_lines: int = 0
    imports: list[str] = field(default_factory=list)
    problem: str | None = None


@dataclass(slots=True)
class Ranked:
    name: str
    count: int


@dataclass(slots=True)
class Unparsable:
    path: str
    problem: str


@dataclass(slots=True)
class Report:
    files: int
    lines: int
    functions: int
    classes: int
    longest_files: list[Ranked]
    longest_functions: list[Ranked]
    most_functions: list[Ranked]
    most_classes: list[Ranked]
    most_imported: list[Ranked]
    unparsable: list[Unparsable]


def source_paths(root: Path) -> list[str]:
    """The .py files under the root, relative to it and in order; what is installed on top of the library does not count."""
    paths = (path.relative_to(root) for path in root.rglob("*.py"))
    return sorted(path.as_posix() for path in paths if "site-packages" not in path.parts and (root / path).is_file())


def facts_of(root: Path, path: str) -> SourceFacts:
    facts = SourceFacts(path)
    try:
        source = (root / path).read_bytes()
        facts.lines = len(source.splitlines())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in old test data
            tree = ast.parse(source)
    except UNREADABLE as error:
        facts.problem = f"{type(error).__name__}: {error}"
    else:
        _measure(tree, facts)
    return facts


def report_of(measured: Iterable[SourceFacts]) -> Report:
    every = list(measured)
    return Report(
        files=len(every),
        lines=sum(facts.lines for facts in every),
        functions=sum(facts.functions for facts in every),
        classes=sum(facts.classes for facts in every),
        longest_files=_top((facts.path, facts.lines) for facts in every),
        longest_functions=_top(
            (f"{facts.path}: {facts.longest_function}", facts.longest_function_lines) for facts in every
        ),
        most_functions=_top((facts.path, facts.functions) for facts in every),
        most_classes=_top((facts.path, facts.classes) for facts in every),
        most_imported=_top(Counter(name for facts in every for name in facts.imports).items()),
        unparsable=sorted(
            (Unparsable(facts.path, facts.problem) for facts in every if facts.problem is not None),
            key=lambda one: one.path,
        ),
    )


def show(report: Report) -> None:
    """Prints the report for a person."""
    print(f"{report.files:,} files, {report.lines:,} lines, {report.functions:,} functions, {report.classes:,} classes")
    for title, ranking in (
        ("Longest files, in lines", report.longest_files),
        ("Longest functions, in lines, one of each file", report.longest_functions),
        ("Most functions", report.most_functions),
        ("Most classes", report.most_classes),
        ("Imported by most files", report.most_imported),
    ):
        print(f"\n{title}")
        for one in ranking:
            print(f"{one.count:>9,}  {one.name}")
    print(f"\nFiles that do not parse: {len(report.unparsable)}")
    for unparsable in report.unparsable:
        print(f"  {unparsable.path}\n      {unparsable.problem}")


def _measure(tree: ast.Module, facts: SourceFacts) -> None:
    imports: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                facts.functions += 1
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > facts.longest_function_lines:
                    facts.longest_function, facts.longest_function_lines = node.name, lines
            case ast.ClassDef():
                facts.classes += 1
            case ast.Import():
                imports.update(_top_level(alias.name) for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                imports.add(_top_level(module))
    facts.imports = sorted(imports)


def _top_level(module: str) -> str:
    return module.partition(".")[0]


def _top(counted: Iterable[tuple[str, int]]) -> list[Ranked]:
    ranked = (Ranked(name, count) for name, count in counted if count)
    return heapq.nsmallest(TOP, ranked, key=lambda one: (-one.count, one.name))
