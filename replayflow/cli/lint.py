"""lint: reads orchestrators' code and says what would not replay. It imports nothing of the user's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from replayflow.cli import output
from replayflow.cli.options import json_option
from replayflow.errors import InvalidArgumentError
from replayflow.lint import RULES, Finding, lint_file, python_files


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1)
@click.option("--rules", "lists_rules", is_flag=True, help="List the rules instead.")
@json_option
def lint(paths: tuple[str, ...], lists_rules: bool, as_json: bool) -> None:
    """Say what in the orchestrators of these files and folders would not replay.

    The code is read and not imported. `# replayflow: ignore[RFL01]` on a line, or on a `def` for all of it, says that a
    finding is all right. Exits with 1 where there are findings.
    """
    if lists_rules:
        _list_rules(as_json=as_json)
        return
    if not paths:
        raise InvalidArgumentError("there is nothing to check: name files or folders, such as replayflow lint flows/")
    found, files = _findings([Path(path) for path in paths])
    if as_json:
        documents = [{k: v for k, v in dataclasses.asdict(each).items() if k != "end_line"} for each in found]
        output.document({"files": files, "findings": documents})
    else:
        for each in found:
            output.line(str(each))
        what = "no findings" if not found else f"{len(found):,} finding{'s' if len(found) > 1 else ''}"
        output.note(f"{what} in {files:,} file{'s' if files != 1 else ''}")
    if found:
        click.get_current_context().exit(1)


def _findings(paths: list[Path]) -> tuple[list[Finding], int]:
    """What is wrong in them, and how many files there are.

    Raises:
        InvalidArgumentError: one of them is not there, or cannot be read.
    """
    missing = next((path for path in paths if not path.exists()), None)
    if missing is not None:
        raise InvalidArgumentError(f"there is no file and no folder {missing} (in {Path.cwd()})")
    found: list[Finding] = []
    files = 0
    for path in python_files(paths):
        files += 1
        try:
            found += lint_file(path)
        except OSError as error:
            raise InvalidArgumentError(f"{path} cannot be read: {error.strerror}") from None
    return found, files


def _list_rules(*, as_json: bool) -> None:
    if as_json:
        output.document({"rules": [dataclasses.asdict(rule) for rule in RULES.values()]})
        return
    rows = [(rule.code, rule.title, rule.why, rule.instead) for rule in RULES.values()]
    output.table(output.console(), ("code", "rule", "why", "instead"), rows, whole=1, cuts_last=False)
