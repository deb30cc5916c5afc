"""The team reward and its parts. Ported from `BlueRewardMachine.py` and `SimulationController.py:step`; Q1 and Q2."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer

from .constants import MAX_USERS, NUM_ZONES, SLOTS, RedAction, Term
from .red import RedOrder
from .state import Rewards, Scenario


def _by_zone(failed: Bool[Array, "green"]) -> Float[Array, "zone"]:
    return failed.reshape(NUM_ZONES, MAX_USERS).sum(axis=1, dtype=jnp.float32)


def team_reward(
    scenario: Scenario,
    phase: Int32[Array, ""],
    work_failed: Bool[Array, "green"],
    access_failed: Bool[Array, "green"],
    due: RedOrder,
    active: Bool[Array, "red"],
    restores: Integer[Array, ""],
) -> Rewards:
    """LWF and ASF per failed green action by the user's zone; RIA per Impact that is due, even if it fails or is
    dropped, of an agent that holds a session at the end of the step; the cost of Restores submitted."""
    table = scenario.rewards[phase, :NUM_ZONES]
    impact = (due.kind == RedAction.IMPACT) & active
    target = jnp.where(impact, due.host() // SLOTS, NUM_ZONES)
    impacts = (target[:, None] == np.arange(NUM_ZONES)).sum(axis=0, dtype=jnp.float32)
    return Rewards(
        lwf=(table[:, Term.LWF] * _by_zone(work_failed)).sum(),
        asf=(table[:, Term.ASF] * _by_zone(access_failed)).sum(),
        ria=(table[:, Term.RIA] * impacts).sum(),
        cost=-scenario.restore_cost * restores,
    )
