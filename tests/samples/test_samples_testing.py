"""The sample of a test file runs as it stands, as a user would run it; and the page on testing says what is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from replayflow import testing

CHECKOUT = Path(__file__).parent.parent.parent
PAGE = (CHECKOUT / "docs" / "testing.md").read_text("utf-8")


def test_the_sample_of_a_test_file_passes() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "samples/test_order.py"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_names_all_that_there_is_to_test_with() -> None:
    for name in set(testing.__all__) - {"CrashReport"}:  # which nobody has to name
        assert name in PAGE, name
    for method in re.findall(r"`?hub\.(\w+)\(", PAGE):
        assert hasattr(testing.VirtualHub, method), method


def test_every_example_on_the_page_is_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        body = "".join(f"    {line}\n" for line in block.splitlines())
        compile(f"async def example():\n{body}", "docs/testing.md", "exec")
