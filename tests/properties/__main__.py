"""A long campaign: `python -m tests.properties --examples 10000` tries so many other programs for each law, and prints what reproduces a failure."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from tests.properties.profile import EXAMPLES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.properties", description=__doc__)
    parser.add_argument("--examples", type=int, default=1000, help="programs for each law (default: 1000)")
    parser.add_argument("--only", default="", help="the laws whose names fit, as for pytest -k")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "pytest", "-q", "--show-capture=no", "--durations=0", "tests/properties"]
    command += ["-k", arguments.only] if arguments.only else []
    return subprocess.run(command, env={**os.environ, EXAMPLES: str(arguments.examples)}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
