"""Operational metrics, story by story, and recounted in played episodes."""

import copy
from math import isnan
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import CON, OFF, OZA, RZA, World, red_of, server, user

from purecc4.envs import cc4
from purecc4.envs.cc4.constants import NUM_HOSTS, SLOTS, BlueAction, Decoy, Exploit, Port, RedAction
from purecc4.play import metrics
from purecc4.play.episodes import advance, start
from purecc4.play.policies import scripted

REMOVE, RESTORE = BlueAction.REMOVE, BlueAction.RESTORE
HOST, OTHER = user(OZA), user(OFF, 2)
OWN = 7 * (3 + 4)
"""Own hosts of a world."""
add, summarise = jax.jit(metrics.add), jax.jit(metrics.summarise)


def story(*steps) -> dict[str, float]:
    """METRICS of an episode, one step per list of events."""
    world, tally = World(), metrics.begin(len(steps))
    for events in steps:
        before = copy.deepcopy(world.state)
        for event in events:
            event(world)
        after = world.step()
        tally, world.state = jax.device_get(add(tally, before, after.state, after.info)), after.state
    return dict(zip(metrics.METRICS, summarise(tally, world.state).tolist(), strict=True))


def infect(host=HOST, id=0, pid=5):
    """Red gets a session in this step; blue knows its pid."""

    def event(world):
        world.session(red_of(host), host, id=id, pid=pid)
        world.suspect(host, pid)

    return event


def does(kind, host=HOST):
    """Blue's action takes effect in this step."""
    return lambda world: world.blue_does(kind, host)


def test_nothing_happens():
    found = story([], [])
    assert found["clean_hosts"] == 1 and isnan(found["recovery_steps"])
    assert not any(found[name] for name in metrics.METRICS if name not in ("clean_hosts", "recovery_steps"))


def test_an_infection_lasts_until_red_has_no_session_on_the_host():
    found = story([], [infect()], [], [], [does(RESTORE)])
    assert found["clean_hosts"] == pytest.approx(1 - 3 / 5 / OWN)
    assert (found["infections"], found["recovery_steps"]) == (1, 3)
    assert (found["restores_infected"], found["restores_clean"]) == (1, 0)


def test_a_remove_that_leaves_a_session_is_no_recovery():
    found = story([infect(), infect(id=1, pid=0)], [does(REMOVE)], [], [does(RESTORE)], [])
    assert (found["infections"], found["removed_sessions"], found["recovery_steps"]) == (1, 1, 3)
    found = story([infect()], [does(REMOVE)], [does(REMOVE)])
    assert (found["removed_sessions"], found["recovery_steps"]) == (1, 1)


def test_restores_are_told_apart_by_what_they_met():
    found = story([does(RESTORE)], [infect(), infect(OTHER)], [does(RESTORE), does(RESTORE, server(RZA))])
    assert (found["restores_infected"], found["restores_clean"], found["removed_sessions"]) == (1, 2, 0)


def test_the_median_counts_open_infections_with_their_steps_so_far():
    once = [infect()], [does(RESTORE)]
    assert story(*once, [infect()], [], [], [], [does(RESTORE)])["recovery_steps"] == 2.5
    assert story(*once, [infect()], [], [], [])["recovery_steps"] == 2
    assert story(*once, [infect()], [], [does(RESTORE)], [infect(OTHER)], *[[]] * 9)["recovery_steps"] == 2
    assert story([infect()])["recovery_steps"] == 0


def test_a_host_that_is_infected_again_within_the_step_stays_infected():
    def phished(world):
        world.phish(HOST)

    found = story([infect()], [does(RESTORE), phished], [])
    assert (found["infections"], found["restores_infected"], found["recovery_steps"]) == (1, 1, 2)


def test_the_contractor_network_is_left_out():
    found = story([infect(user(CON), id=1)], [])
    assert found["clean_hosts"] == 1 and not found["infections"]


def test_decoy_hits_and_impacts():
    def exploit(world):
        world.session(red_of(HOST), server(OZA), id=1)
        world.decoy(HOST, Decoy.TOMCAT)
        world.remember(red_of(HOST), HOST, 1, Port.HTTPS, Port.SMTP)
        world.red_does(red_of(HOST), RedAction.EXPLOIT_REMOTE_SERVICE, HOST, session=1)
        world.draw("exploit", (Exploit.HTTPS_RFI, red_of(HOST)), 1.0)

    assert story([exploit], [])["decoy_hits"] == 1

    def impact(root):
        def event(world):
            world.session(red_of(HOST), server(OZA), id=1, root=root)
            world.red_does(red_of(HOST), RedAction.IMPACT, server(OZA), session=1)

        return event

    assert [story([impact(root)], [])["impacts"] for root in (True, False)] == [1, 0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random", "analyst"])
def test_played_episodes_agree_with_a_recount(name):
    """From the state before and after each step, host by host. Only Remove and Restore end infections."""
    policy, steps = scripted(name), 200
    params = cc4.make_params("fsm", num_steps=steps, observation=policy.observation)

    @jax.jit
    def play(episode):
        now, key_steps = start(policy, params, jnp.uint32(0), episode)

        def step(carry, _):
            now, tally = carry
            held = cc4.view(now.state).held
            after, info, _ = advance(policy, params, now, key_steps)
            return (after, metrics.add(tally, now.state, after.state, info)), (held, info.executed)

        (now, tally), (held, executed) = jax.lax.scan(step, (now, metrics.begin(steps)), length=steps)
        last = cc4.view(now.state).held
        return metrics.summarise(tally, now.state), jnp.concatenate([held, last[None]]), executed, now.state.network

    for episode in range(4):
        found, held, executed, network = jax.tree.map(np.asarray, play(jnp.int32(episode)))
        exists = (network.exists[:, None] >> np.arange(SLOTS) & 1).astype(bool).reshape(-1)
        own = exists & (np.arange(NUM_HOSTS) >= SLOTS)
        lasted, since = [], {}
        for step in range(1, steps + 1):
            for host in np.flatnonzero(own & (held[step] != held[step - 1])):
                if held[step, host]:
                    since[host] = step
                else:
                    lasted.append(step - since.pop(host))
        infections = len(lasted) + len(since)
        found = dict(zip(metrics.METRICS, found.tolist(), strict=True))
        assert found["clean_hosts"] == pytest.approx(1 - held[1:, own].mean(), abs=1e-5)
        assert found["infections"] == infections > 5
        assert found["recovery_steps"] == median(lasted + [steps - step for step in since.values()])
        assert found["restores_infected"] + found["restores_clean"] == (executed == RESTORE).sum() > 0
