"""Knowledge and choices of the scripted reds: `FiniteStateRedAgent.py`, `FSMRedVariants.py`, and the CIA reds."""

from collections import Counter

import numpy as np
import pytest
from worlds import (
    ADM,
    OFF,
    OZA,
    OZB,
    PAZ,
    RZA,
    RZB,
    World,
    assert_frequencies,
    assert_rate,
    decide,
    run,
    server,
    target_of,
    user,
)

from purecc4.envs import cc4
from purecc4.envs.cc4.constants import BlueAction, Knowledge, RedAction, Role

UNKNOWN, K, KD, S, SD, U, UD, R, RD, F = Knowledge
DRS, AGGRESSIVE, STEALTH, DECEPTION, EXPLOIT, ESCALATE, IMPACT, DEGRADE = list(RedAction)[:8]
RED, BASE, HOST = 2, server(OZA), user(OZA, 1)

SUCCESS = {  # the next state by action; what is missing stays as it is
    K: {DRS: KD, AGGRESSIVE: S, STEALTH: S},
    KD: {AGGRESSIVE: SD, STEALTH: SD},
    S: {DRS: SD, EXPLOIT: U},
    SD: {EXPLOIT: UD},
    U: {DRS: UD, ESCALATE: R},
    UD: {ESCALATE: RD},
    R: {DRS: RD},
    RD: {},
}
ROOT_NEEDED = (IMPACT, DEGRADE)
PROBABILITIES = {  # by DRS, aggressive, stealth, deception, exploit, escalate, impact, degrade
    "fsm": {
        K: (0.5, 0.25, 0.25, 0, 0, 0, 0, 0),
        KD: (0, 0.5, 0.5, 0, 0, 0, 0, 0),
        S: (0.25, 0, 0, 0.25, 0.5, 0, 0, 0),
        SD: (0, 0, 0, 0.25, 0.75, 0, 0, 0),
        U: (0.5, 0, 0, 0, 0, 0.5, 0, 0),
        UD: (0, 0, 0, 0, 0, 1, 0, 0),
        R: (0.5, 0, 0, 0, 0, 0, 0.25, 0.25),
        RD: (0, 0, 0, 0, 0, 0, 0.5, 0.5),
    },
    "discovery": {
        K: (0.25, 0.75, 0, 0, 0, 0, 0, 0),
        KD: (0, 1, 0, 0, 0, 0, 0, 0),
        S: (0.25, 0, 0, 0, 0.75, 0, 0, 0),
        SD: (0, 0, 0, 0, 1, 0, 0, 0),
        U: (0, 0, 0, 0, 0, 1, 0, 0),
        UD: (0, 0, 0, 0, 0, 1, 0, 0),
        R: (1, 0, 0, 0, 0, 0, 0, 0),
        RD: (0, 0, 0, 0, 0, 0, 0.5, 0.5),
    },
}
CIA = PROBABILITIES["fsm"] | {R: (0.1, 0, 0, 0, 0, 0, 0.45, 0.45)}
PROBABILITIES |= {"cia_c": CIA, "cia_i": CIA, "cia_a": CIA}


def policy(name):
    return cc4.make_params(name).red


def acting(kind, state=UNKNOWN, host=HOST, session=0):
    """Agent 2 sits on BASE, and its action on the host takes effect now; the host has a session, so it is not lost."""
    world = World()
    world.session(RED, BASE, id=0)
    if host == HOST:
        world.session(RED, HOST, id=1, abstract=False, root=kind in ROOT_NEEDED)
    world.learn(RED, host, state)
    world.remember(RED, host, 0)
    world.red_does(RED, kind, host, session)
    return world


# knowledge


def test_the_complete_table_of_successes():
    cases = [(state, kind) for state in SUCCESS for kind in list(RedAction)[:8]]
    results = run([acting(kind, state) for state, kind in cases])
    after = {case: result.knowledge(RED, HOST) for case, result in zip(cases, results, strict=True)}
    assert after == {(state, kind): SUCCESS[state].get(kind, state) for state, kind in cases}


