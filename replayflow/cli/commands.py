"""All commands, in the order in which the help lists them."""

from __future__ import annotations

from replayflow.cli import archive, entity, explain, group, inspect, replay, run, schedule, start, verbs, worker

main = group.Commands("replayflow", help=group.HELP, epilog=group.epilog(), context_settings=group.SETTINGS)
group.add_version(main)
for command in (
    run.run,
    worker.worker,
    start.start,
    inspect.list_,
    inspect.show,
    inspect.history,
    inspect.result,
    verbs.raise_event,
    verbs.suspend,
    verbs.resume,
    verbs.cancel,
    verbs.terminate,
    replay.replay,
    archive.export,
    archive.import_,
    schedule.schedule,
    entity.entity,
    explain.explain,
):
    main.add_command(command)
