"""The static check of orchestrators: what would make them decide otherwise when they are replayed, found without running them."""

from replayflow.lint.files import lint_file, lint_source, python_files
from replayflow.lint.findings import Finding
from replayflow.lint.rules import RULES, Rule

__all__ = ["RULES", "Finding", "Rule", "lint_file", "lint_source", "python_files"]
