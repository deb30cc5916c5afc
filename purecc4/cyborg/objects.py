"""Objects within CybORG's dictionaries: actions and enumerations.

They are CybORG's own if the program has imported it, as an agent written for it does, and else stand-ins with the same
names, values, attributes and texts. Needs only the standard library, like all that also runs in CybORG's Python.
"""

from __future__ import annotations

import enum
import sys
from typing import Any


class Action:
    """A blue action with the attributes that CybORG's has; see its `Action.py`."""

    priority, duration = 99, 1

    def __init__(self, session: int | None = None, agent: str | None = None):
        self.name, self.session, self.agent = type(self).__name__, session, agent

    def __str__(self) -> str:
        return " ".join([self.name, *([self.hostname] if hasattr(self, "hostname") else [])])

    __repr__ = __str__


class HostAction(Action):
    """An action on a host."""

    def __init__(self, session: int, agent: str, hostname: str):
        super().__init__(session, agent)
        self.hostname = hostname


class TrafficAction(Action):
    """An action on the traffic from one subnet to another."""

    priority = 1

    def __init__(self, session: int, agent: str, from_subnet: str, to_subnet: str):
        super().__init__(session, agent)
        self.from_subnet, self.to_subnet = from_subnet, to_subnet


class Sleep(Action):
    """Do nothing."""

    def __init__(self):
        super().__init__()


class Monitor(Action):
    """Do nothing: CybORG monitors all hosts at the end of each step."""


class Analyse(HostAction):
    """Look for files that red has left."""

    duration = 2


class Remove(HostAction):
    """End the suspicious processes of a host."""

    duration = 3


class Restore(HostAction):
    """Reimage a host."""

    duration = 5


class DeployDecoy(HostAction):
    """Start a decoy service on a host."""

    duration = 2


class AllowTrafficZone(TrafficAction):
    """Allow the traffic from one subnet to another again."""


class BlockTrafficZone(TrafficAction):
    """Block the traffic from one subnet to another."""


class TernaryEnum(enum.Enum):
    """Success of an action. Equal to True or False as CybORG's is."""

    TRUE, UNKNOWN, FALSE, IN_PROGRESS = 1, 2, 3, 4

    def __str__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        if isinstance(other, bool):
            return self.name == str(other).upper()
        return isinstance(other, TernaryEnum) and self.value == other.value

    __hash__ = enum.Enum.__hash__


OperatingSystemType = enum.Enum("OperatingSystemType", {"UNKNOWN": 1, "LINUX": 3})
OperatingSystemDistribution = enum.Enum("OperatingSystemDistribution", {"UBUNTU": 8, "KALI": 9})
OperatingSystemVersion = enum.Enum("OperatingSystemVersion", {"UNKNOWN": 1, "K2019_4": 11})
Architecture = enum.Enum("Architecture", {"x64": 2})
SessionType = enum.Enum("SessionType", {"UNKNOWN": 1, "VELOCIRAPTOR_SERVER": 8})
Path = enum.Enum("Path", {"UNKNOWN": 1, "TEMP": 5})
FileType = enum.Enum("FileType", {"UNKNOWN": 1})

ACTIONS = Sleep, Monitor, Analyse, Remove, Restore, DeployDecoy, AllowTrafficZone, BlockTrafficZone
"""By number: `policy.raw.ACTIONS`."""


_MODULES = "CybORG.Shared.Enums", "CybORG.Simulator.Actions", "CybORG.Simulator.Actions.ConcreteActions.ControlTraffic"


def known_as(own: type) -> Any:
    """CybORG's class of the same name if the program has imported it, else this stand-in."""
    theirs = (getattr(sys.modules.get(module), own.__name__, None) for module in _MODULES)
    return next(filter(None, theirs), own)
