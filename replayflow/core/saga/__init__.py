"""Sagas: work that is undone, the last first, when what follows it fails.

1. A compensation is registered before its action is asked for, in the same episode: an action that fails half-way is compensated, too.
2. While a saga undoes it is shielded: a request to cancel is heard when it is done.
3. A compensation does not fail: when its policy gives out, the instance is parked until it has been mended (docs/decisions/0008-saga.md).
4. All of this is orchestrator code: it decides the same on every replay, and keeps nothing outside the ledger (I2).
"""

from replayflow.core.saga.saga import Saga, run_saga
from replayflow.core.saga.undoing import MENDING

__all__ = ["MENDING", "Saga", "run_saga"]
