"""What pip-audit says of packages, and, as clearly, of which it says nothing.

It is content where its service does not know a package, or does not answer for it: that is not the same as to have been found harmless.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SECONDS_MAX = 120


@dataclass(slots=True)
class Audit:
    """Packages with what is known against them; those without anything; and those of which nothing is known, each with the reason."""

    vulnerable: dict[str, list[str]] = field(default_factory=dict)
    clean: list[str] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What was found out, in a line for each package that there is something to say of."""
        lines = [f"VULNERABLE: {name}: {known}" for name, every in self.vulnerable.items() for known in every]
        if self.clean:
            lines.append(f"audited: {', '.join(self.clean)}: no known vulnerability")
        if self.unknown:
            reasons = "; ".join(sorted(set(self.unknown.values())))
            lines.append(f"not audited: {', '.join(self.unknown)}: {reasons}")
        return "\n".join(lines)


def ask(versions: Mapping[str, str]) -> Audit:
    """What pip-audit says of the packages in those versions."""
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "requirements.txt"
        asked.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()), "utf-8")
        command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
        try:
            done = subprocess.run(
                [*command, "--disable-pip", "--no-deps", "-r", str(asked)],
                capture_output=True,
                text=True,
                timeout=SECONDS_MAX,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _nothing_known(versions, f"the advisory service has not answered within {SECONDS_MAX} s")
    return read(done.stdout, done.stderr, versions)


def read(answer: str, errors: str, versions: Mapping[str, str]) -> Audit:
    """What pip-audit's answer says of the packages. Of those that it leaves out nothing is known."""
    try:
        said = {one["name"]: one for one in json.loads(answer)["dependencies"]}
    except (ValueError, KeyError, TypeError):
        last = errors.strip().splitlines()[-1:] or ["it said nothing"]
        return _nothing_known(versions, f"pip-audit has no answer ({last[0][:200]})")
    found = Audit()
    for name, version in versions.items():
        one = said.get(name)
        shown = f"{name} {version}"
        if one is None:
            found.unknown[shown] = "pip-audit leaves it out"
        elif "skip_reason" in one:
            found.unknown[shown] = "the index that is set up here answers for no advisories"
        elif one["vulns"]:
            found.vulnerable[shown] = [_named(known) for known in one["vulns"]]
        else:
            found.clean.append(shown)
    return found


def _nothing_known(versions: Mapping[str, str], why: str) -> Audit:
    return Audit(unknown={f"{name} {version}": why for name, version in versions.items()})


def _named(known: dict[str, object]) -> str:
    fixed = known.get("fix_versions")
    since = f", mended in {', '.join(map(str, fixed))}" if isinstance(fixed, list) and fixed else ""
    return f"{known.get('id')}{since}"
