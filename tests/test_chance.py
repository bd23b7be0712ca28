"""Ids that nobody else has: as many as are wanted, all different, and in the form of one that is made alone."""

from __future__ import annotations

import pytest

from replayflow.chance import new_execution_id, new_execution_ids, new_instance_id, new_instance_ids
from replayflow.core.ids import check_instance_id

NOW = 1_795_448_772_936_916


@pytest.mark.parametrize("count", [0, 1, 999, 1_000, 1_001, 3_500])
def test_as_many_as_are_wanted_and_all_different(count: int) -> None:
    executions, instances = list(new_execution_ids(count)), list(new_instance_ids(NOW, count))
    assert len(set(executions)) == len(executions) == len(set(instances)) == len(instances) == count
    assert {len(id) for id in executions} <= {len(new_execution_id())}
    assert {len(id) for id in instances} <= {len(new_instance_id(NOW))}


def test_instances_of_later_sort_behind_those_of_earlier() -> None:
    assert max(new_instance_ids(NOW, 50)) < min(new_instance_ids(NOW + 1, 50)) < new_instance_id(NOW + 2)


def test_they_are_ids_that_an_instance_may_have() -> None:
    for id in (new_instance_id(NOW), *new_instance_ids(NOW, 3)):
        assert check_instance_id(id) == id
