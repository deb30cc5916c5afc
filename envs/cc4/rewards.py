"""The team reward and its parts. Ported from `BlueRewardMachine.py` and `SimulationController.py:step`; Q1, Q2."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, Integer

from .constants import NUM_ZONES, RedAction, Term
from .red import RedOrder
from .routing import zone_of
from .state import Rewards, Scenario


def team_reward(
    scenario: Scenario,
    phase: Int32[Array, ""],
    work_failed: Int32[Array, "zone"],
    access_failed: Int32[Array, "zone"],
    due: RedOrder,
    active: Bool[Array, "red"],
    restores: Integer[Array, ""],
) -> Rewards:
    """LWF and ASF per failed green action, given the number of users that failed in each zone; RIA per Impact that is
    due, even if it fails or is dropped, of an agent that holds a session at the end of the step; Restores submitted."""
    table = scenario.rewards[phase, :NUM_ZONES]
    impact = (due.kind == RedAction.IMPACT) & active
    target = jnp.where(impact, zone_of(due.host()), NUM_ZONES)
    impacts = (target[:, None] == np.arange(NUM_ZONES)).sum(axis=0, dtype=jnp.float32)
    return Rewards(
        lwf=(table[:, Term.LWF] * work_failed).sum(),
        asf=(table[:, Term.ASF] * access_failed).sum(),
        ria=(table[:, Term.RIA] * impacts).sum(),
        cost=-scenario.restore_cost * restores,
    )
