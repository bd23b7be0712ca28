"""An instance with those that it started and those that started it.

Every shown instance costs a page and a count of its children, by index; those that are not shown are counted. What needs a look comes first: of many
children those that failed, are parked or have not ended are shown before those that completed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from replayflow.client.views import InstanceState, Views
from replayflow.core.instance import Status
from replayflow.store import Store
from replayflow.store.base import InstanceFilter, InstanceRecord

_ANCESTORS_MAX = 100
_NODES_MAX = 5_000
_BY_NEED = (
    frozenset({Status.FAILED}),
    frozenset({Status.SUSPENDED}),
    frozenset({Status.RUNNING, Status.PENDING}),
    frozenset({Status.CANCELED, Status.TERMINATED, Status.CONTINUED_AS_NEW}),
    frozenset({Status.COMPLETED}),
)


@dataclass(frozen=True, slots=True, repr=False)
class InstanceTree:
    """An instance with its sub-orchestrations, as they were when they were read."""

    state: InstanceState
    children: list[InstanceTree]
    """Those that are shown, in the order of their creation."""
    folded: Mapping[str, int] = field(default_factory=dict)
    """How many more children there are, by status."""

    def __repr__(self) -> str:
        return f"<InstanceTree '{self.state.id}' {self.state.status}, {len(self.children)} children shown>"  # it may be a thousand deep


@dataclass(frozen=True, slots=True)
class Lineage:
    """A tree, and above it the parent, its parent, and so on: the oldest first. One that is not there any more ends the line."""

    ancestors: list[InstanceState]
    tree: InstanceTree


async def lineage(store: Store, views: Views, record: InstanceRecord, depth: int, children_max: int) -> Lineage:
    """The instance's tree, so many generations deep, with so many children of each shown; and its ancestors."""
    ancestors: list[InstanceState] = []
    seen = {record.instance_id}
    parent_id = record.parent_id
    while parent_id is not None and parent_id not in seen and len(ancestors) < _ANCESTORS_MAX:
        seen.add(parent_id)
        parent = await store.get(parent_id)
        if parent is None:
            break
        ancestors.insert(0, views.state(parent))
        parent_id = parent.parent_id
    return Lineage(ancestors, await _Growing(store, views, children_max).tree(record, depth))


class _Growing:
    """The nodes that may still be shown, and how."""

    def __init__(self, store: Store, views: Views, children_max: int) -> None:
        self._store = store
        self._views = views
        self._children_max = children_max
        self._seen: set[str] = set()

    async def tree(self, record: InstanceRecord, depth: int) -> InstanceTree:
        root, children = await self._node(record, depth)
        waiting = [(root, iter(children))]  # a list and no recursion: generations have no end
        while waiting:
            node, left = waiting[-1]
            child = next(left, None)
            if child is None:
                waiting.pop()
            elif child.instance_id not in self._seen:
                below, children = await self._node(child, depth - len(waiting))
                node.children.append(below)
                waiting.append((below, iter(children)))
        return root

    async def _node(self, record: InstanceRecord, depth: int) -> tuple[InstanceTree, list[InstanceRecord]]:
        """The instance without its children yet, and those of them that are to be shown."""
        self._seen.add(record.instance_id)
        counts = await self._store.count(InstanceFilter(parent_id=record.instance_id), "status")
        shown: list[InstanceRecord] = []
        if depth > 0:
            places = min(self._children_max, _NODES_MAX - len(self._seen))
            shown = await self._most_telling(record.instance_id, counts, places)
        for child in shown:
            counts[child.status] -= 1
        folded = {status: count for status, count in counts.items() if count > 0}
        return InstanceTree(self._views.state(record), [], folded), shown

    async def _most_telling(self, parent_id: str, counts: Mapping[str, int], places: int) -> list[InstanceRecord]:
        found: list[InstanceRecord] = []
        for statuses in _BY_NEED:
            left = places - len(found)
            if left > 0 and any(counts.get(status) for status in statuses):
                page = await self._store.page(InstanceFilter(parent_id=parent_id, statuses=statuses), left)
                found += page.records
        return sorted(found, key=lambda child: child.created_at)
