"""The debugger of `replay`: it stops in the user's code when an event of the past reaches it."""

from __future__ import annotations

import pdb
import sys
import sysconfig
from pathlib import Path
from types import FrameType

import click

_NOT_THE_USERS = (
    "<",  # what is frozen, and what a library has generated
    str(Path(__file__).parent.parent),
    sysconfig.get_path("stdlib"),
    str(Path(click.__file__).parent),
)


class Debugger:
    """Stops in the user's code when the event with that number reaches it."""

    def __init__(self, number: int) -> None:
        self._number = number
        # The terminal's own line editing where there is one; else what the streams are now, which a test may have replaced.
        streams = (None, None) if sys.stdin.isatty() else (sys.stdin, sys.stdout)
        self._pdb = _InTheirCode(stdin=streams[0], stdout=streams[1])
        self._has_stopped = False

    @property
    def quitting(self) -> bool:
        """Whether the user has had enough."""
        return self._has_stopped and bool(self._pdb.quitting)

    def before(self, number: int) -> None:
        if not self._has_stopped and number >= self._number:
            self._has_stopped = True
            self._pdb.set_trace()


class _InTheirCode(pdb.Pdb):
    """A debugger that steps through the user's code, and over ours and the standard library's."""

    def stop_here(self, frame: FrameType) -> bool:
        return not frame.f_code.co_filename.startswith(_NOT_THE_USERS) and super().stop_here(frame)

    def set_stepinstr(self) -> None:
        """What newer Pythons begin with: they would stop at the next instruction, wherever that is, and so in ours."""
        self.set_step()
