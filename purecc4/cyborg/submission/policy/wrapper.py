"""A wrapper of CybORG for policies that read raw observations."""

from __future__ import annotations

from CybORG.Agents.Wrappers import BlueFixedActionWrapper

from .raw import RawObservation, RawTranslator


class RawWrapper(BlueFixedActionWrapper):
    """Each agent's raw observation as a `RawObservation`. Action indices are those of the flat wrapper."""

    def reset(self, *args, **kwargs) -> tuple[dict[str, RawObservation], dict[str, dict]]:
        """Reset the environment. Returns observations and infos by agent."""
        observations, infos = super().reset(*args, **kwargs)
        ip_map = self.env.get_ip_map()
        self.translators = {agent: RawTranslator(agent) for agent in observations}
        return {agent: self.translators[agent].reset(seen, ip_map) for agent, seen in observations.items()}, infos

    def step(self, *args, **kwargs) -> tuple[dict[str, RawObservation], dict, dict, dict, dict]:
        """Step by action indices. Returns observations, rewards, terminated, truncated and infos by agent."""
        observations, *rest = super().step(*args, **kwargs)
        return {agent: self.translators[agent].step(seen) for agent, seen in observations.items()}, *rest
