"""`reset`, `step` and `transition`: the order of a step, the end of an episode, and the shape of the interface."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import (
    OFF,
    OZA,
    RZA,
    World,
    decide_batch,
    green_on,
    repeat,
    run,
    sample_batch,
    server,
    transition_batch,
    user,
    view_batch,
)

from purecc4.envs import cc4
from purecc4.envs.cc4.constants import (
    NO_HOST,
    NUM_PHASES,
    BlueAction,
    Decoy,
    GreenAction,
    Knowledge,
    RedAction,
)

AGGRESSIVE, EXPLOIT, DEGRADE = (
    RedAction.AGGRESSIVE_SERVICE_DISCOVERY,
    RedAction.EXPLOIT_REMOTE_SERVICE,
    RedAction.DEGRADE_SERVICES,
)


# the order of a step


def scanning_abroad():
    """Red agent 2 scans server 0 of restricted zone A, and is always noticed."""
    world = World()
    world.session(2, server(OZA))
    world.red_does(2, AGGRESSIVE, server(RZA))
    return world


def test_traffic_is_controlled_before_red_acts():
    blocked, allowed = scanning_abroad(), scanning_abroad()
    blocked.blue_submits(0, BlueAction.BLOCK_TRAFFIC_ZONE, to=RZA, source=OZA)
    allowed.block(RZA, OZA)
    allowed.blue_submits(0, BlueAction.ALLOW_TRAFFIC_ZONE, to=RZA, source=OZA)
    blocked, allowed = run([blocked, allowed])
    assert not blocked.connection_alert(server(RZA)) and allowed.connection_alert(server(RZA))


def test_blue_acts_before_red():
    """A decoy of this step shows a stealthy scan; a session that is restored away cannot scan."""
    decoyed, restored = scanning_abroad(), scanning_abroad()
    decoyed.draw("detection", 2, 0.99)
    decoyed.blue_does(BlueAction.DEPLOY_DECOY, server(RZA))
    restored.blue_does(BlueAction.RESTORE, server(OZA))
    decoyed, restored = run([decoyed, restored])
    assert decoyed.connection_alert(server(RZA)) and not restored.connection_alert(server(RZA))


def test_blue_acts_before_green():
    """A Restore saves the work of the same step, and so does a decoy picked instead of the degraded service."""
    host = user(RZA)
    worlds = [World() for _ in range(3)]
    for world in worlds:
        world.wear(host, 0)
        world.green_does(host, GreenAction.LOCAL_WORK)
        world.draw("green_outcome", green_on(host), 0.6)
    worlds[1].blue_does(BlueAction.RESTORE, host)
    worlds[2].blue_does(BlueAction.DEPLOY_DECOY, host)
    assert [after.reward for after in run(worlds)] == [-1, 0, 0]


def test_green_acts_before_red():
    """Services degraded by red still work in this step, and a phished session and an exploit can share a host."""
    host = user(OZA)
    world = World()
    world.session(2, server(OZA), root=True)
    world.session(2, host, id=1, root=True)
    world.wear(host, 20)
    world.green_does(host, GreenAction.LOCAL_WORK)
    world.draw("green_outcome", green_on(host), 0.85)
    world.red_does(2, DEGRADE, host)
    after = world.step()
    assert after.reward == 0 and after.reliability(host) == 0
    both = World()
    both.session(2, server(OZA))
    both.remember(2, host, 0)
    both.red_does(2, EXPLOIT, host)
    both.phish(host)
    after = both.step()
    assert after.sessions_on(host) == {1, 2}
    assert after.sessions(2)[1].abstract and not after.sessions(2)[2].abstract
    assert after.sessions(2)[2].pid > after.sessions(2)[1].pid


def test_a_fresh_mail_can_be_escalated_in_the_step_of_a_restore():
    host = user(OZA)
    world = World()
    world.session(2, server(OZA))
    world.session(2, host, id=1)
    world.learn(2, host, Knowledge.U)
    world.red_does(2, RedAction.PRIVILEGE_ESCALATE, host)
    world.blue_does(BlueAction.RESTORE, host)
    world.phish(host)
    after = world.step()
    assert after.sessions(2)[1] == (host, True, True, 1)
    assert after.knowledge(2, host) == Knowledge.R


def test_red_chooses_from_what_it_knew_before_the_step():
    world = World()
    world.session(2, server(OZA), root=True)
    world.learn(2, server(OZA), Knowledge.RD)
    policy = repeat(cc4.make_params("fsm").red)
    draws = sample_batch()(jax.random.key(0))
    choices = decide_batch()(repeat(world.state), policy, draws)
    assert np.isin(choices.red_action[:, 2], (RedAction.IMPACT, DEGRADE)).all()


# episodes


@pytest.mark.parametrize("num_steps", [3, 10, 100, 499, 500])
def test_phases_are_thirds_longer_ones_first(num_steps):
    """10 steps have phases of 4, 3 and 3; 500 of 167, 167 and 166."""
    scenario = World(num_steps=num_steps).state.scenario
    third, rest = divmod(num_steps, NUM_PHASES)
    assert scenario.phase_starts[0] == 0
    lengths = np.diff([*scenario.phase_starts, num_steps])
    assert lengths.tolist() == [third + (phase < rest) for phase in range(NUM_PHASES)]


def test_the_episode_is_done_after_its_last_step_and_not_before():
    worlds = [World(num_steps=10, step=step) for step in (0, 8, 9)]
    results = run(worlds)
    assert [after.done for after in results] == [False, False, True]
    assert [int(after.state.step) for after in results] == [1, 9, 10], "and nothing is reset"


def test_an_episode_starts_with_one_session_of_red():
    world = World(hq_start=OFF)
    assert world.sessions(0) == {0: (world.red_start, True, False, 0)}
    assert all(world.sessions(agent) == {} for agent in range(1, 6))
    assert [world.known(agent) for agent in range(6)] == [{0}, *[set()] * 5]
    assert world.knowledge(0, world.red_start) == Knowledge.U
    assert world.state.red.first_call.tolist() == [False, *[True] * 5]
    assert world.blocks() == set() and int(world.state.step) == 0 and int(world.state.overflow) == 0


# the interface


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def test_a_step_keeps_the_shapes_of_the_state_and_runs_in_a_batch():
    """Messages may be left out."""
    keys, params = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 3)), cc4.make_params("cia_a")
    obs, state = jax.eval_shape(jax.vmap(lambda key: cc4.reset(key, params)), keys)
    actions = jax.ShapeDtypeStruct((3, 5), jnp.int32)
    play = jax.vmap(lambda key, state, actions: cc4.step(key, state, actions, params))
    later_obs, later, reward, done, info = jax.eval_shape(play, keys, state, actions)
    assert shapes(later) == shapes(state) and shapes(later_obs) == shapes(obs)
    assert shapes((obs.flat, obs.mask)) == (((3, 5, 210), jnp.uint8), ((3, 5, 242), jnp.bool_))
    assert shapes((reward, done)) == (((3,), jnp.float32), ((3,), jnp.bool_))
    assert shapes(info.executed) == ((3, 5), jnp.uint8)


def test_the_state_is_small():
    """The raw observation adds a few hundred bytes, and nothing to those who do without."""
    sizes = []
    for observation in cc4.OBSERVATIONS:
        params = cc4.make_params(observation=observation)
        state = jax.eval_shape(lambda key, params=params: cc4.reset(key, params), jax.random.key(0))[1]
        sizes.append(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)))
    flat, raw = sizes
    assert flat < raw <= flat + 400 and raw < 17_000


def test_a_state_spelled_out():
    host = server(OZA)
    world = World()
    world.session(2, host, root=True, pid=5)
    world.learn(2, host, Knowledge.RD)
    world.learn(2, server(RZA), Knowledge.S)
    world.decoy(host, Decoy.TOMCAT, pid=7, reliability=60)
    world.suspect(host, 3, 4)
    world.stop_ot(host)
    world.wear(host, 40)
    view = jax.tree.map(lambda leaf: np.asarray(leaf)[0], view_batch()(repeat(world.state)))
    assert np.flatnonzero(view.held).tolist() == [world.red_start, host]
    assert np.flatnonzero(view.rooted).tolist() == [host]
    assert view.knowledge[host] == Knowledge.RD and view.foreign[2, RZA] == Knowledge.S
    assert view.decoy_pid[:, host].tolist() == [0, 7, 0, 0] and view.decoy_reliability[Decoy.TOMCAT, host] == 60
    assert view.largest_pid[host] == 7 and view.suspicious_pid[:2, host].tolist() == [3, 4]
    assert view.ot_stopped[host] and view.reliability[host] == 40
    assert view.session_host[2, :2].tolist() == [host, NO_HOST] and view.session_pid[2, 0] == 5
    assert view.session_abstract[2, 0] and view.session_root[2, 0] and view.known_ids[2, 0]
    assert view.active.tolist() == [True, False, True, False, False, False]
    assert view.named[world.red_start] and not view.blocked.any()


def test_the_same_inputs_give_the_same_step():
    world = World()
    batch = [repeat(x) for x in (world.state, world.actions, world.messages, world.choices)]
    draws = sample_batch()(jax.random.key(5))
    first, second = (transition_batch()(*batch, draws) for _ in range(2))
    assert jax.tree.all(jax.tree.map(np.array_equal, first, second))


@pytest.mark.parametrize("shape", [(), (1,), (4,), (1, 5)])
def test_actions_of_another_shape_are_refused(shape):
    """Without the type checker of the tests, which refuses them, too."""
    params, key = cc4.make_params("fsm"), jax.random.key(1)
    state = jax.eval_shape(cc4.reset, key, params)[1]
    step = inspect.unwrap(cc4.step)
    with pytest.raises(ValueError, match="5 agents"):
        jax.eval_shape(lambda key, state: step(key, state, jnp.zeros(shape, jnp.int32), params), key, state)
