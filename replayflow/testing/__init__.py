"""Testing orchestrators: a hub in memory with a virtual clock, crashes at every point, and histories that are replayed for ever.

    from replayflow.testing import VirtualHub, check_history, crash_everywhere

    async def test_an_order_that_nobody_approves_is_refused():
        async with VirtualHub(app, fakes={charge: "receipt-1"}) as hub:
            order = await hub.client.start(checkout, Order("o-1"))
            assert await order.result() == "refused"            # three days pass in a millisecond

With pytest the fixture `virtual_hub` is there without any import.
"""

from replayflow.testing.crashes import CrashReport, crash_everywhere
from replayflow.testing.fakes import Call, in_turn
from replayflow.testing.golden import check_history, save_history
from replayflow.testing.hub import VirtualHub

__all__ = ["Call", "CrashReport", "VirtualHub", "check_history", "crash_everywhere", "in_turn", "save_history"]
