"""Hand-made states for tests of single rules: a small network with only the sessions and scans that a rule needs.

    world = World()
    world.session(RED_OZA, server(OZA), id=3, pid=7)
    world.blue_does(Kind.REMOVE, server(OZA))
    after = world.step()

An action given with `red_does` or `blue_does` takes effect in the next step. Every random number is 0.5 unless set with
`draw`. Steps run through a batched `transition`, compiled once for all tests.

A test named `..._q7` is about Q7 of envs/cc4/QUIRKS.md.
"""

import copy
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from purecc4.envs import cc4
from purecc4.envs.cc4.actions import ACTION_TABLE
from purecc4.envs.cc4.constants import (
    GREEN_HOST,
    MESSAGE_BITS,
    NO_HOST,
    NUM_BLUE,
    NUM_GREEN,
    NUM_HOSTS,
    NUM_RED,
    NUM_ZONES,
    OWN_TARGETS,
    SLOTS,
    ZONE_START,
    BlueAction,
    Decoy,
    Foreign,
    GreenAction,
    Knowledge,
    Level,
    Port,
    RedAction,
    Service,
    Subnet,
)
from purecc4.envs.cc4.scenario import Topology, from_data

BATCH, FEW = 256, 4
CON, RZA, OZA, RZB, OZB, ADM, OFF, PAZ, INT = Subnet
SLEEP_INDEX = [int(np.flatnonzero(table[:, 0] == BlueAction.SLEEP)[0]) for table in ACTION_TABLE]


def server(zone: int, index: int = 0) -> int:
    """Host number of a server."""
    return zone * SLOTS + index


def user(zone: int, index: int = 0) -> int:
    """Host number of a user host."""
    return zone * SLOTS + 6 + index


