"""What a step reads and writes, as arrays of one environment; `vmap` adds the batch.

A set of hosts is a word per zone whose bit `slot` stands for host `16 * zone + slot`: most rules are a few operations
on eight words. Numbers per host stand as [zone, slot]. `view.py` spells a state out host by host.
"""

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int32, UInt8, UInt16, UInt32

from .raw import RawObservation
from .sets import BitSet


class Scenario(eqx.Module):
    """The episode's constants, drawn at reset or given as data."""

    exists: Bool[Array, "host"]
    services: Bool[Array, "service host"]
    """Apache, MySQL, SMTP (constants.Service)."""
    roles: UInt8[Array, "role"]
    """Hosts with the resilience roles AUTH, DB, WEB; NO_HOST where the roles are off."""
    red_start: UInt8[Array, ""]
    """Host of red agent 0's first session, in the contractor network."""
    hq_start: UInt8[Array, ""]
    """The one of ADM, OFF, PAZ that red agent 5 can sweep from the start."""
    servers: UInt8[Array, "phase zone zone"]
    """[phase, from, to]: servers that green users of `from` may visit in the zones up to and including `to`."""
    rewards: Float[Array, "phase subnet term"]
    restore_cost: Float[Array, ""]
    phase_starts: Int32[Array, "phase"]
    num_steps: Int32[Array, ""]


class Hosts(eqx.Module):
    """Services, decoys and processes. Pids are offsets from the host's largest pid at reset; 0 is none."""

    reliability: UInt8[Array, "*host"]
    """Per cent, of all genuine services: they are degraded and restored together."""
    decoy_pid: UInt16[Array, "decoy *host"]
    decoy_reliability: UInt8[Array, "decoy *host"]
    orphan_pid: UInt16[Array, "*host"]
    """Largest pid of the Vsftpd processes that lost their service to a redeployment and that Remove cannot meet."""
    suspicious_orphan_pid: UInt16[Array, "orphan *host"]
    """Those that Remove will kill."""
    suspicious_pid: UInt16[Array, "suspicious *host"]
    """What blue's Monitor has written down, oldest first, never forgotten."""


class Sessions(eqx.Module):
    """Red sessions by agent and id. After a step each lies in a zone of its agent."""

    host: UInt8[Array, "red id"]
    """NO_HOST where there is no such session."""
    pid: UInt16[Array, "red id"]
    abstract: BitSet
    """[red] ids of RedAbstractSessions, which can scan and exploit; the others are exploits' shells."""
    root: BitSet
    """[red]"""


class Queue(eqx.Module):
    """The one action that each agent can have in progress."""

    action: UInt8[Array, "agent"]
    ticks: UInt8[Array, "agent"]
    """Steps still to go; 0 is idle."""


class Red(eqx.Module):
    """What the red agents know and are doing."""

    queue: Queue
    target: UInt8[Array, "red"]
    """Of the action in progress: own host (offset into the zone) or OWN_TARGETS + zone of a foreign server 0."""
    session: UInt8[Array, "red"]
    """Id of the acting session of the action in progress."""
    known: UInt32[Array, "level zone"]
    """Hosts that their owner's finite state machine has in K, S, U and R (constants.Level), discovered or not."""
    discovered: UInt32[Array, "zone"]
    """Those in KD, SD, UD, RD."""
    foreign: UInt32[Array, "foreign red"]
    """Sets of zones whose server 0 a foreign agent has in K, S and F (constants.Foreign)."""
    named: UInt32[Array, "zone"]
    """Hosts whose name the owner knows."""
    first_call: Bool[Array, "red"]
    known_ids: BitSet
    """[red] session ids ever seen as abstract; never forgotten."""
    hq_known: Bool[Array, "3"]
    """Subnets ADM, OFF, PAZ that agent 5 can sweep."""
    scans: BitSet
    """[port zone slot] the owner's session ids that remember constants.Port of the host from their last scan."""
    foreign_scans: BitSet
    """[port red zone] the same for server 0 of the other zones."""


class PackedNetwork(eqx.Module):
    """The scenario's hosts as words."""

    exists: UInt32[Array, "zone"]
    services: UInt32[Array, "service zone"]


class State(eqx.Module):
    step: Int32[Array, ""]
    blue: Queue
    red: Red
    hosts: Hosts
    ot_stopped: UInt32[Array, "zone"]
    sessions: Sessions
    blocked: Bool[Array, "subnet subnet"]
    """[to, from]"""
    overflow: Int32[Array, ""]
    """Things that a bounded table had to drop in this episode; must stay 0."""
    network: PackedNetwork
    scenario: Scenario


class Observation(eqx.Module):
    flat: UInt8[Array, "blue obs"]
    mask: Bool[Array, "blue action"]
    raw: RawObservation | None = None
    """None with `observation="flat"`."""


class Rewards(eqx.Module):
    """The parts of the team reward, each at most 0; the reward is their sum."""

    lwf: Float[Array, ""]
    asf: Float[Array, ""]
    ria: Float[Array, ""]
    cost: Float[Array, ""]


class ScriptedChoices(eqx.Module):
    """What the scripted agents choose at the start of a step; thrown away for an agent that is busy."""

    red_action: UInt8[Array, "red"]
    red_target: UInt8[Array, "red"]
    """As Red.target."""
    red_session: UInt8[Array, "red"]
    red_subnet: UInt8[Array, "red"]
    """The subnet that DiscoverRemoteSystems sweeps."""
    green_action: UInt8[Array, "green"]
    green_server: UInt8[Array, "green"]
    """Host that GreenAccessService visits."""
