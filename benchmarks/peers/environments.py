"""The rivals' environments: one virtual environment each under `.peers/` in the checkout, versions pinned by the files beside this one.

An environment is there if its installation came to its end with the versions that are pinned now.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@dataclass(frozen=True)
class Environment:
    """Where one rival lives."""

    name: str
    with_npm: bool = False
    folder: Path = ROOT / ".peers"

    @property
    def python(self) -> Path:
        return self.folder / self.name / "bin" / "python"

    @property
    def is_ready(self) -> bool:
        try:
            return self._stamp.read_text("utf-8") == self._pins()
        except FileNotFoundError:
            return False

    def version(self, package: str) -> str:
        """What is pinned, from PyPI or npm."""
        found = re.search(rf'^\s*"?{re.escape(package)}(?:==|": ")([^"\s]+)', self._pins(), re.MULTILINE)
        if found is None:
            raise LookupError(f"{package} is not pinned for {self.name} in {HERE}")
        return found.group(1)

    def install(self) -> None:
        """Makes the environment anew. Raises CalledProcessError, or FileNotFoundError without npm."""
        home = self.folder / self.name
        self._stamp.unlink(missing_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        requirements = ["--requirement", str(self._requirements)]
        subprocess.run([str(self.python), "-m", "pip", "install", "--quiet", "--no-deps", *requirements], check=True)
        if self.with_npm:
            shutil.copy(HERE / "package.json", home)
            options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
            subprocess.run(["npm", "install", *options], cwd=home, check=True)
        self._stamp.write_text(self._pins(), "utf-8")

    @property
    def _stamp(self) -> Path:
        return self.folder / self.name / ".ready"

    @property
    def _requirements(self) -> Path:
        return HERE / f"requirements-{self.name}.txt"

    def _pins(self) -> str:
        pins = self._requirements.read_text("utf-8")
        return pins + (HERE / "package.json").read_text("utf-8") if self.with_npm else pins


DBOS = Environment("dbos")
DURABLETASK = Environment("durabletask")
RESTATE = Environment("restate", with_npm=True)
ENVIRONMENTS = [DBOS, DURABLETASK, RESTATE]


def install(environments: list[Environment] = ENVIRONMENTS) -> bool:
    """Whether all are installed now. One that can't be is told of and does not keep the others from being so."""
    for environment in environments:
        if environment.is_ready:
            continue
        print(f"installing {environment.name} ...", flush=True)
        try:
            environment.install()
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"{environment.name} is left out: {error}", file=sys.stderr)
    return all(environment.is_ready for environment in environments)
