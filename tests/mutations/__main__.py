"""python -m tests.mutations [--only NAME ...] [--list] [--skip-check]

Exit codes: 0 every mutation was killed; 1 one survived; 2 the source has changed under a mutation, or the suite fails without any.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.mutations.patching import Mutation, SourceChanged
from tests.mutations.table import MUTATIONS
from tests.mutations.trial import checked_killers, tried


def main() -> int:
    """Every mutation that is asked for has had its trial, and is reported on."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="this mutation alone; may be given several times"
    )
    parser.add_argument("--list", action="store_true", help="name the mutations, and what they break")
    parser.add_argument(
        "--skip-check", action="store_true", help="trust that the suite passes over the unbroken source"
    )
    asked = parser.parse_args()
    chosen = _chosen(asked.only)
    if chosen is None:
        return 2
    if asked.list:
        for mutation in chosen:
            _say(f"{mutation.invariant:4} {mutation.name}: {mutation.breaks}")
        return 0
    if not asked.skip_check:
        with tempfile.TemporaryDirectory(prefix="unbroken-") as folder:
            unbroken = checked_killers(chosen, Path(folder))
        if unbroken.failed is not None:
            _say(
                f"{unbroken.output}\n{unbroken.failed} fails without any mutation: nothing could be concluded from that"
            )
            return 2
    return _try_all(chosen)


def _try_all(chosen: list[Mutation]) -> int:
    began = time.monotonic()
    survived: list[str] = []
    for mutation in chosen:
        try:
            with tempfile.TemporaryDirectory(prefix=f"mutation-{mutation.name}-") as folder:
                verdict = tried(mutation, Path(folder))
        except SourceChanged as change:
            _say(str(change))
            return 2
        _say(str(verdict))
        if verdict.by is None:
            survived.append(mutation.name)
    _say(f"{len(chosen)} mutations, {len(chosen) - len(survived)} killed, in {time.monotonic() - began:.0f} s")
    if survived:
        _say(f"the suite has not noticed: {', '.join(survived)}")
    return 1 if survived else 0


def _chosen(names: list[str] | None) -> list[Mutation] | None:
    known = {mutation.name: mutation for mutation in MUTATIONS}
    missing = [name for name in names or () if name not in known]
    if missing:
        _say(f"there is no mutation {missing[0]!r}; there are: {', '.join(known)}")
        return None
    return [known[name] for name in names] if names else list(MUTATIONS)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
