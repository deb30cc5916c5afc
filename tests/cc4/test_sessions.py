"""Red's sessions: ids, reassignment, renumbering, scan memory.

Whole steps with many new sessions are compared with a plain Python version of the reference, which moves one session at
a time.
"""

from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
import pytest
from worlds import (
    ADM,
    BATCH,
    OFF,
    OZA,
    PAZ,
    RZA,
    RZB,
    World,
    assert_frequencies,
    green_on,
    members,
    red_of,
    run,
    sample,
    server,
    user,
)

from purecc4.envs.cc4.constants import (
    FALSE_ALARM_RATE,
    GENERATION_ORDER,
    MAX_IDS,
    MAX_PID_STEP,
    NUM_HOSTS,
    NUM_RED,
    NUM_ZONES,
    BlueAction,
    Knowledge,
    Port,
    RedAction,
)
from purecc4.envs.cc4.sessions import _sponsors

AGGRESSIVE, EXPLOIT = RedAction.AGGRESSIVE_SERVICE_DISCOVERY, RedAction.EXPLOIT_REMOTE_SERVICE
RED, BASE, HOST = 2, server(OZA), user(OZA, 1)


# Single rules


def test_a_new_id_is_the_largest_live_one_plus_1():
    world = World()
    world.session(RED, BASE, id=0)
    world.session(RED, server(OZA, 1), id=9)
    reused = world.copy()
    reused.blue_does(BlueAction.RESTORE, server(OZA, 1))
    for each in (world, reused):
        each.phish(HOST)
    first, second = run([world, reused])
    assert first.sessions_on(HOST) == {10}
    assert second.sessions_on(HOST) == {1}, "the ids of the dead are given again"


def test_a_shell_can_get_a_known_id_q8():
    world = World()
    world.session(RED, BASE, id=0)
    world.learn_id(RED, 1)
    world.remember(RED, HOST, 0)
    world.red_does(RED, EXPLOIT, HOST)
    after = world.step()
    assert 1 in after.known(RED) and not after.sessions(RED)[1].abstract


def test_sessions_of_an_exploit_abroad_move_to_the_owner_q31():
    host = server(RZA)
    world = World()
    world.session(RED, BASE, id=0)
    world.session(1, user(RZA), id=0)
    world.session(1, user(RZA, 1), id=4, abstract=False)
    world.remember(RED, host, 0)
    world.red_does(RED, EXPLOIT, host)
    world.draw("session_pid", RED, 0)
    after = world.step()
    assert after.sessions(RED) == {0: (BASE, True, False, 1)}
    assert after.sessions(1)[5] == (host, True, False, 1), "abstract, for the new owner, with the same pid"
    assert after.known(1) == {0, 5} and after.known(RED) == {0}
    assert after.memory(1, host, 5) == set()
    assert after.suspicious_pids(host) == [1]


def test_the_example_of_reassign():
    """Agents 1 and 2 open sessions in each other's zone in the same step."""
    world = World()
    for agent, target in ((1, server(OZA)), (2, server(RZA))):
        world.session(agent, user(RZA if agent == 1 else OZA), id=0)
        world.remember(agent, target, 0)
        world.red_does(agent, EXPLOIT, target)
    after = world.step()
    assert {id: session[0] for id, session in after.sessions(2).items()} == {0: user(OZA), 2: server(OZA)}
    assert {id: session[0] for id, session in after.sessions(1).items()} == {0: user(RZA), 1: server(RZA)}


def test_an_agent_wakes_up_when_it_is_handed_a_session():
    world = World()
    world.remember(0, server(RZA), 0)
    world.learn(0, server(RZA), Knowledge.S)
    world.red_does(0, EXPLOIT, server(RZA))
    after = world.step()
    assert after.sessions(1)[0].abstract and after.known(1) == {0}
    assert after.knowledge(1, server(RZA)) == Knowledge.U
    assert after.knowledge(0, server(RZA)) == Knowledge.F