def test_dropped_and_failed_actions_change_nothing():
    cases = [(state, kind) for state in SUCCESS for kind in list(RedAction)[:8]]
    dropped = run([acting(kind, state, session=9) for state, kind in cases])
    assert [result.knowledge(RED, HOST) for result in dropped] == [state for state, _ in cases]
    blocked = [acting(kind, state, server(RZA)) for state in (K, S) for kind in (AGGRESSIVE, STEALTH, EXPLOIT)]
    for world in blocked:
        world.block(RZA, OZA)
    results = run(blocked)
    assert [result.knowledge(RED, server(RZA)) for result in results] == [K] * 3 + [S] * 3


def test_foreign_servers_go_from_k_to_s_to_f_and_stay_there_q27():
    cases = {(K, AGGRESSIVE): S, (K, STEALTH): S, (S, EXPLOIT): F, (S, DECEPTION): S, (K, EXPLOIT): K, (F, EXPLOIT): F}
    results = run([acting(kind, state, server(RZA)) for state, kind in cases])
    assert [result.knowledge(RED, server(RZA)) for result in results] == list(cases.values())


def test_a_sweep_does_not_touch_hosts_elsewhere():
    world = acting(DRS)
    world.learn(RED, server(RZA), K)
    world.session(5, server(ADM))
    world.learn(5, server(OFF), K)
    world.learn(5, server(PAZ), K)
    world.red_does(5, DRS, server(OFF))
    world.choices.red_subnet[5] = PAZ
    after = world.step()
    assert after.knowledge(RED, server(RZA)) == K
    assert after.knowledge(5, server(PAZ)) == KD and after.knowledge(5, server(OFF)) == K


def test_hosts_first_seen_in_a_sweep_are_k_and_those_seen_before_kd():
    world = acting(DRS, K)
    after = world.step()
    assert after.knowledge(RED, HOST) == KD
    assert after.knowledge(RED, user(OZA, 2)) == K
    assert after.knowledge(RED, BASE) == K, "seen because of the agent's own session"


@pytest.mark.parametrize(("first_call", "state"), [(True, U), (False, K)])
def test_new_hosts_are_u_at_the_first_call_and_k_later_q24(first_call, state):
    world = World()
    world.session(RED, BASE)
    world.state.red.first_call[RED] = first_call
    after = world.step()
    assert after.knowledge(RED, BASE) == state
    assert not after.state.red.first_call[RED]


@pytest.mark.parametrize("state", [K, KD, S, SD])
def test_a_session_that_arrives_leaves_a_known_host_as_it_is_q26(state):
    world = World()
    world.session(RED, BASE)
    world.learn(RED, HOST, state)
    world.phish(HOST)
    after = world.step()
    assert after.knowledge(RED, HOST) == state and after.sessions_on(HOST)


@pytest.mark.parametrize("state", SUCCESS)
def test_hosts_without_a_session_fall_back_to_kd(state):
    world = World()
    world.session(RED, BASE)
    world.learn(RED, HOST, state)
    assert world.step().knowledge(RED, HOST) == (KD if state >= U else state)


def test_an_agent_without_sessions_is_frozen_until_it_has_one_again_q25():
    world = World()
    world.session(RED, BASE)
    world.learn(RED, BASE, R)
    world.learn(RED, user(OZA), S)
    world.blue_does(BlueAction.RESTORE, BASE)
    gone = world.step()
    assert gone.knowledge(RED, BASE) == R and gone.known(RED) == {0}
    again = world.copy()
    again.state = gone.state
    again.phish(HOST)
    back = again.step()
    assert back.knowledge(RED, BASE) == KD and back.knowledge(RED, user(OZA)) == S
    assert back.knowledge(RED, HOST) == K, "the first call was long ago"


def test_agent_5_learns_the_subnets_of_its_sessions_q23():
    world = World(hq_start=OFF)
    assert world.state.red.hq_known.tolist() == [False, True, False]
    world.session(5, server(OFF))
    world.phish(user(PAZ))
    after = world.step()
    assert after.state.red.hq_known.tolist() == [False, True, True]
    world.state = after.state
    world.lose(5)
    world.session(5, server(OFF))
    assert world.step().state.red.hq_known.tolist() == [False, True, True], "and never forgets them"


