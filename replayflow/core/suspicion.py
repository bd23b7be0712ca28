"""Which instances may have killed their worker: conclusions from deaths, without a clock and without a store.

A worker that dies leaves instances *in flight*. Who was in flight at one death is noted; who is so again at the next, without progress in between, is
*held*: it runs only in a *party* that is *watched*, one party at a time. The reasons are in `docs/decisions/0015-poison.md`.

1. Progress, a later piece of history, clears. So does being in flight no longer.
2. Only who was watched alone at a death gets a strike for it.
3. A death at which nobody was watched is an alibi for all that is held; strikes are forgotten where nothing else was in flight.
4. A stop in good order changes no suspicion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from replayflow.errors import PoisonError

POISON_PREFIX = f"{PoisonError.code}: "
"""What the problem of an instance that killed its worker begins with."""
K = TypeVar("K")
_SPLIT = 16
_GROWTH = 4.0
_PARTY_SECONDS, _ALONE_SECONDS = 1.0, 2.0
_RELEASES_MAX = 2  # after which a watch takes no longer: half a minute for one alone
_FIRST_GROWTH = 8.0  # of the rest, by the first strike; by each that follows it is the other
_REST_SECONDS_MAX = 60.0  # as far as alibis make it longer
_ALIBIS_MAX = 10


class Suspicion(Struct, frozen=True):
    """What is held against one instance, at one piece of its history."""

    piece: int
    """The last piece that it had. One later, and all of this is void."""
    is_held: bool = False
    is_watched: bool = False
    party: int = 0
    """How many were watched with it at the last death that was theirs; 0 where there was none."""
    strikes: int = 0
    """How many workers died while it was watched alone."""
    releases: int = 0
    """How often it was watched for as long as it gets, and did nothing, neither good nor bad."""
    alibis: int = 0
    """How many workers died while neither it nor any other suspect was let run."""

    def watched(self) -> Suspicion:
        """It is let go, with its party, and whoever dies now dies of them."""
        return replace(self, is_watched=True)

    def released(self) -> Suspicion:
        """It goes on unwatched. If its worker dies all the same, it is watched for longer the next time."""
        return Suspicion(self.piece, releases=self.releases + 1, alibis=self.alibis)


def is_poison(problem: bytes | None) -> bool:
    """Whether the problem of an instance's row is that it killed its worker."""
    return problem is not None and problem.startswith(POISON_PREFIX.encode())


def after(before: Mapping[K, Suspicion], in_flight: Mapping[K, int], died: bool) -> dict[K, Suspicion]:
    """What is suspected when a hub is taken. `in_flight` has the last pieces of those that a worker would set going now."""
    watched = sum(one.is_watched for one in before.values())
    is_from_outside = not watched and all(key in before and before[key].is_held for key in in_flight)
    found: dict[K, Suspicion] = {}
    for key, piece in in_flight.items():
        one = before.get(key)
        if one is None or one.piece != piece:
            if died:
                found[key] = Suspicion(piece)
        elif not died:
            found[key] = replace(one, is_watched=False)
        elif not one.is_held:
            found[key] = replace(one, is_held=True)
        elif one.is_watched:
            strikes = one.strikes + (watched == 1)
            found[key] = replace(one, is_watched=False, party=watched, strikes=strikes)
        elif watched:
            found[key] = one
        else:
            found[key] = replace(one, strikes=0 if is_from_outside else one.strikes, alibis=one.alibis + 1)
    return found


def parties(held: Iterable[tuple[K, Suspicion]]) -> list[list[K]]:
    """Who is watched together, and in what order: the most suspected first, and the more alone the more deaths have narrowed them down."""
    every = list(held)
    unnarrowed = sum(not one.party for _, one in every)

    def size(entry: tuple[K, Suspicion]) -> int:
        return -(-(entry[1].party or unnarrowed) // _SPLIT)

    ordered = sorted(every, key=lambda entry: (-entry[1].strikes, size(entry)))
    found: list[list[K]] = []
    for count, alike in groupby(ordered, key=size):
        keys = [key for key, _ in alike]
        found += [keys[first : first + count] for first in range(0, len(keys), count)]
    return found


def watch_seconds(party: Iterable[Suspicion]) -> float:
    """How long the party is watched, if nothing happens before."""
    every = list(party)
    first = _ALONE_SECONDS if len(every) == 1 else _PARTY_SECONDS
    return first * max(map(_scale, every))


def rest_seconds(first_seconds: float, held: Iterable[Suspicion]) -> float:
    """How long a worker does without what is held before the first party begins.

    With every strike the rest is longer than the last rest and the watch after it were together: what kills from outside, at a steady pace, hits it.
    Every alibi says that there is somebody who kills from outside, and makes it four times as long for who has a strike.
    """
    return max(_rest_seconds(first_seconds, one) for one in held)


def _rest_seconds(first_seconds: float, one: Suspicion) -> float:
    if not one.strikes:
        return first_seconds  # it has nothing to fear yet, and may be in a hurry
    due = first_seconds * _FIRST_GROWTH * _scale(one) * _GROWTH ** (one.strikes - 1)
    return max(due, min(due * _GROWTH ** min(one.alibis, _ALIBIS_MAX), _REST_SECONDS_MAX))


def _scale(one: Suspicion) -> float:
    return float(_GROWTH ** min(one.releases, _RELEASES_MAX))
