"""Golden histories: what has happened once, kept in a file, and replayed by every version of the code from then on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from replayflow.archive.lines import Archived, ArchivedExecution, whole_pieces
from replayflow.archive.verbs import read_export
from replayflow.client import Client, Instance
from replayflow.codec import Codec
from replayflow.core.definitions import Environment
from replayflow.core.entity.ids import is_entity_id
from replayflow.core.stepping import replayed
from replayflow.core.versions import of_version
from replayflow.engine.built_in import add_built_ins
from replayflow.errors import InvalidArgumentError, NonDeterminismError, UnknownNameError
from replayflow.registry import App


async def save_history(client: Client, instance: Instance[Any] | str, path: Path | str) -> None:
    """The instance's whole history is in the file, as `replayflow export` writes it. Check it in, and `check_history` with every version of the code.

    Raises:
        InstanceNotFoundError: there is no such instance.
    """
    id = instance if isinstance(instance, str) else instance.id
    lines = [line async for line in client.export([id])]
    await asyncio.to_thread(Path(path).write_text, "".join(lines), "utf-8")


def check_history(app: App, source: Path | str | Sequence[str]) -> int:
    """The app's code does what the histories say, in every execution of every instance; returns how many executions were replayed.

    `source` is a file that `save_history` or `replayflow export` wrote, or its lines. No activity runs. Entities are passed over: they have no
    code that waits.

    Raises:
        NonDeterminismError: the code differs; the message has the event and both source lines.
        UnknownNameError: the app has no orchestrator of a name in the file.
        InvalidArgumentError: the file is no export, or has no execution to check.
    """
    copy = App()
    copy.include(app)
    add_built_ins(copy)
    environment = Environment(
        Codec(payload_bytes_max=sys.maxsize), copy.activities, copy.orchestrators, entities=copy.entities
    )
    count = 0
    for archived in read_export(Path(source) if isinstance(source, str) else source):
        if is_entity_id(archived.id):
            continue
        for execution in archived.executions:
            _check(archived, execution, environment)
            count += 1
    if not count:
        raise InvalidArgumentError(
            f"{source if isinstance(source, str | Path) else 'the export'} has no execution to check"
        )
    return count


def _check(archived: Archived, execution: ArchivedExecution, environment: Environment) -> None:
    started = execution.started
    definition = environment.orchestrators.serving(started.name, started.version)
    if definition is None:
        raise UnknownNameError(
            f"instance '{archived.id}': the app has no orchestrator '{started.name}'{of_version(started.version)}"
        )
    for episode in replayed(definition, started, list(whole_pieces(execution)), environment):
        if isinstance(episode.problem, NonDeterminismError):
            raise episode.problem
        if episode.problem is not None:
            raise NonDeterminismError(f"instance '{archived.id}': {episode.problem}") from episode.problem