# choices


@pytest.mark.parametrize("name", PROBABILITIES)
def test_actions_by_the_state_of_the_host(name):
    """Six hosts in the same state, one per agent: the whole table of a policy, exactly."""
    for state, row in PROBABILITIES[name].items():
        world = World()
        for agent, host in enumerate((server(0), server(1), BASE, server(3), server(4), server(6))):
            world.session(agent, host, id=1 if agent == 0 else 0)
            world.learn(agent, host, state)
        world.learn(0, world.red_start, UNKNOWN)
        choices = decide(world, policy(name), red_action=1)
        for agent in range(6):
            counts = np.bincount(choices.red_action[:, agent], minlength=len(RedAction))
            assert np.abs(counts / 256 - [*row, 0, 0]).max() < 1 / 256


def test_the_sleeping_red_sleeps():
    world = World()
    world.session(RED, BASE)
    world.learn(RED, BASE, R)
    assert (decide(world, policy("sleep")).red_action == RedAction.SLEEP).all()


def known_network(agent, hosts):
    world = World()
    world.session(agent, next(iter(hosts)))
    for host, state in hosts.items():
        world.learn(agent, host, state)
    return world


def test_any_known_host_that_is_not_f_is_chosen_alike():
    hosts = {BASE: R, HOST: K, server(OZA, 2): SD, server(RZA): S}
    choices = decide(known_network(RED, hosts), policy("fsm"), red_host=1)
    counts = Counter(choices.red_target[:, RED].tolist())
    assert counts == {target_of(RED, host): 64 for host in hosts}
    exploited = known_network(RED, hosts | {server(RZA): F})
    choices = decide(exploited, policy("fsm"), red_host=1)
    assert target_of(RED, server(RZA)) not in choices.red_target[:, RED]
    assert len(set(choices.red_target[:, RED].tolist())) == 3


def test_agent_5_chooses_among_three_zones_and_the_contractors_server():
    hosts = {server(ADM): R, user(OFF, 9): K, server(PAZ, 5): SD, server(0): S}
    choices = decide(known_network(5, hosts), policy("fsm"), red_host=1)
    assert Counter(choices.red_target[:, 5].tolist()) == {target_of(5, host): 64 for host in hosts}


def test_the_acting_session_is_any_known_id_dead_ones_too_q6():
    world = known_network(RED, {BASE: R})
    for id in (5, 31, 32, 63):
        world.learn_id(RED, id)
    world.session(RED, HOST, id=7, abstract=False)
    choices = decide(world, policy("fsm"), rounds=4, red_session=1)
    counts = Counter(choices.red_session[:, RED].tolist())
    assert set(counts) == {0, 5, 31, 32, 63} and max(counts.values()) - min(counts.values()) <= 1


def test_sweeps_hit_any_known_subnet_q23():
    world = known_network(5, {server(PAZ): R})
    world.state.red.hq_known[:] = [True, False, True]
    choices = decide(world, policy("fsm"), red_subnet=1)
    assert Counter(choices.red_subnet[:, 5].tolist()) == {ADM: 128, PAZ: 128}
    assert (choices.red_subnet[:, :5] == np.arange(5)).all()


@pytest.mark.parametrize(
    ("name", "hunted"),
    [
        ("fsm", ()),
        ("cia_c", (Role.AUTH, Role.DB)),
        ("cia_i", (Role.AUTH, Role.WEB)),
        ("cia_a", tuple(Role)),
    ],
)
def test_hosts_with_a_hunted_role_weigh_ten(name, hunted):
    """Any eligible one, whether or not its name is known, that of another zone as well."""
    world = World(roles=(server(OZA), server(OZB), server(OZA, 2)))
    weights = {}
    for agent, zone in ((2, OZA), (4, OZB), (3, RZB)):
        hosts = [server(zone, i) for i in range(3)] + [user(zone, i) for i in range(2)]
        hosts += [server(OZB)] if agent == 3 else []
        for host in hosts:
            world.learn(agent, host, K)
        world.session(agent, hosts[0])
        roles = {server(OZA): Role.AUTH, server(OZB): Role.DB, server(OZA, 2): Role.WEB}
        weights[agent] = {target_of(agent, host): 10 if roles.get(host) in hunted else 1 for host in hosts}
    choices = decide(world, policy(name), rounds=4, red_host=1)
    for agent, by_target in weights.items():
        counts = Counter(choices.red_target[:, agent].tolist())
        total = sum(by_target.values())
        for target, weight in by_target.items():
            assert abs(counts[target] - 1024 * weight / total) <= 2


