"""What migration 10 adds is filled in: the sums of all that is in a file of format 9, which has none to be verified.

Frozen, like a migration's script: what later formats change is changed by later migrations.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from replayflow.store.sqlite.statements import WHOLE
from replayflow.store.sqlite.sums import of_past, of_row, of_shown, of_start

_INSTANCES_AT_ONCE = 1_000


def fill(connection: sqlite3.Connection) -> None:
    """All that is there has its sums, and pieces have their times 31-fold."""
    after = -(2**63)
    while found := connection.execute(WHOLE["fill_instances"], (after, _INSTANCES_AT_ONCE)).fetchall():
        for row in found:
            _fill_instance(connection, row)
        after = found[-1][0]
    # From each row the columns that name it; the sum is of all.
    for several, one, name in (
        ("fill_messages", "fill_one_message", slice(0, 1)),
        ("fill_keys", "fill_one_key", slice(0, 2)),
        ("fill_marks", "fill_one_mark", slice(0, 3)),
        ("fill_suspicions", "fill_one_suspicion", slice(0, 1)),
        ("fill_code", "fill_one_code", slice(0, 2)),
        ("fill_counts", "fill_one_count", slice(0, 2)),
        ("fill_hub", "fill_hub_sum", slice(0, 0)),
    ):
        rows = connection.execute(WHOLE[several]).fetchall()
        connection.executemany(WHOLE[one], [(of_row(*row), *row[name]) for row in rows])


def _fill_instance(connection: sqlite3.Connection, row: Sequence[Any]) -> None:
    key, id, execution_id, name, version, status, start, number, wake_at, created_at = row[:10]
    completed_at, custom_status, output, failure, problem, orphans, parent_id, tags, progress = row[10:]
    past = connection.execute(WHOLE["fill_executions"], (key,)).fetchall()
    beginnings = {first: execution for execution, first in past}
    ends = dict(zip((first for _, first in past), [*(first for _, first in past), number][1:], strict=True))
    start_sum = of_start(start, key, id, execution_id, name, version, created_at, parent_id, tags, number)
    last, sum = number, start_sum
    pieces: list[tuple[int, int]] = []
    for rowid, at, events in connection.execute(WHOLE["fill_pieces"], (key,)).fetchall():
        if at in beginnings:
            # What the past execution was is not known as a whole any more; its sum binds its events to its id and its place.
            begun = crc32(events)
            stored = of_past(events, key, beginnings[at], at, ends[at], begun)
            connection.execute(WHOLE["fill_past_execution"], (stored, key, beginnings[at]))
            sum = begun
        elif at == number + 1:
            sum = crc32(events, start_sum)
        else:
            sum = crc32(events, sum)
        last = max(last, at)
        pieces.append((sum, rowid))
    connection.executemany(WHOLE["fill_one_piece"], pieces)
    sum = of_shown(start_sum, status, wake_at, custom_status, output, failure, completed_at, orphans, progress, last)
    problem_sum = None if problem is None else of_row(problem)
    sums = (last, start_sum, sum, problem_sum)
    connection.execute(WHOLE["fill_one_instance"], (*sums, key))
