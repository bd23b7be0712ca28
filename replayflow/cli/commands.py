"""All commands, in the order in which the help lists them."""

from __future__ import annotations

from replayflow.cli import (
    archive,
    branch,
    check,
    doctor,
    entity,
    explain,
    group,
    inspect,
    lint,
    purge,
    replay,
    run,
    schedule,
    start,
    tree,
    verbs,
    worker,
)

main = group.Commands("replayflow", help=group.HELP, epilog=group.epilog(), context_settings=group.SETTINGS)
group.add_version(main)
for command in (
    run.run,
    worker.worker,
    start.start,
    inspect.list_,
    inspect.count,
    inspect.show,
    tree.tree,
    inspect.history,
    inspect.result,
    verbs.raise_event,
    verbs.suspend,
    verbs.resume,
    verbs.cancel,
    verbs.terminate,
    purge.purge,
    branch.rewind,
    branch.restart,
    branch.fork,
    replay.replay,
    archive.export,
    archive.import_,
    schedule.schedule,
    entity.entity,
    check.check,
    lint.lint,
    doctor.doctor,
    explain.explain,
):
    main.add_command(command)