@pytest.mark.parametrize("abstract", [True, False])
def test_an_agent_without_its_session_0_renumbers_another_which_keeps_its_kind_q9(abstract):
    world = World()
    world.session(RED, HOST, id=3, abstract=abstract, root=True, pid=8)
    world.learn_id(RED, 3)
    world.remember(RED, BASE, 3, Port.HTTP)
    after = world.step()
    assert after.sessions(RED) == {0: (HOST, abstract, True, 8)}
    assert after.known(RED) == ({0, 3} if abstract else {3})
    assert after.memory(RED, BASE, 0) == {Port.SCANNED, Port.HTTP} and after.memory(RED, BASE, 3) == set()


def test_the_new_session_0_is_drawn_uniformly():
    world = World()
    hosts = [user(ADM), user(OFF), user(PAZ), server(PAZ)]
    for id, host in enumerate(hosts, start=1):
        world.session(5, host, id=id * 9)
    view = sample(world, rounds=4)[1]
    assert_frequencies([(view.session_host[:, 5, 0] == host).sum() for host in hosts], [1 / 4] * 4)


def test_an_action_in_progress_keeps_the_old_id_of_a_renumbered_session():
    world = World()
    world.session(RED, HOST, id=3, root=True)
    world.red_does(RED, RedAction.DEGRADE_SERVICES, HOST, session=3, ticks=2)
    world.state = world.step().state
    after = world.step()
    assert after.reliability(HOST) == 100, "dropped"


def lost_session_0():
    """Agent 1 loses its session 0, and keeps none or a shell with id 2, in the step in which it gets another."""
    world = World()
    world.session(RED, BASE, id=0)
    world.session(1, user(RZA), id=0)
    world.blue_does(BlueAction.RESTORE, user(RZA))
    world.session(1, user(RZA, 1), id=2, abstract=False)
    world.draw("primary", 1, 0.9)
    return world


def test_ids_that_foreign_exploits_arrive_with_are_known_even_if_renumbered_at_once():
    exploited, phished = lost_session_0(), lost_session_0()
    exploited.remember(RED, server(RZA), 0)
    exploited.red_does(RED, EXPLOIT, server(RZA))
    phished.phish(user(RZA, 2))
    exploited, phished = run([exploited, phished])
    assert exploited.sessions(1)[0].host == server(RZA) and exploited.known(1) == {0, 3}
    assert phished.sessions(1)[0].host == user(RZA, 2) and phished.known(1) == {0}


def test_dead_sessions_forget():
    world = World()
    world.session(RED, BASE, id=0)
    world.session(RED, HOST, id=1)
    world.remember(RED, user(OZA, 2), 0)
    world.remember(RED, user(OZA, 2), 1)
    world.remember(RED, server(RZA), 1)
    world.blue_does(BlueAction.RESTORE, HOST)
    after = world.step()
    assert after.memory(RED, user(OZA, 2), 0) and not after.memory(RED, user(OZA, 2), 1)
    assert not after.memory(RED, server(RZA), 1)


def test_a_chain_of_new_zones_has_the_sponsor_of_its_first():
    """Each zone's first mail comes from the zone that was infected just before it in the same step."""
    counts, infected = jnp.ones(NUM_ZONES, jnp.int32).at[0].set(0), jnp.zeros(NUM_ZONES, jnp.int32).at[0].set(1)
    assert _sponsors(counts, infected, jnp.full(NUM_ZONES, 0.999)).tolist() == [0] * NUM_ZONES


def test_a_phished_sessions_sponsor_is_any_holder_of_an_infected_host_q49():
    """Uniformly over infected hosts. It shows in the number of the sponsor's next session in the same step."""
    world = World()
    hosts = {1: [server(RZA)], 3: [server(RZB), server(RZB, 1)], 5: [server(OFF)]}
    for agent, held in hosts.items():
        for id, host in enumerate(held):
            world.session(agent, host, id=id)
        target = server(agent if agent < 5 else OFF, 2)
        world.remember(agent, target, 0)
        world.red_does(agent, EXPLOIT, target)
    world.phish(user(OZA))
    held = sample(world, rounds=4)[1].session_host
    assert (held[:, 2, 0] == user(OZA)).all()
    exploited = {(1, 2): server(RZA, 2), (3, 3): server(RZB, 2), (5, 2): server(OFF, 2)}
    sponsored = [(held[:, agent, id] == host).sum() for (agent, id), host in exploited.items()]
    assert_frequencies([*sponsored, len(held) - sum(sponsored)], [1 / 5, 2 / 5, 1 / 5, 1 / 5])


