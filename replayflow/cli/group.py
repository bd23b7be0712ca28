"""The group of all commands: its help, and the one place where an error becomes a text and an exit code."""

from __future__ import annotations

import io
import logging
import sys
from typing import Any

import click

from replayflow.cli import failures, output

HELP = """Durable orchestrations in one SQLite file: run them, watch them, steer them.

\b
  replayflow run flows.py:checkout --input '{"id": "o-1"}'
  replayflow worker flows.py:app
  replayflow start checkout --input '{"id": "o-2"}'
  replayflow list

Every command that talks to a store takes --store and --json after its name.
"""
SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def epilog() -> str:
    """What the help ends with: the exit codes."""
    rows = "\n".join(f"  {code:>3}  {meaning}" for code, meaning in failures.EXIT_CODES.items())
    return f"\b\nExit codes:\n{rows}"


def add_version(group: click.Group) -> None:
    """`--version` says which replayflow this is."""
    click.version_option(package_name="replayflow", message="%(package)s %(version)s")(group)


class Commands(click.Group):
    """Lists its commands in the order in which they were added, and ends the process with the documented exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        return list(self.commands)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        arguments = kwargs.get("args", args[0] if args else None)
        as_json = "--json" in (sys.argv[1:] if arguments is None else list(arguments))
        kwargs["standalone_mode"] = False
        _escape_what_cannot_be_printed()
        if logging.lastResort is not None:  # what writes warnings where nobody has set up logging
            logging.lastResort.setFormatter(output.LogLines())
        try:
            code = super().main(*args, **kwargs)
        except (Exception, KeyboardInterrupt) as error:
            code = failures.report(error, as_json)
        sys.exit(code if isinstance(code, int) else 0)


def _escape_what_cannot_be_printed() -> None:
    """stdout and stderr write what their encoding lacks as escapes: an id from elsewhere must not end a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
