"""The team reward and its parts. Ported from `BlueRewardMachine.py` and `SimulationController.py:step`; Q1, Q2."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer

from .constants import NUM_ZONES, RedAction, RewardTerm
from .layout import host_of_target, zone_of
from .red import RedOrder
from .state import Rewards, Scenario


def by_zone(
    scenario: Scenario,
    phase: Int32[Array, ""],
    work_failed: Int32[Array, "zone"],
    access_failed: Int32[Array, "zone"],
    due: RedOrder,
    active: Bool[Array, "red"],
) -> Float[Array, "zone term"]:
    """The team reward by zone and term, without the cost of Restores.

    LWF and ASF count failed green actions by the user's zone. RIA counts Impacts that are due, even if they fail or are
    dropped, of agents that have a session at the end of the step (Q2).
    """
    impact = (due.kind == RedAction.IMPACT) & active
    target = jnp.where(impact, zone_of(host_of_target(due.target)), NUM_ZONES)
    impacts = (target[:, None] == np.arange(NUM_ZONES)).sum(axis=0, dtype=jnp.int32)
    return scenario.rewards[phase, :NUM_ZONES] * jnp.stack([work_failed, access_failed, impacts], axis=-1)


def team_reward(
    scenario: Scenario,
    phase: Int32[Array, ""],
    work_failed: Int32[Array, "zone"],
    access_failed: Int32[Array, "zone"],
    due: RedOrder,
    active: Bool[Array, "red"],
    restores: Integer[Array, ""],
) -> Rewards:
    """The parts of the team reward: `by_zone` summed, but without its count by zone, and the cost of Restores."""
    weights = scenario.rewards[phase]
    impact = (due.kind == RedAction.IMPACT) & active
    ria = weights.at[zone_of(host_of_target(due.target)), RewardTerm.RIA].get(mode="clip")

    def paid(term, counts):
        return jnp.where(counts > 0, weights[:NUM_ZONES, term] * counts, 0).sum()

    return Rewards(
        lwf=paid(RewardTerm.LWF, work_failed),
        asf=paid(RewardTerm.ASF, access_failed),
        ria=jnp.where(impact, ria, 0).sum(),
        cost=-scenario.restore_cost * restores,
    )
