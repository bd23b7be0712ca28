"""How long the code pauses, how fast it may go, how much comes at a time."""

from __future__ import annotations

from datetime import timedelta

SOON = timedelta(milliseconds=200)
PAGE_ITEMS = 5
RATED_PER_SECOND = 3
