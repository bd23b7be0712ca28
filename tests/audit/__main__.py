"""python -m tests.audit [--strict]

Exit codes: 0 nothing is known against any package, or, without --strict, nobody could be asked, which is said; 1 otherwise.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys

from tests.audit.advisories import Audit, ask
from tests.audit.dependencies import every


def main() -> int:
    """Every package that comes along with replayflow has been asked about."""
    parser = argparse.ArgumentParser(prog="python -m tests.audit", description=__doc__)
    parser.add_argument("--strict", action="store_true", help="fail where not every package could be audited")
    strict = parser.parse_args().strict
    versions = {name: package.version for name, package in sorted(every().items())}
    if importlib.util.find_spec("pip_audit") is None:
        found = Audit(unknown=dict.fromkeys(versions, "pip-audit is not installed (pip install --group audit)"))
    else:
        found = ask(versions)
    sys.stdout.write(f"{found.text}\n")
    return 1 if found.vulnerable or (strict and found.unknown) else 0


if __name__ == "__main__":
    sys.exit(main())
