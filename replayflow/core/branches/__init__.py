"""Where a history can be cut, and what an execution that begins with the first part of it is made of. `docs/decisions/0012-rewind-and-fork.md` has
the whole in prose.

1. What is kept of the past is kept piece by piece: of an episode that is cut in two nothing is kept but what came from outside, which comes again,
   and is decided upon by the code at hand (I2).
2. A cut never lies inside a saga that has been undone, or between the locks of a critical section and their release: what such a part did is
   no longer as its code believes.
3. What is kept is copied in `copied`, and nowhere else.
"""

from replayflow.core.branches.calls import running_calls
from replayflow.core.branches.cutting import forked, rewound
from replayflow.core.branches.history import Call, Cut, History
from replayflow.core.branches.places import before_event, before_failure
from replayflow.core.branches.results import edited, event_with_result

__all__ = [
    "Call",
    "Cut",
    "History",
    "before_event",
    "before_failure",
    "edited",
    "event_with_result",
    "forked",
    "rewound",
    "running_calls",
]
