"""The fixtures that pytest has where replayflow is installed. Nothing is imported until one is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from replayflow.testing.hub import VirtualHub


@pytest.fixture
def virtual_hub() -> type[VirtualHub]:
    """`VirtualHub`: `async with virtual_hub(app, fakes={...}) as hub`."""
    from replayflow.testing.hub import VirtualHub

    return VirtualHub
