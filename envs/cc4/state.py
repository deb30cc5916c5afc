"""The state of one environment as arrays; `vmap` adds the batch axis.

A set of hosts is one word per zone: bit `slot` is host `16 * zone + slot`. Numbers per host have the shape
[zone, slot]. `view.py` unpacks a state host by host.
"""

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int32, UInt8, UInt16, UInt32

from .games import Game
from .params import RedPolicy
from .raw import RawObservation
from .sets import BitSet


class Scenario(eqx.Module):
    """Constants of an episode, sampled at reset or given as data."""

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
    game: Game
    """Its `restore_cost` is already in that of the scenario, its sizes in the network."""
    red: RedPolicy | None = None
    """Red of this episode; None for that of `Params`."""
    pid_gap: UInt8[Array, "host"] | None = None
    """Largest pid minus the pid of blue's session, at reset; None with the flat observation."""


class Hosts(eqx.Module):
    """Services, decoys and processes. Pids are offsets from the host's largest pid at reset; 0 is none."""

    reliability: UInt8[Array, "*host"]
    """Per cent; one value for all genuine services of a host, which degrade and recover together."""
    decoy_pid: UInt16[Array, "decoy *host"]
    decoy_reliability: UInt8[Array, "decoy *host"]
    orphan_pid: UInt16[Array, "*host"]
    """Largest pid of the orphaned Vsftpd processes (their service was redeployed) that Remove can never kill."""
    suspicious_orphan_pid: UInt16[Array, "orphan *host"]
    """Pids of the orphaned processes that Remove will kill."""
    suspicious_pid: UInt16[Array, "suspicious *host"]
    """Pids recorded by blue's Monitor, oldest first; never cleared."""


class Sessions(eqx.Module):
    """Red sessions by agent and id. Between steps each is in a zone of its agent."""

    host: UInt8[Array, "red id"]
    """NO_HOST if there is no such session."""
    pid: UInt16[Array, "red id"]
    abstract: BitSet
    """[red] ids of RedAbstractSessions, which can scan and exploit; the others are shells opened by exploits."""
    root: BitSet
    """[red] ids of sessions with root privilege."""


class Queue(eqx.Module):
    """The action in progress of each agent."""

    action: UInt8[Array, "agent"]
    ticks: UInt8[Array, "agent"]
    """Remaining steps; 0 if idle."""


class Red(eqx.Module):
    """Knowledge of the red agents and their actions in progress."""

    queue: Queue
    target: UInt8[Array, "red"]
    """Target of the action in progress: own host (offset into the zone) or OWN_TARGETS + zone of a foreign server 0."""
    session: UInt8[Array, "red"]
    """Id of the acting session of the action in progress."""
    known: UInt32[Array, "level zone"]
    """Hosts in K, S, U and R of their owner's finite state machine (constants.Level), discovered or not."""
    discovered: UInt32[Array, "zone"]
    """Hosts in KD, SD, UD and RD."""
    foreign: UInt32[Array, "foreign red"]
    """Sets of zones whose server 0 is in K, S and F of an agent that does not own it (constants.Foreign)."""
    named: UInt32[Array, "zone"]
    """Hosts whose names their owner knows."""
    first_call: Bool[Array, "red"]
    known_ids: BitSet
    """[red] session ids ever seen as abstract; never cleared."""
    hq_known: Bool[Array, "3"]
    """Subnets ADM, OFF, PAZ that agent 5 can sweep."""
    scans: BitSet
    """[port zone slot] ids of the owner's sessions that stored constants.Port of the host in their last scan."""
    foreign_scans: BitSet
    """[port red zone] the same for server 0 of the other zones."""


class PackedNetwork(eqx.Module):
    """The scenario's hosts, packed into words."""

    exists: UInt32[Array, "zone"]
    services: UInt32[Array, "service zone"]


class Evidence(eqx.Module):
    """State that only the raw observation reads."""

    files: UInt32[Array, "3 zone"]
    """Hosts with cmd.sh, with escalate.sh, and where cmd.sh was the last to be created (files.py)."""
    orphans: UInt8[Array, "zone slot"]
    """Number of orphans that Remove cannot meet."""


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
    """Number of entries that bounded tables had to drop in this episode; must stay 0."""
    network: PackedNetwork
    scenario: Scenario
    evidence: Evidence | None = None
    """None unless blue sees the raw observation."""


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
    """Choices of the scripted agents at the start of a step. Those of busy agents are ignored."""

    red_action: UInt8[Array, "red"]
    red_target: UInt8[Array, "red"]
    """As Red.target."""
    red_session: UInt8[Array, "red"]
    red_subnet: UInt8[Array, "red"]
    """The subnet that DiscoverRemoteSystems sweeps."""
    green_action: UInt8[Array, "green"]
    green_server: UInt8[Array, "green"]
    """Host that GreenAccessService visits."""
