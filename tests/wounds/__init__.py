"""Wounds of other systems, as laws of this one; and what a hostile hand may give to it.

Whoever wrote a durable engine was hurt somewhere. Each law here names the kind of system that was, with a public report where there is one, and says
what holds instead. What other rooms of the tests already keep is not kept twice:

    wound                                                        law
    empty `when_all` hangs                                       core/test_core_tasks.py, semantics/test_scheduling.py
    `when_all` of what is complete already hangs                 core/test_core_tasks.py
    a cancelled timer keeps the instance running                 semantics/test_scheduling.py
    retries read the wall clock while they are replayed          semantics/test_failures.py, test_scheduling.py; engine/test_start_up.py
    clean-up of an evicted generator schedules work              engine/test_warm_and_cold.py
    an activity's `SystemExit` ends the worker                   engine/test_activities.py, test_poison.py
    an error that cannot be pickled, or read, ends the worker    test_errors.py, engine/test_activities.py
    an orchestrator or activity kills its process for ever       engine/test_poison.py
    an oversized result is tried again for ever                  semantics/test_failures.py, engine/test_storms.py
    schedules burst after a stop                                 patterns/test_schedule.py
    locks of entities leak                                       semantics/test_entity_locks.py
    places under a limit leak                                    semantics/test_limits.py
    late results reach the next instance of the same id          semantics/test_purge.py, test_children_and_ids.py
    a stale owner writes                                         engine/test_durable_first.py, test_ownership.py; store/
    terminate races with the end                                 engine/test_storms.py
    a thousand executions, ten thousand events                   engine/test_large.py
    an empty map; failures of a map that are told many times     semantics/test_map.py
    a lease that runs out while the work goes on                 there are none: engine/test_ownership.py, test_shutdown.py
    two starts with one id                                       semantics/test_children_and_ids.py, engine/test_storms.py
"""
