"""The code that worlds run: activities that the world watches, orchestrators whose results can be worked out beforehand, entities that remember.

An app is made for each edition of the code: what was right at first, the same after a change that fits what is under way, and one that does not fit.
"""

from __future__ import annotations

from replayflow import App
from tests.simulation.code.activities import add_activities
from tests.simulation.code.editions import add_changing, add_wrong
from tests.simulation.code.entities import add_entities
from tests.simulation.code.families import add_families
from tests.simulation.code.measures import RATED_PER_SECOND
from tests.simulation.code.orchestrators import add_orchestrators
from tests.simulation.world import WRONG, World

__all__ = ["RATED_PER_SECOND", "app_of"]


def app_of(world: World, edition: int) -> App:
    """The code of the edition, whose activities tell the world what they do."""
    app = App()
    add_activities(app, world)
    add_orchestrators(app)
    add_families(app)
    add_entities(app)
    if edition != WRONG:
        add_changing(app, edition)
    else:
        add_wrong(app)
    return app
