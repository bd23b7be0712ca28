"""Texts that a hostile hand stores or types, and how to look at what became of them."""

from __future__ import annotations

import re

EVIL = (
    "a\x1b]0;title\x07b\x1b[31mred\x9b31mc1\x85\u202eleft\u2066apart\u2069\x00nul\rover\x08back\x7f\u2028line \x1b[2J"
)
"""A text that would name a terminal's window, clear it, write over what stands there, and turn the direction of reading."""

# What our own colours are made of. All else that begins with an escape is not ours.
_COLOURS = re.compile(r"\x1b\[(0|1|2|3[0-7]|9[0-7]|;)*m")
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def steering(output: str) -> list[str]:
    """What in the output would steer a terminal, but for colours of ours."""
    return _STEERING.findall(_COLOURS.sub("", output))
