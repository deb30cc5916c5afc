"""The team reward and its parts. Ported from `BlueRewardMachine.py` and `SimulationController.py:step`; Q1, Q2."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer

from .constants import NUM_ZONES, RedAction, Term
from .red import RedOrder
from .routing import zone_of
from .state import Rewards, Scenario


def by_zone(
    scenario: Scenario,
    phase: Int32[Array, ""],
    work_failed: Int32[Array, "zone"],
    access_failed: Int32[Array, "zone"],
    due: RedOrder,
    active: Bool[Array, "red"],
) -> Float[Array, "zone term"]:
    """LWF and ASF per failed green action, given the number of users that failed in each zone; RIA per Impact that is
    due, even if it fails or is dropped, of an agent that holds a session at the end of the step."""
    impact = (due.kind == RedAction.IMPACT) & active
    target = jnp.where(impact, zone_of(due.host()), NUM_ZONES)
    impacts = (target[:, None] == np.arange(NUM_ZONES)).sum(axis=0, dtype=jnp.int32)
    return scenario.rewards[phase, :NUM_ZONES] * jnp.stack([work_failed, access_failed, impacts], axis=-1)


def team_reward(scenario: Scenario, zones: Float[Array, "zone term"], restores: Integer[Array, ""]) -> Rewards:
    """The parts of the team reward: the terms of all zones, and the Restores submitted."""
    lwf, asf, ria = (zones[:, term].sum() for term in Term)
    return Rewards(lwf, asf, ria, cost=-scenario.restore_cost * restores)