def red_of(host: int) -> int:
    """The red agent that owns a host's zone."""
    return min(host // SLOTS, NUM_RED - 1)


def blue_of(host: int) -> int:
    """The blue agent that owns a host's zone, which must not be the contractor network."""
    return min(host // SLOTS - 1, NUM_BLUE - 1)


def green_on(host: int) -> int:
    """The green agent on a user host."""
    return int(np.flatnonzero(host == GREEN_HOST)[0])


def target_of(agent: int, host: int) -> int:
    """A red agent's target number of a host: offset into its zone, or OWN_TARGETS + subnet of a foreign server 0."""
    if red_of(host) == agent:
        return host - int(ZONE_START[agent])
    assert host % SLOTS == 0, "red agents know no other foreign hosts than server 0"
    return OWN_TARGETS + host // SLOTS


def index_of(agent: int, kind: BlueAction, host: int = NO_HOST, to: int = 0, source: int = 0) -> int:
    """The index among a blue agent's 242 actions."""
    return int(np.flatnonzero((ACTION_TABLE[agent] == (kind, host, to, source)).all(axis=1))[0])


PROCESS, CONNECTION = 27, 43
"""Offsets of the alerts in a block of a flat observation."""


def alert_at(host: int, alert: int) -> tuple[int, int]:
    """Agent and index of an alert in a flat observation; `alert` is PROCESS or CONNECTION."""
    block = max(host // SLOTS - ADM, 0)
    return blue_of(host), 1 + 59 * block + alert + host % SLOTS


def alerts_on(flat: np.ndarray, host: int, alert: int) -> np.ndarray:
    """The values of an alert on a host in a batch of flat observations."""
    return flat[(..., *alert_at(host, alert))]


def count_alerts(flat: np.ndarray) -> int:
    """Number of alerts on all hosts in a batch of flat observations."""
    return sum(
        int(alerts_on(flat, host, kind).sum()) for host in range(SLOTS, NUM_HOSTS) for kind in (PROCESS, CONNECTION)
    )


def set_member(sets, index, member: int, present: bool = True) -> None:
    """Put a number into one set of a numpy `BitSet`, or take it out."""
    words, bit = sets.high if member >= 32 else sets.low, np.uint32(1 << member % 32)
    words[index] = words[index] | bit if present else words[index] & ~bit


def drop_member(sets, index, member: int) -> None:
    """Take a number out of one set of a numpy `BitSet`."""
    words = sets.high if member >= 32 else sets.low
    words[index] &= np.uint32(~(1 << (member % 32)) & 0xFFFFFFFF)


def at(host: int) -> tuple[int, int]:
    """Zone and slot of a host number."""
    return divmod(host, SLOTS)


def _flag(words: np.ndarray, flags, bit: int) -> None:
    """Set or clear one bit of every word, in place."""
    words[...] = np.where(flags, words | np.uint32(1 << bit), words & np.uint32(~(1 << bit) & 0xFFFFFFFF))


_view = jax.jit(cc4.view)


def members(sets, index=()) -> set[int]:
    """One set of a numpy `BitSet` as Python's."""
    bits = int(sets.low[index]) | int(sets.high[index]) << 32
    return {member for member in range(64) if bits >> member & 1}


def _has(words, host: int) -> bool:
    """True if a host is in a set of hosts."""
    return bool(words[host // SLOTS] >> (host % SLOTS) & 1)


def _set(words, host: int, member: bool) -> None:
    bit = np.uint32(1 << host % SLOTS)
    words[host // SLOTS] = words[host // SLOTS] | bit if member else words[host // SLOTS] & ~bit


class Session(NamedTuple):
    host: int
    abstract: bool
    root: bool
    pid: int


class View:
    """A state as Python sees it."""

    def __init__(self, state):
        self.state = state

    def _of(self, name: str, host: int):
        """Entries of a host in an array of state.hosts."""
        return getattr(self.state.hosts, name)[..., host // SLOTS, host % SLOTS]

    def sessions(self, agent: int) -> dict[int, Session]:
        """All sessions of a red agent by id."""
        held = self.state.sessions
        abstract, root = members(held.abstract, agent), members(held.root, agent)
        return {
            int(id): Session(int(held.host[agent, id]), id in abstract, id in root, int(held.pid[agent, id]))
            for id in np.flatnonzero(held.host[agent] != NO_HOST)
        }

    def sessions_on(self, host: int) -> set[int]:
        """Ids of the owner's sessions on a host."""
        return {int(id) for id in np.flatnonzero(self.state.sessions.host[red_of(host)] == host)}

    def known(self, agent: int) -> set[int]:
        return members(self.state.red.known_ids, agent)

    def knowledge(self, agent: int, host: int) -> Knowledge:
        red, zone = self.state.red, host // SLOTS
        if red_of(host) == agent:
            discovered = _has(red.discovered, host)
            states = [2 * level + 1 + discovered for level in Level if _has(red.known[level], host)]
        else:
            states = [Knowledge[kind.name] for kind in Foreign if red.foreign[kind, agent] >> zone & 1]
        assert len(states) <= 1
        return Knowledge(states[0]) if states else Knowledge.UNKNOWN

    def named(self, host: int) -> bool:
        return _has(self.state.red.named, host)

    def memory(self, agent: int, host: int, id: int) -> set[Port]:
        """Ports of a host stored by a session."""
        return {port for port in Port if id in members(*self._scans(agent, host, port))}

    def _scans(self, agent: int, host: int, port: Port):
        if red_of(host) == agent:
            return self.state.red.scans, (port, host // SLOTS, host % SLOTS)
        return self.state.red.foreign_scans, (port, agent, host // SLOTS)

    def decoys(self, host: int) -> dict[Decoy, int]:
        """Pids of the decoys of a host."""
        return {kind: int(pid) for kind in Decoy if (pid := self._of("decoy_pid", host)[kind])}

    def decoy_reliability(self, host: int) -> dict[Decoy, int]:
        return {kind: int(self._of("decoy_reliability", host)[kind]) for kind in self.decoys(host)}

    def orphans(self, host: int) -> list[int]:
        pids = [self._of("orphan_pid", host), *self._of("suspicious_orphan_pid", host)]
        return sorted(int(pid) for pid in pids if pid)

    def suspicious_pids(self, host: int) -> list[int]:
        """The pids that blue suspects, oldest first."""
        return [int(pid) for pid in self._of("suspicious_pid", host) if pid]

    def reliability(self, host: int) -> int:
        return int(self._of("reliability", host))

    def ot_stopped(self, host: int) -> bool:
        return _has(self.state.ot_stopped, host)

    def blocks(self) -> set[tuple[int, int]]:
        """(to, from)"""
        return {(int(to), int(source)) for to, source in np.argwhere(self.state.blocked)}


class After(View):
    """Results of a step."""

    def __init__(self, obs, state, reward, done, info):
        super().__init__(state)
        self.obs, self.reward, self.done, self.info = obs, float(reward), bool(done), info

    def process_alert(self, host: int) -> bool:
        return bool(alerts_on(self.obs.flat, host, PROCESS))

    def connection_alert(self, host: int) -> bool:
        return bool(alerts_on(self.obs.flat, host, CONNECTION))

    def alerts(self) -> dict[str, set[int]]:
        """Hosts with a process and with a connection alert, as blue sees them."""
        seen = range(SLOTS, NUM_HOSTS)
        return {
            "process": {host for host in seen if self.process_alert(host)},
            "connection": {host for host in seen if self.connection_alert(host)},
        }


class World(View):
    """A world before a step. Red agent 0 holds its first session on the last user host of the contractor network."""

    def __init__(self, servers=3, users=4, services: Sequence[tuple[Service, int]] = (), step=0, num_steps=500, **kw):
        flags = np.zeros((len(Service), NUM_HOSTS), bool)
        for service, host in services:
            flags[service, host] = True
        self.red_start = user(CON, users - 1)
        counts = np.full(NUM_ZONES, servers), np.full(NUM_ZONES, users)
        topology = Topology(*counts, flags, self.red_start, kw.pop("hq_start", ADM))
        super().__init__(jax.tree.map(np.array, start()(from_data(topology, num_steps, **kw))[1]))
        self.state.step[...] = step
        self.draws = {}
        self.actions = np.array(SLEEP_INDEX)
        self.messages = np.zeros((NUM_BLUE, MESSAGE_BITS), np.uint8)
        self.choices = jax.tree.map(np.array, _idle_choices())

    def copy(self):
        return copy.deepcopy(self)

    def session(self, agent: int, host: int, id: int = 0, abstract=True, root=False, pid: int = 1) -> None:
        """Give a red agent a session; ids of abstract ones are known."""
        assert red_of(host) == agent
        held = self.state.sessions
        held.host[agent, id], held.pid[agent, id] = host, pid
        for sets, flag in ((held.abstract, abstract), (held.root, root)):
            set_member(sets, agent, id, flag)
        self.state.red.first_call[agent] = False
        if abstract:
            self.learn_id(agent, id)

    def lose(self, agent: int) -> None:
        """An agent has no session any more."""
        self.state.sessions.host[agent] = NO_HOST

    def learn_id(self, agent: int, id: int) -> None:
        set_member(self.state.red.known_ids, agent, id)

    def learn(self, agent: int, host: int, knowledge: Knowledge) -> None:
        """An agent has a host in this state."""
        red, zone = self.state.red, host // SLOTS
        if red_of(host) == agent:
            for level in Level:
                _set(red.known[level], host, knowledge in (2 * level + 1, 2 * level + 2))
            _set(red.discovered, host, knowledge in (Knowledge.KD, Knowledge.SD, Knowledge.UD, Knowledge.RD))
        else:
            red.foreign[:, agent] &= ~np.uint32(1 << zone)
            if knowledge != Knowledge.UNKNOWN:
                red.foreign[Foreign[knowledge.name], agent] |= np.uint32(1 << zone)

    def learn_name(self, host: int, known: bool = True) -> None:
        _set(self.state.red.named, host, known)

    def remember(self, agent: int, host: int, id: int, *ports: Port) -> None:
        """A session has scanned a host and seen these ports of decoys."""
        for port in (Port.SCANNED, *ports):
            set_member(*self._scans(agent, host, port), id)

    def wear(self, host: int, reliability: int) -> None:
        """The genuine services of a host have lost reliability."""
        self._of("reliability", host)[...] = reliability

    def stop_ot(self, host: int) -> None:
        _set(self.state.ot_stopped, host, True)

    def decoy(self, host: int, kind: Decoy, pid: int = 1, reliability: int = 100) -> None:
        self._of("decoy_pid", host)[kind] = pid
        self._of("decoy_reliability", host)[kind] = reliability

    def orphan(self, host: int, pid: int) -> None:
        """A Vsftpd process without a service."""
        if pid in self.suspicious_pids(host):
            row = self._of("suspicious_orphan_pid", host)
            row[np.argmax(row == 0)] = pid
        else:
            row = self._of("orphan_pid", host)
            row[...] = max(pid, row)

    def suspect(self, host: int, *pids: int) -> None:
        """Blue suspects these pids."""
        row = self._of("suspicious_pid", host)
        for pid in pids:
            row[np.argmax(row == 0)] = pid

    def block(self, to: int, source: int) -> None:
        self.state.blocked[to, source] = True

    def red_does(self, agent: int, kind: RedAction, host: int | None = None, session: int = 0, ticks: int = 1) -> None:
        """The action is in progress and takes effect in `ticks` steps. Sweeps hit `choices.red_subnet`."""
        red = self.state.red
        red.queue.action[agent], red.queue.ticks[agent], red.session[agent] = kind, ticks, session
        red.target[agent] = 0 if host is None else target_of(agent, host)

    def red_chooses(self, agent: int, kind: RedAction, host: int | None = None, session: int = 0) -> None:
        """The policy chooses this action in this step."""
        self.choices.red_action[agent], self.choices.red_session[agent] = kind, session
        self.choices.red_target[agent] = 0 if host is None else target_of(agent, host)

    def blue_does(self, kind: BlueAction, host: int, ticks: int = 1) -> None:
        """The owner's action is in progress and takes effect in `ticks` steps."""
        agent = blue_of(host)
        self.state.blue.action[agent], self.state.blue.ticks[agent] = index_of(agent, kind, host), ticks

    def blue_submits(self, agent: int, kind: BlueAction, host: int = NO_HOST, to: int = 0, source: int = 0) -> None:
        self.actions[agent] = index_of(agent, kind, host, to, source)

    def green_does(self, host: int, kind: GreenAction, visits: int = 0) -> None:
        self.choices.green_action[green_on(host)] = kind
        self.choices.green_server[green_on(host)] = visits

    def phish(self, host: int) -> None:
        """The user of this host works and opens a phishing mail; the new pid is 1 above the host's largest."""
        self.green_does(host, GreenAction.LOCAL_WORK)
        self.draw("green_phishing", green_on(host), 0.0)

    def draw(self, name: str, index, value: float) -> None:
        """Set one random number."""
        field = self.draws.setdefault(name, np.full(getattr(_shapes(), name).shape, 0.5, np.float32))
        field[index] = value

    def step(self) -> After:
        return run([self])[0]


@cache
def _shapes() -> cc4.Draws:
    return jax.eval_shape(cc4.sample_draws, jax.random.key(0))


def _idle_choices() -> cc4.ScriptedChoices:
    return cc4.ScriptedChoices(
        red_action=jnp.full(NUM_RED, RedAction.SLEEP, jnp.uint8),
        red_target=jnp.zeros(NUM_RED, jnp.uint8),
        red_session=jnp.zeros(NUM_RED, jnp.uint8),
        red_subnet=jnp.array([CON, RZA, OZA, RZB, OZB, ADM], jnp.uint8),
        green_action=jnp.full(NUM_GREEN, GreenAction.SLEEP, jnp.uint8),
        green_server=jnp.zeros(NUM_GREEN, jnp.uint8),
    )


@cache
def start() -> Callable:
    """`start` of one environment, compiled."""
    return eqx.filter_jit(cc4.start)


@cache
def reset_batch() -> Callable:
    """`reset` of BATCH environments, each with parameters of its own."""
    return eqx.filter_jit(jax.vmap(cc4.reset))


@cache
def reset_few() -> Callable:
    """`reset` of FEW environments with the same parameters."""
    return jax.jit(jax.vmap(cc4.reset, (0, None)))


@cache
def step_few() -> Callable:
    """`step` of FEW environments with the same parameters."""
    return jax.jit(jax.vmap(cc4.step, (0, 0, 0, None)))


@cache
def transition_batch() -> Callable:
    """`transition` of BATCH environments."""
    return eqx.filter_jit(jax.vmap(cc4.transition))


@cache
def view_batch() -> Callable:
    """`view` of BATCH states."""
    return eqx.filter_jit(jax.vmap(cc4.view))


@cache
def decide_batch() -> Callable:
    """`decide` of BATCH environments, each with a policy of its own."""
    return eqx.filter_jit(jax.vmap(cc4.decide))


@cache
def sample_batch() -> Callable:
    """The random numbers of one step for BATCH environments."""
    return jax.jit(lambda key: jax.vmap(cc4.sample_draws)(jax.random.split(key, BATCH)))


def stack(trees):
    """BATCH trees as one; the last is repeated."""
    trees = [*trees, *[trees[-1]] * (BATCH - len(trees))]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def repeat(tree):
    """BATCH times the same tree."""
    return jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], BATCH, axis=0), tree)


def _fixed_draws(world: World) -> cc4.Draws:
    draws = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), _shapes())
    for name, values in world.draws.items():
        getattr(draws, name)[...] = values
    return draws


def run(worlds: Sequence[World]) -> list[After]:
    """One step of up to BATCH worlds."""
    assert len(worlds) <= BATCH
    batch = [stack([getattr(world, name) for world in worlds]) for name in ("state", "actions", "messages", "choices")]
    out = transition_batch()(*batch, stack([_fixed_draws(world) for world in worlds]))
    return unstack(out, len(worlds))


def unstack(out, count: int = BATCH) -> list[After]:
    out = jax.tree.map(np.array, out)
    return [After(*jax.tree.map(lambda leaf, i=i: leaf[i], out)) for i in range(count)]


def sample(world: World, rounds: int, seed: int = 0):
    """Sample the same step `rounds * BATCH` times, except for the random numbers set in the world.

    Returns the outputs of `transition` as NumPy with one leading axis, and a cc4.View instead of the state.
    """
    batch = [repeat(x) for x in (world.state, world.actions, world.messages, world.choices)]
    outs = []
    for key in jax.random.split(jax.random.key(seed), rounds):
        draws = jax.tree.map(np.array, sample_batch()(key))
        for name, values in world.draws.items():
            getattr(draws, name)[...] = values
        obs, state, *rest = transition_batch()(*batch, draws)
        outs.append(jax.tree.map(np.asarray, (obs, view_batch()(state), *rest)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *outs)


def decide(world: World, policy: cc4.RedPolicy, rounds: int = 1, **grids) -> cc4.ScriptedChoices:
    """The choices of `rounds * BATCH` decisions. Those named in `grids` cover [0, 1) evenly, others are random.

    A grid is a number of repetitions: with red_host=16, the value changes every 16 decisions.
    """
    batch, outs = repeat(world.state), []
    policies = repeat(policy)
    for turn, key in enumerate(jax.random.split(jax.random.key(1), rounds)):
        draws = jax.tree.map(np.array, sample_batch()(key))
        for name, every in grids.items():
            steps = (np.arange(BATCH) + turn * BATCH) // every
            values = ((steps + 0.5) / (rounds * BATCH // every)) % 1
            field = getattr(draws, name)
            field[...] = values.reshape(-1, *[1] * (field.ndim - 1))
        outs.append(jax.tree.map(np.asarray, decide_batch()(batch, policies, draws)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *outs)


def assert_frequencies(observed, expected) -> None:
    """Assert that counts are within five standard deviations of the probabilities (fails by chance 1 in a million)."""
    observed, expected = np.asarray(observed, float), np.asarray(expected, float)
    total = observed.sum()
    deviation = np.sqrt(total * expected * (1 - expected))
    assert np.all(np.abs(observed - total * expected) <= 5 * deviation + 1e-9), (observed / total, expected)


def assert_rate(events, rate: float) -> None:
    """Booleans that are true with this probability."""
    events = np.asarray(events, bool)
    assert_frequencies([events.sum(), (~events).sum()], [rate, 1 - rate])


def dropping(step: Callable) -> Callable:
    """A stub of a step that only raises `overflow`. It compiles quickly."""

    def drop(key, state, *rest):
        shapes = jax.eval_shape(step, key, state, *rest)
        obs, _, *others = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        after = eqx.tree_at(lambda x: (x.step, x.overflow), state, (state.step + 1, state.overflow + 1))
        return obs, after, *others

    return drop
