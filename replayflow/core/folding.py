"""A history that comes from outside memory, folded: from a store, or from a file that somebody may have edited.

What the engine applies as it happens was decided by the engine, and is applied without a look. What it reads back may be damaged in a way that
leaves every event readable, and their order impossible: an answer to what was never asked, a retry of nothing. Such a history is refused as a whole
before a worker goes by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from replayflow.core.events import HistoryEvent
from replayflow.core.instance import Instance
from replayflow.errors import StoreCorruptError

# What applying events raises where one refers to what is not there.
_CONTRADICTIONS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)


def folded(pieces: Iterable[Sequence[HistoryEvent]]) -> Instance:
    """What the instance came to (I1).

    Raises:
        StoreCorruptError: no execution can have had this history.
    """
    instance = Instance()
    try:
        instance.apply_pieces(pieces)
    except _CONTRADICTIONS as error:
        raise StoreCorruptError(f"a stored history contradicts itself: {type(error).__name__}: {error}") from error
    for what, those, known in (
        ("a task", instance.retrying, instance.tasks),
        ("a sub-orchestration", instance.retrying_children, instance.children),
    ):
        if not those.keys() <= known.keys():
            raise StoreCorruptError(
                f"a stored history contradicts itself: it retries {what} that is not open ({min(those.keys() - known.keys())})"
            )
    return instance
