"""`replayflow tree`: an instance with those that it started, and those that started it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

from replayflow.cli import output, values
from replayflow.cli.access import open_client
from replayflow.cli.options import Count, store_options
from replayflow.client import InstanceState, InstanceTree, Lineage

_DEPTH_MAX = 200
"""Nobody looks at more, and readers of JSON do not take it nested much deeper. `Instance.tree` has no such bound."""


@click.command()
@click.argument("id")
@click.option(
    "--depth",
    type=click.IntRange(min=0, max=_DEPTH_MAX),
    default=10,
    show_default=True,
    help="How many generations.",
)
@click.option(
    "--children",
    type=Count(min=0),
    default=20,
    show_default=True,
    help="How many children of each, those that need a look first; the others are counted.",
)
@store_options
def tree(id: str, depth: int, children: int, store: str | None, as_json: bool) -> None:
    """Show an instance with its sub-orchestrations and its parents."""

    async def read() -> Lineage:
        async with open_client(store) as client:
            return await client.get(id).tree(depth=depth, children_max=children)

    lineage = asyncio.run(read())
    if as_json:
        ancestors = [_brief(state) for state in lineage.ancestors]
        output.document({"ancestors": ancestors, "tree": _document(lineage.tree)})
        return
    to = output.console()
    to.print(_drawn(lineage))
    if _is_folded(lineage.tree):
        output.note(
            "there are more: --children and --depth say how many are shown, `replayflow list --parent ID` lists them all"
        )


def _drawn(lineage: Lineage) -> Tree:
    from rich.tree import Tree

    root = here = None
    for state in [*lineage.ancestors, lineage.tree.state]:
        line = _line(state, is_asked_for=state is lineage.tree.state and bool(lineage.ancestors))
        if here is None:
            root = here = Tree(line, guide_style="dim")
        else:
            here = here.add(line)
    assert root is not None  # noqa: S101 - the instance itself is always there
    assert here is not None  # noqa: S101 - so it is
    _grow(here, lineage.tree)
    return root


def _grow(branch: Tree, tree: InstanceTree) -> None:
    for child in tree.children:
        _grow(branch.add(_line(child.state)), child)
    if tree.folded:
        word = "more" if tree.children else ("child" if sum(tree.folded.values()) == 1 else "children")
        branch.add(output.cell(f"{sum(tree.folded.values()):,} {word}: {_counts(tree.folded)}"), style="dim")


def _is_folded(tree: InstanceTree) -> bool:
    return bool(tree.folded) or any(map(_is_folded, tree.children))


def _counts(folded: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {status}" for status, count in folded.items())


def _line(state: InstanceState, is_asked_for: bool = False) -> Text:
    line = output.cell(state.id)
    line.stylize("bold" if is_asked_for else "")
    line.append(f"  {values.one_line(state.name)}  ", style="dim")
    line.append(output.status(state))
    if state.problem is not None:
        line.append(f"  {values.one_line(state.problem)}", style="dim")
    elif state.failure is not None:
        line.append(f"  {values.one_line(str(state.failure))}", style="dim")
    return line


def _brief(state: InstanceState) -> dict[str, Any]:
    return {
        "id": state.id,
        "name": state.name,
        "status": str(state.status),
        "problem": state.problem,
        "failure": None if state.failure is None else str(state.failure),
        "created_at": state.created_at.isoformat(),
        "completed_at": None if state.completed_at is None else state.completed_at.isoformat(),
    }


def _document(tree: InstanceTree) -> dict[str, Any]:
    children = [_document(child) for child in tree.children]
    return _brief(tree.state) | {"children": children, "folded": dict(tree.folded)}
