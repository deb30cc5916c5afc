"""CC4 with episodes sampled from an arm: the environment of the training algorithms and of the adapters."""

from typing import Any, ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt8

from purecc4.arms.sampling import Arm, sample
from purecc4.envs import cc4
from purecc4.envs.cc4.constants import ONE_ZONE_ACTIONS, ONE_ZONE_OBS


@runtime_checkable
class Env(Protocol):
    """An environment that the algorithms can train on, written for one environment."""

    arms: PyTree
    """Arms to train, stacked on a leading axis."""
    one_zone: tuple[int, int]
    """Observation and mask lengths of all agents but the last; the rest is padding."""

    def reset(self, key: PRNGKeyArray, arm: PyTree) -> tuple[Any, Any]:
        """(observation, state) of an episode; an observation has `flat` [blue obs] and `mask` [blue action]."""

    def step(self, key: PRNGKeyArray, state: Any, action: Int[Array, "blue"]) -> tuple:
        """(observation, state, team reward, done, info); `info` has the reward terms by name, and `overflow`."""


class ArmEnv(eqx.Module):
    """CC4 against one red, with episodes of some arms. All leaves are arrays: equal shapes share compiled programs."""

    params: cc4.Params
    arms: Arm
    """Arms to train, stacked on a leading axis; `reset` takes one of them."""
    one_zone: ClassVar[tuple[int, int]] = (ONE_ZONE_OBS, ONE_ZONE_ACTIONS)
    """Observation and mask lengths of single-zone agents; the rest is padding."""

    def reset(self, key: PRNGKeyArray, arm: Arm) -> tuple[cc4.Observation, cc4.State]:
        """Sample an episode from the banks of one arm and start it."""
        return cc4.start(sample(key, arm, self.params))

    def step(
        self,
        key: PRNGKeyArray,
        state: cc4.State,
        action: Int[Array, "blue"],
        messages: UInt8[Array, "blue bit"] | None = None,
    ) -> tuple[cc4.Observation, cc4.State, Float[Array, ""], Bool[Array, ""], dict[str, Any]]:
        """Advance one step: (observation, state, team reward, done, info).

        `info` has the reward terms by name, which add up to the reward, and `overflow`, the entries that the tables of
        the simulator dropped in this step.
        """
        obs, after, reward, done, info = cc4.step(key, state, action, self.params, messages)
        dropped = (after.overflow - state.overflow).astype(jnp.float32)
        return obs, after, reward, done, vars(info.rewards) | {"overflow": dropped}