def test_ids_beyond_63_are_counted():
    world = World()
    world.session(RED, BASE, id=0)
    world.session(RED, server(OZA, 1), id=MAX_IDS - 1)
    exploited, phished = world.copy(), world.copy()
    exploited.remember(RED, HOST, 0)
    exploited.red_does(RED, EXPLOIT, HOST)
    phished.phish(HOST)
    assert [int(after.state.overflow) for after in run([world, exploited, phished])] == [0, 1, 1]


def test_every_user_of_the_network_can_be_phished_in_one_step():
    crowd = World(users=10)
    users = [user(zone, index) for zone in range(NUM_ZONES) for index in range(10)]
    for host in users[:-1]:  # red holds the last user of CON
        crowd.phish(host)
    after = crowd.step()
    held = {session.host for agent in range(NUM_RED) for session in after.sessions(agent).values()}
    assert held == {*users[:-1], crowd.red_start} and after.state.overflow == 0


# one after the other, as the reference does it


@dataclass
class Held:
    host: int
    abstract: bool
    root: bool
    pid: int
    memory: set = field(default_factory=set)
    exploited: bool = False


class Reference:
    """The sessions of a world, and one step of theirs in the order of the reference."""

    def __init__(self, world):
        self.world, self.draws = world, world.draws
        self.sessions = [{i: Held(*s) for i, s in world.sessions(a).items()} for a in range(NUM_RED)]
        self.known = [world.known(agent) for agent in range(NUM_RED)]
        self.chain = 0
        self.recorded = []
        for agent, held in enumerate(self.sessions):
            for id, session in held.items():
                session.memory = {h for h in range(NUM_HOSTS) if knows(agent, h) and world.memory(agent, h, id)}

    def on(self, host):
        return [(a, s) for a, held in enumerate(self.sessions) for s in held.values() if s.host == host]

    def add(self, agent, host, abstract, u):
        held = self.sessions[agent]
        id = max(held, default=-1) + 1
        pid = max((s.pid for _, s in self.on(host)), default=0) + 1 + int(np.float32(u) * MAX_PID_STEP)
        held[id] = Held(host, abstract, False, pid)
        return id

    def step(self):
        alive = [set(held) for held in self.sessions]
        for host in self.world.restored:
            for held in self.sessions:
                for id in [i for i, s in held.items() if s.host == host]:
                    del held[id]
        self.phish()
        self.act(alive)
        extra = self.reassign()
        for agent, held in enumerate(self.sessions):
            if held and 0 not in held:
                ids = sorted(held)
                held[0] = held.pop(ids[int(np.float32(self.draws["primary"][agent]) * np.float32(len(ids)))])
            if held:
                self.known[agent] |= {i for i, s in held.items() if s.abstract} | extra[agent]

    def phish(self):
        holdings = [(a, h, 0) for a in range(NUM_RED) for h in sorted({s.host for s in self.sessions[a].values()})]
        for zone in GENERATION_ORDER:
            for host in sorted(h for h in self.world.phished if h // 16 == zone):
                if self.on(host):
                    continue
                near = [holding for holding in holdings if holding[1] // 16 == zone]
                u = self.draws["sponsor"][zone]
                agent, _, depth = near[-1] if near else holdings[int(u * np.float32(len(holdings)))]
                if not near and depth:
                    self.chain = max(self.chain, depth)
                u = self.draws["green_phishing"][green_on(host)] / np.float32(FALSE_ALARM_RATE)
                self.add(agent, host, True, u)
                holdings.append((agent, host, depth if near else depth + 1))

    def act(self, alive):
        for agent, (kind, target, id) in self.world.red_actions.items():
            session = self.sessions[agent].get(id)
            if id not in alive[agent] or session is None or not session.abstract:
                continue
            if kind == AGGRESSIVE:
                session.memory.add(target)
            elif target in session.memory:
                new = self.add(agent, target, False, self.draws["session_pid"][agent])
                self.sessions[agent][new].exploited = True
                self.recorded.append((target, self.sessions[agent][new].pid))

    def reassign(self):
        """Returns the ids that foreign exploits' sessions arrive with."""
        extra = [set() for _ in range(NUM_RED)]
        moves = [(a, i) for a, held in enumerate(self.sessions) for i, s in held.items() if red_of(s.host) != a]
        for agent, id in moves:
            old = self.sessions[agent].pop(id)
            owner = red_of(old.host)
            new = max(self.sessions[owner], default=-1) + 1
            self.sessions[owner][new] = Held(old.host, True, old.root, old.pid)
            if old.exploited:
                extra[owner].add(new)
        return extra


def knows(agent, host):
    """True if the agent can have scanned the host."""
    return red_of(host) == agent or host % 16 == 0


def random_world(rng, base):
    """Sessions everywhere, some of which blue restores, some of which act; and many mails opened."""
    world = base.copy()
    zones = [zone for zone in range(NUM_ZONES) if rng.random() < 0.55]
    ids = [list(rng.permutation(8)) for _ in range(NUM_RED)]
    ids[0].remove(0)
    for zone in zones:
        agent = min(zone, 5)
        for host in rng.choice([server(zone, 1), *[user(zone, i) for i in range(6)]], rng.integers(1, 3), False):
            for pid in range(rng.integers(1, 3)):
                if host != world.red_start and ids[agent]:
                    id, abstract, root = int(ids[agent].pop()), rng.random() < 0.7, rng.random() < 0.3
                    world.session(agent, int(host), id, abstract, root, pid + 2)
    world.restored = []
    for zone in (1, 2, 3, 4, int(rng.integers(5, 8))):
        held = [host for host in range(zone * 16, zone * 16 + 16) if world.sessions_on(host)]
        if held and rng.random() < 0.5:
            world.restored.append(int(rng.choice(held)))
            world.blue_does(BlueAction.RESTORE, world.restored[-1])
    for name, size in (("sponsor", NUM_ZONES), ("primary", NUM_RED), ("session_pid", NUM_RED)):
        for index in range(size):
            world.draw(name, index, rng.random(dtype=np.float32))
    users = [user(zone, i) for zone in range(NUM_ZONES) for i in range(6)]
    world.phished = [int(host) for host in rng.choice(users, rng.integers(9), False)]
    for host in world.phished:
        world.phish(host)
        world.draw("green_phishing", green_on(host), 0.0099 * rng.random(dtype=np.float32))
    world.red_actions = {}
    for agent in range(NUM_RED):
        held = list(world.sessions(agent))
        if held and rng.random() < 0.7:
            zone = rng.integers(NUM_ZONES) if rng.random() < 0.5 else agent
            target = server(int(zone)) if red_of(zone * 16) != agent else server(int(zone), 1)
            kind, id = (EXPLOIT, AGGRESSIVE)[int(rng.random() < 0.3)], int(rng.choice(held))
            world.red_actions[agent] = (kind, target, id)
            world.red_does(agent, kind, target, id)
            if kind == EXPLOIT:
                world.remember(agent, target, id)
    return world


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_many_new_sessions_at_once_end_as_in_the_reference(seed):
    rng, base = np.random.default_rng(seed), World(servers=2, users=6)
    worlds = [random_world(rng, base) for _ in range(BATCH)]
    compared = 0
    for world, after in zip(worlds, run(worlds), strict=True):
        reference = Reference(world)
        reference.step()
        if reference.chain > 2:
            continue
        compared += 1
        for agent, held in enumerate(reference.sessions):
            assert after.sessions(agent) == {i: (s.host, s.abstract, s.root, s.pid) for i, s in held.items()}
            assert after.known(agent) == reference.known[agent]
        compare_memories(after, reference)
        for host in {host for host, _ in reference.recorded if host >= 16}:
            assert after.suspicious_pids(host) == [pid for h, pid in reference.recorded if h == host]
        assert after.state.overflow == 0
    assert compared > 0.9 * BATCH


def compare_memories(after, reference):
    scans, foreign = after.state.red.scans, after.state.red.foreign_scans
    for host in range(NUM_HOSTS):
        held = reference.sessions[red_of(host)]
        assert members(scans, (Port.SCANNED, host // 16, host % 16)) == {i for i, s in held.items() if host in s.memory}
    for agent, held in enumerate(reference.sessions):
        for zone in range(NUM_ZONES):
            if red_of(zone * 16) != agent:
                expected = {i for i, s in held.items() if zone * 16 in s.memory}
                assert members(foreign, (Port.SCANNED, agent, zone)) == expected
