"""The dict that everybody shares stays empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from replayflow.core.instance import Instance
from replayflow.core.nothing import NOTHING


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda shared: shared.__setitem__(1, 2), id="an item"),
        pytest.param(lambda shared: shared.setdefault(1, 2), id="a default"),
        pytest.param(lambda shared: shared.update({1: 2}), id="an update"),
    ],
)
def test_nobody_writes_to_it(write: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match="everybody's"):
        write(Instance().timers)
    assert not NOTHING
    assert NOTHING.pop(1, None) is None
