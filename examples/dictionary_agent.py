"""An agent written for CybORG's dictionaries, played on purecc4.

    python examples/dictionary_agent.py --episodes 1000

`--simulator cyborg` plays the same agent in CybORG (docs/cyborg.md).
"""

import argparse
import time

try:
    from CybORG.Simulator.Actions import Analyse, Restore, Sleep
except ImportError:  # the same classes without CybORG
    from purecc4.cyborg.objects import Analyse, Restore, Sleep


class Investigator:
    """Analyses hosts with a new process and sources of attacks. Restores hosts on which it finds files."""

    def __init__(self, name):
        self.name, self.suspects, self.addresses = name, [], {}

    def get_action(self, observation, action_space):
        entries = {name: entry for name, entry in observation.items() if isinstance(entry, dict)}
        for name, entry in entries.items():
            if "Sessions" in entry:  # the first observation names all own hosts
                self.addresses[entry["Interface"][0]["ip_address"]] = name
            for process in entry.get("Processes", []):
                self.suspects += self.suspected(name, process)
        done = observation.get("action")
        if isinstance(done, Analyse) and "Files" in entries.get(done.hostname, {}):
            return Restore(session=0, agent=self.name, hostname=done.hostname)
        if self.suspects and observation["success"].name != "IN_PROGRESS":
            return Analyse(session=0, agent=self.name, hostname=self.suspects.pop(0))
        return Sleep()

    def suspected(self, name, process):
        if set(process) == {"PID"}:
            found = [name]
        else:
            connections = [c for c in process.get("Connections", []) if c.get("remote_port") not in (None, 8800)]
            found = [self.addresses.get(connection["remote_address"]) for connection in connections]
        return [host for host in found if host and "router" not in host and host not in self.suspects]


def make_agents():
    return {f"blue_agent_{i}": Investigator(f"blue_agent_{i}") for i in range(5)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulator", choices=["purecc4", "cyborg"], default="purecc4")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--num-steps", type=int, default=500)
    args = parser.parse_args()
    if args.simulator == "cyborg":
        from on_cyborg import play
    else:
        from purecc4.adapters.cyborg_agents import play
    start = time.process_time()
    returns = play(make_agents, args.episodes, num_steps=args.num_steps)
    cost = (time.process_time() - start) / (args.episodes * args.num_steps * 5)
    error = returns.std() / len(returns) ** 0.5
    print(
        f"return {returns.mean():.0f} ± {error:.0f} (standard error), {1e6 * cost:.0f} CPU-microseconds per agent step"
    )


if __name__ == "__main__":
    main()
