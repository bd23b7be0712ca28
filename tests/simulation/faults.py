"""What goes wrong in a world, and how often: drawn from its seed.

Each seed has its own mixture ("swarm testing"): most faults are off in any one world, so that in some worlds two of them meet often, and others run
long enough without a crash to get somewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from random import Random


@dataclass(frozen=True, slots=True)
class Faults:
    """Shares are of 1, per call where nothing else is said; `every` are mean times in virtual seconds, 0 for never."""

    crash_before_write: float = 0.0
    crash_after_write: float = 0.0
    crash_every: float = 0.0
    stop_every: float = 0.0
    """The worker's process stands still for a while; the hub stays its own."""
    takeover_every: float = 0.0
    """Somebody takes the hub by force, from a worker that runs or stands still, and goes on as if nothing had happened."""
    restart_every: float = 0.0
    """The worker is stopped in good order, and another starts, perhaps with other code."""
    write_fails: float = 0.0
    read_fails: float = 0.0
    full_every: float = 0.0
    """Every write fails for a while."""
    stall: float = 0.0
    """A call of the store takes a hundred times as long."""
    client_dies: float = 0.0
    hint_late: float = 0.0
    """A hint that somebody has written comes late by up to five seconds; two that are under way become one."""
    clock_jumps_every: float = 0.0
    cool_every: float = 0.0
    doubles: float = 0.0
    """The end of an activity is told twice, the second time a while later."""
    wrong_code: float = 0.0
    """Of restarts: with code that does not fit."""
    older_code: float = 0.0
    """Of restarts: with the code of before the last change."""


_SHARES = {
    "crash_before_write": (0.002, 0.06),
    "crash_after_write": (0.002, 0.06),
    "write_fails": (0.005, 0.2),
    "read_fails": (0.005, 0.1),
    "stall": (0.002, 0.05),
    "client_dies": (0.01, 0.3),
    "hint_late": (0.05, 0.9),
    "doubles": (0.02, 0.3),
    "wrong_code": (0.1, 0.5),
    "older_code": (0.1, 0.5),
}
_TIMES = {
    "crash_every": (0.3, 10.0),
    "stop_every": (0.3, 10.0),
    "takeover_every": (0.3, 10.0),
    "restart_every": (0.3, 10.0),
    "full_every": (2.0, 20.0),
    "clock_jumps_every": (0.5, 20.0),
    "cool_every": (0.2, 5.0),
}
_SHARE_ON = 0.45


def drawn(chance: Random) -> Faults:
    """The mixture of one world. One in twenty has no faults at all: what fails there fails anywhere."""
    calm = chance.random() < 0.05
    found: dict[str, float] = {}
    for field in fields(Faults):
        low, high = _SHARES.get(field.name) or _TIMES[field.name]
        is_on, value = chance.random() < _SHARE_ON, low * (high / low) ** chance.random()
        found[field.name] = value if is_on and not calm else 0.0
    return Faults(**found)


NONE = Faults()
