"""The contents of large payloads in the file: kept with what refers to them, and gone with the last that does (by triggers of the schema)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from replayflow.codec.reference import digest_of
from replayflow.store.outgoing import Outgoing, references_in
from replayflow.store.sqlite.statements import SQL


def keep(connection: sqlite3.Connection, outgoing: Outgoing) -> None:
    """The contents, their uses, and what sealed them are in the transaction."""
    connection.executemany(SQL["keep_content"], list(outgoing.contents.items()))
    connection.executemany(SQL["keep_use"], list(outgoing.uses))
    connection.executemany(SQL["keep_key_id"], [(key_id,) for key_id in outgoing.key_ids])
    outgoing.forget()


def recall(connection: sqlite3.Connection, outgoing: Outgoing, key: int, instance_id: str) -> None:
    """What the instance's row shows of large values stands for them again where it shows them again."""
    for shown in connection.execute(SQL["shown"], (key,)).fetchall():
        for reference in {one for stored in shown if type(stored) is bytes for one in references_in(stored)}:
            for content in fetch(connection, (digest_of(reference),)).values():
                outgoing.recall(reference, content, instance_id)


def fetch(connection: sqlite3.Connection, digests: Iterable[bytes]) -> dict[bytes, bytes]:
    """The contents that are there, by digest."""
    found = {}
    for digest in digests:
        for (content,) in connection.execute(SQL["content"], (digest,)):
            found[digest] = content
    return found


def are_plain(connection: sqlite3.Connection) -> bool:
    """Whether the hub has none, and nothing that is sealed: then nothing has to be looked through for them."""
    return bool(connection.execute(SQL["is_plain"]).fetchone()[0])


def recount(connection: sqlite3.Connection, key: int) -> None:
    """The uses of an instance are what it refers to now, after a part of its history has gone."""
    used = {digest for (digest,) in connection.execute(SQL["uses"], (key,))}
    if used:
        rows = connection.execute(SQL["all_kept"], {"instance": key})
        left = {digest_of(reference) for (stored,) in rows for reference in references_in(stored)}
        connection.executemany(SQL["forget_use"], [(key, digest) for digest in used - left])