def test_discovery_draws_a_state_by_weight_first():
    """K and UD weigh 20 and 10, whatever the number of hosts in them; R counts only if there is nothing else."""
    world = known_network(RED, {BASE: UD, user(OZA): K, user(OZA, 1): K, user(OZA, 2): K, user(OZA, 3): R})
    choices = decide(world, policy("discovery"), rounds=8)
    targets = choices.red_target[:, RED]
    counts = [(targets == target_of(RED, host)).sum() for host in (BASE, *[user(OZA, i) for i in range(4)])]
    assert_frequencies(counts, [1 / 3, 2 / 9, 2 / 9, 2 / 9, 0])
    rooted = known_network(RED, {BASE: R, HOST: RD, user(OZA, 2): RD})
    choices = decide(rooted, policy("discovery"), rounds=8)
    assert_rate(choices.red_target[:, RED] == target_of(RED, BASE), 1 / 2)


def test_discovery_prefers_servers_whose_name_it_knows():
    world = known_network(RED, {BASE: K, server(OZA, 1): K, server(OZA, 2): K, HOST: K})
    for host in (BASE, server(OZA, 1), HOST):
        world.learn_name(host)
    targets = decide(world, policy("discovery"), rounds=8).red_target[:, RED]
    hosts = (BASE, server(OZA, 1), server(OZA, 2), HOST)
    counts = [(targets == target_of(RED, host)).sum() for host in hosts]
    assert_frequencies(counts, [0.375, 0.375, 0.125, 0.125])
    for host in (BASE, server(OZA, 1), HOST):
        world.learn_name(host, False)
    targets = decide(world, policy("discovery"), rounds=8).red_target[:, RED]
    assert_frequencies([(targets == target_of(RED, host)).sum() for host in hosts], [0.25] * 4)


def test_names_are_learned_through_sessions_and_disclosures():
    world = acting(ESCALATE, U)
    world.red_does(RED, DRS, HOST)
    after = world.step()
    assert after.named(BASE) and after.named(HOST) and not after.named(user(OZA, 2))


def test_a_red_of_ones_own():
    """Only scans, and never sleeps where it can scan."""
    mine = cc4.red_policy({K: (0, 1), KD: (0, 1), U: (0.25,)}, role_weight=3, hunted=(Role.DB,))
    choices = decide(known_network(RED, {BASE: U}), mine, red_action=1)
    counts = np.bincount(choices.red_action[:, RED], minlength=len(RedAction))
    assert counts[DRS] == 64 and counts[RedAction.SLEEP] == 192
    params = cc4.make_params(mine, num_steps=30)
    assert params.red is mine and params.num_steps == 30


@pytest.mark.parametrize("row", [(0.5, 0.6), (-0.1, 0.5)])
def test_impossible_probabilities_are_refused(row):
    with pytest.raises(ValueError, match="at most 1"):
        cc4.red_policy({K: row})


@pytest.mark.parametrize("weights", [{"role_weight": 0.5}, {"state_weights": {K: -1}}])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match=r"at least [01]"):
        cc4.red_policy({K: (1,)}, **weights)


def test_unknown_reds_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'fms'.*discovery"):
        cc4.make_params("fms")
    with pytest.raises(ValueError, match="num_steps"):
        cc4.make_params("fsm", num_steps=2)


def test_operational_servers_of_the_policies():
    assert {name: int(cc4.make_params(name).operational_servers) for name in cc4.REDS} == {
        "fsm": 0,
        "cia_c": 3,
        "cia_i": 3,
        "cia_a": 3,
        "discovery": 0,
        "aggressive": 0,
        "stealthy": 0,
        "impact": 0,
        "sleep": 0,
    }
