"""The command line: `replayflow --help`, for people, and with `--json` for scripts.

1. stdout has what was asked for and nothing else: a table or a text, with `--json` exactly one JSON document. All else goes to stderr.
2. The exit code says how it ended; `failures.EXIT_CODES` is the table.
3. What a user did wrong is told in a sentence with its code, never as a traceback of ours.
4. A command that only reads creates no database.
"""

from __future__ import annotations

from replayflow.cli.commands import main

__all__ = ["main"]
