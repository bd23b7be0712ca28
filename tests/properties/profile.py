"""How many programs are tried: few and always the same in the suite, many and other ones in a campaign.

A campaign (`python -m tests.properties --examples 10000`) says so by the environment, for the tests in the processes that it starts.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = "REPLAYFLOW_EXAMPLES"
"""The number of programs of a campaign, where this is one."""
_campaign = int(os.environ.get(EXAMPLES, "0"))
IS_CAMPAIGN = _campaign > 0


def programs_tried(count: int, *, share: float = 1.0) -> settings:
    """So many programs in the suite; in a campaign its number, or the share of it where one program takes many runs."""
    return settings(
        max_examples=max(1, int(_campaign * share)) if IS_CAMPAIGN else count,
        derandomize=not IS_CAMPAIGN,
        print_blob=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
