"""Adapters: the tests of the libraries themselves, invalid actions, user-defined reds and arms."""

import inspect
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import worlds

from purecc4 import adapters, arms
from purecc4.adapters import AGENTS, cyborg_agents, make_game, vector
from purecc4.cyborg import objects
from purecc4.envs import cc4
from purecc4.envs.cc4.actions import ACTION_TABLE, IS_PADDING, host_name
from purecc4.envs.cc4.constants import (
    MESSAGE_BITS,
    NUM_ACTIONS,
    NUM_BLUE,
    SUBNET_NAMES,
    BlueAction,
    Knowledge,
    RedAction,
)
from purecc4.envs.cc4.raw import Alert, silent
from purecc4.errors import UserError

HURRIED = {  # a user-defined red: weights of the actions, in the order of RedAction, by knowledge of the host
    Knowledge.K: (0, 1),
    Knowledge.S: (0, 0, 0, 0, 1),
    Knowledge.U: (0, 0, 0, 0, 0, 1),
    Knowledge.R: (1,),
    Knowledge.KD: (0, 1),
    Knowledge.SD: (0, 0, 0, 0, 1),
    Knowledge.UD: (0, 0, 0, 0, 0, 1),
    Knowledge.RD: (0, 0, 0, 0, 0, 0, 0.9, 0.1),
}
FOURFOLD = arms.ArmSpec(missions=((4, 4, 4),), phase_starts=((0, 2, 4),))
SLEEP = (ACTION_TABLE[:, :, 0] == BlueAction.SLEEP).argmax(axis=1)
SILENT = jnp.zeros((NUM_BLUE, MESSAGE_BITS), jnp.uint8)


def play(game, num_steps, seed=0):
    """Rewards [step] of an episode in which blue sleeps."""
    key_reset, key_steps = jax.random.split(jax.random.key(seed))
    _, state = game.reset(key_reset)
    rewards = []
    for i in range(num_steps):
        _, state, reward, done, _ = game.step(jax.random.fold_in(key_steps, i), state, jnp.array(SLEEP), SILENT)
        rewards.append(float(reward))
    assert bool(done)
    return np.array(rewards)


@pytest.mark.slow
def test_a_user_defined_red_plays_and_a_user_defined_arm_multiplies():
    red = cc4.red_policy(HURRIED)
    rewards = play(make_game(red, "C00", 40), 40)
    fourfold = play(make_game(red, replace(FOURFOLD, phase_starts=(None,)), 40), 40)
    assert rewards.min() < 0
    np.testing.assert_allclose(fourfold, 4 * rewards)


def test_a_red_as_a_function():
    """The choices of a red that is not a matrix replace those of the policy."""
    world = worlds.World(num_steps=3)
    state, red = worlds.repeat(world.state), worlds.repeat(cc4.make_params("fsm").red)
    for i in range(3):
        draws = worlds.sample_batch()(jax.random.key(i))
        choices = worlds.decide_batch()(state, red, draws)
        asleep = eqx.tree_at(lambda c: c.red_action, choices, jnp.full_like(choices.red_action, RedAction.SLEEP))
        actions, messages = worlds.repeat((world.actions, world.messages))
        _, state, _, done, _ = worlds.transition_batch()(state, actions, messages, asleep, draws)
    assert done.all() and (state.red.queue.action == RedAction.SLEEP).all()


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match=r"unknown red 'nobody'.*fsm"):
        make_game("nobody", "C00", 5)
    with pytest.raises(UserError, match=r"unknown arm 'C99'.*C00"):
        make_game("fsm", "C99", 5)
    with pytest.raises(UserError, match="4 steps"):
        make_game("fsm", FOURFOLD, 4)
    for num_steps in (1001, 2**31):
        with pytest.raises(UserError, match=r"num_steps.* 1000"):
            make_game("fsm", "C00", num_steps)
    with pytest.raises(UserError, match=r"unknown observation 'smell'.*flat, raw"):
        make_game("fsm", "C00", 5, observation="smell")
    with pytest.raises(UserError, match="at least one arm"):
        arms.build([])


def test_names_from_a_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[arms.dear]\nrestore_cost = 2\n[reds.mine]\nlike = 'cia_a'")
    game = make_game("mine", "dear", 5, path)
    assert game.env.params.operational_servers == 3 and game.arm.restore_cost == 2


@pytest.mark.parametrize("library", ["jaxmarl", "pettingzoo"])
def test_a_missing_library_names_the_install_command(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"purecc4.adapters.{library}", raising=False)
    with pytest.raises(ImportError, match=rf"pip install -e '\.\[{library}\]'"):
        __import__(f"purecc4.adapters.{library}")


@pytest.mark.slow
@pytest.mark.parametrize("observation", cc4.OBSERVATIONS)
def test_pettingzoo_own_tests(observation):
    pytest.importorskip("pettingzoo")
    from pettingzoo.test import parallel_api_test, parallel_seed_test

    from purecc4.adapters.pettingzoo import CC4

    parallel_api_test(CC4(num_steps=20, observation=observation), num_cycles=50)
    parallel_seed_test(
        lambda: CC4(cc4.red_policy(HURRIED), FOURFOLD, num_steps=6, observation=observation), num_cycles=8
    )


def test_pettingzoo_messages_and_end():
    pytest.importorskip("pettingzoo")
    from purecc4.adapters.pettingzoo import CC4

    env = CC4(num_steps=3)
    observations, infos = env.reset(seed=5)
    assert not observations["blue_agent_0"][60:].any()
    assert infos["blue_agent_4"]["action_mask"].sum() >= 4 * 6 + 50
    actions = dict(zip(AGENTS, SLEEP, strict=True))
    observations, rewards, *_ = env.step(actions, {"blue_agent_1": np.array([1, 0, 0, 0, 0, 0, 0, 1])})
    assert observations["blue_agent_0"][60:68].tolist() == [1, 0, 0, 0, 0, 0, 0, 1]
    assert not observations["blue_agent_1"][60:].any()
    env.step(actions)
    env._state = eqx.tree_at(lambda x: x.overflow, env._state, jnp.int32(2))
    *_, truncations, infos = env.step(actions)
    assert all(truncations.values()) and not env.agents
    assert set(infos["blue_agent_0"]) == {"action_mask", "lwf", "asf", "ria", "cost", "overflow"}
    assert infos["blue_agent_4"]["overflow"] == 2
    assert len(set(rewards.values())) == 1


@pytest.mark.parametrize("action", [242, -1, -1000, 49.9, "49", None, np.zeros(2, int), np.array([49]), True])
def test_pettingzoo_refuses_invalid_actions(action):
    pytest.importorskip("pettingzoo")
    from purecc4.adapters.pettingzoo import CC4

    env = CC4(num_steps=3)
    actions = dict(zip(AGENTS, SLEEP, strict=True))
    with pytest.raises(ValueError, match="reset"):
        env.step(actions)
    env.reset(seed=1)
    with pytest.raises(ValueError, match=r"0 to 241.*blue_agent_2"):
        env.step(actions | {"blue_agent_2": action})
    with pytest.raises(ValueError, match=r"blue_agent_0, .*blue_agent_4.*blue_agent_0"):
        env.step({"blue_agent_0": 49})
    for message in ([1] * 7, [2] * 8):
        with pytest.raises(ValueError, match="8 bits"):
            env.step(actions, {"blue_agent_0": np.array(message)})
    env.step({agent: jnp.int32(action) for agent, action in actions.items()})


def test_jaxmarl_refuses_invalid_actions():
    pytest.importorskip("jaxmarl")
    from purecc4.adapters import jaxmarl

    env = jaxmarl.CC4(num_steps=9)
    _, state = env.reset(jax.random.key(0))
    sleep = {agent: jnp.array([action]) for agent, action in zip(AGENTS, SLEEP, strict=True)}
    with pytest.raises(ValueError, match=r"one integer.*blue_agent_1.*int32.*\(2,\)"):
        env.step_env(jax.random.key(1), state, sleep | {"blue_agent_1": jnp.zeros(2, int)})
    with pytest.raises(ValueError, match=r"one integer.*blue_agent_1.*float32"):
        jaxmarl._action("blue_agent_1", jnp.float32(49))
    expected = env.step_env(jax.random.key(1), state, sleep)
    for index in (242, -1, -1000):
        stepped = env.step_env(jax.random.key(1), state, dict.fromkeys(AGENTS, jnp.array(index)))
        assert eqx.tree_equal(expected, stepped)


def test_jaxmarl_resets_itself():
    pytest.importorskip("jaxmarl")
    from jaxmarl.wrappers.baselines import LogWrapper

    from purecc4.adapters.jaxmarl import CC4

    env = LogWrapper(CC4(arm=replace(FOURFOLD, phase_starts=(None,)), num_steps=3))
    reset, step = jax.vmap(env.reset), jax.jit(jax.vmap(env.step))
    obs, state = reset(jax.random.split(jax.random.key(0), 2))
    hosts = state.env_state.scenario.exists
    actions = {agent: jnp.full(2, index) for agent, index in zip(AGENTS, SLEEP, strict=True)}
    for i in range(3):
        obs, state, rewards, dones, info = step(jax.random.split(jax.random.key(i + 1), 2), state, actions)
        assert (dones["__all__"] == (i == 2)).all() and (state.env_state.step == (i + 1) % 3).all()
    assert set(obs) == set(rewards) == set(AGENTS) and obs["blue_agent_0"].shape == (2, 210)
    assert (info["returned_episode_lengths"] == 3).all() and info["lwf"].shape == info["overflow"].shape == (2, 5)
    assert (state.env_state.scenario.exists != hosts).any(axis=1).all()
    available = jax.vmap(env.get_avail_actions)(state.env_state)
    np.testing.assert_array_equal(
        jnp.stack([available[agent] for agent in AGENTS], axis=1),
        jax.vmap(cc4.action_mask)(state.env_state.scenario.exists),
    )
    assert env.action_space("blue_agent_3").n == 242 and env.observation_space("blue_agent_3").shape == (210,)


def test_jaxmarl_resets_to_a_given_state():
    """At the end of the episode, not before."""
    pytest.importorskip("jaxmarl")
    from purecc4.adapters.jaxmarl import CC4

    env = CC4(num_steps=3)
    _, state = env.reset(jax.random.key(0))
    first_obs, first = env.reset(jax.random.key(1))
    actions = dict(zip(AGENTS, map(jnp.int32, SLEEP), strict=True))
    for i in range(3):
        obs, state, _, dones, _ = env.step(jax.random.key(i), state, actions, first)
        assert bool(dones["__all__"]) == (i == 2) == bool(eqx.tree_equal(state, first))
    assert eqx.tree_equal(obs, first_obs)


def test_jaxmarl_observes_a_state():
    """All but the alerts and messages of the step before, which a state does not hold."""
    pytest.importorskip("jaxmarl")
    from purecc4.adapters.jaxmarl import CC4

    env = CC4(arm=replace(FOURFOLD, phase_starts=((0, 1, 4),)), num_steps=9)
    obs, state = env.reset(jax.random.key(0))
    assert eqx.tree_equal(env.get_obs(state), obs)
    blocked = eqx.tree_at(lambda x: x.blocked, state, ~state.blocked)
    for _ in range(2):
        obs, blocked, *_ = env.step_env(
            jax.random.key(1), blocked, dict(zip(AGENTS, map(jnp.int32, SLEEP), strict=True))
        )
        found = env.get_obs(blocked)
        assert all((found[agent] <= obs[agent]).all() and found[agent].sum() > 8 for agent in AGENTS)
        assert all(found[agent][0] == obs[agent][0] for agent in AGENTS)


def assert_raw(observations, obs, flat_type):
    """Each agent has its row of the flat observation and of the raw arrays."""
    arrays = {"flat": np.asarray(obs.flat, flat_type), **vars(obs.raw)}
    for i, agent in enumerate(AGENTS):
        assert set(observations[agent]) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(observations[agent][name], array[i])
            assert observations[agent][name].dtype == array.dtype


@pytest.mark.slow
def test_pettingzoo_raw_observation():
    """Those of the native functions, within their spaces; the flat vector does not change."""
    pytest.importorskip("pettingzoo")
    from purecc4.adapters.pettingzoo import CC4

    env, flat = (CC4(num_steps=20, observation=observation) for observation in ("raw", "flat"))
    seen, vectors = (each.reset(seed=1)[0] for each in (env, flat))
    key, actions = jax.random.key(np.random.SeedSequence(1).generate_state(1)[0]), dict(zip(AGENTS, SLEEP, strict=True))
    key, key_now = jax.random.split(key)
    obs, state = env._game.reset(key_now)
    noticed = 0
    for _ in range(19):
        assert_raw(seen, obs, np.int64)
        noticed += sum(seen[agent]["alerts"].any() + seen[agent]["visits"].any() for agent in AGENTS)
        assert all(env.observation_space(agent).contains(seen[agent]) for agent in AGENTS)
        assert all((seen[agent]["flat"] == vectors[agent]).all() for agent in AGENTS)
        seen, vectors = (each.step(actions)[0] for each in (env, flat))
        key, key_now = jax.random.split(key)
        obs, state, *_ = env._game.step(key_now, state, jnp.array(SLEEP), SILENT)
    assert noticed


def test_jaxmarl_raw_observation():
    pytest.importorskip("jaxmarl")
    from purecc4.adapters.jaxmarl import CC4

    env, actions = CC4(num_steps=9, observation="raw"), dict(zip(AGENTS, map(jnp.int32, SLEEP), strict=True))
    seen, state = env.reset(jax.random.key(0))
    obs, own = env.game.reset(jax.random.key(0))
    assert_raw(seen, obs, np.float32)
    assert eqx.tree_equal(env.get_obs(state), seen)
    for i in range(5):
        seen, state, *_ = env.step_env(jax.random.key(i), state, actions)
        obs, own, *_ = env.game.step(jax.random.key(i), own, jnp.array(SLEEP))
        assert_raw(seen, obs, np.float32)
        assert all(env.observation_space(agent).contains(seen[agent]) for agent in AGENTS)
    assert set(env.observation_space("blue_agent_0").sample(jax.random.key(0))) == set(seen["blue_agent_0"])


def test_jaxmarl_rollout_manager_knows_neither_masks_nor_the_team_reward():
    """As the documentation of the adapter says."""
    pytest.importorskip("jaxmarl")
    from jaxmarl.wrappers.baselines import CTRolloutManager

    from purecc4.adapters.jaxmarl import CC4

    manager = CTRolloutManager(CC4(), batch_size=2)
    assert all(mask.all() for mask in manager.get_valid_actions(None).values())
    assert manager.global_reward(dict.fromkeys(AGENTS, jnp.float32(-3))) == -15


def test_several_arms_are_refused():
    """Without the type checker of the tests, which refuses them, too."""
    with pytest.raises(UserError, match=r"arm must be the name of one arm.*\['C00'\]"):
        inspect.unwrap(make_game)("fsm", ["C00"], 500)


# Vector environment


def one_by_one(env, key, state, actions, messages):
    """`vector._step` by the program of a single environment, which other tests have compiled."""
    key, key_now = jax.random.split(key)
    keys, stepped = jax.random.split(key_now, len(actions)), []
    for i in range(len(actions)):
        own = jax.tree.map(lambda x, i=i: x[i], (state, actions, messages))
        stepped.append(adapters._step(env, keys[i], own[0], *own[1:]))
    obs, state, reward, _, terms = jax.tree.map(lambda *x: np.stack(x), *stepped)
    return key, obs, state, reward, terms | {"overflow": state.overflow}


def reset_one_by_one(num_envs, env, key, arm):
    """The same for `vector._reset`."""
    key, key_now = jax.random.split(key)
    episodes = [adapters._reset(env, key, arm) for key in jax.random.split(key_now, num_envs)]
    return key, *jax.tree.map(lambda *x: np.stack(x), *episodes)


@pytest.fixture
def single(monkeypatch):
    """Vector environments without a program of their own."""
    monkeypatch.setattr(vector, "_step", one_by_one)
    monkeypatch.setattr(vector, "_reset", reset_one_by_one)


def sleeping(num_envs):
    return np.tile(SLEEP, (num_envs, 1))


def test_vector_resets_itself_on_the_next_step(single):
    env, messages = vector.CC4Vector(num_envs=2, num_steps=3), np.zeros((2, NUM_BLUE, MESSAGE_BITS), int)
    messages[1, 0] = 1
    first, infos = env.reset(seed=5)
    assert first.shape == (2, NUM_BLUE, 210) and not first.flags.owndata
    for i in range(3):
        obs, rewards, terminations, truncations, about = env.step(sleeping(2), messages)
        assert not terminations.any() and (truncations == (i == 2)).all()
        assert obs[0, 1, 60:68].sum() == 0 and obs[1, 1, 60:68].sum() == 8
        terms = sum(about[name] for name in ("lwf", "asf", "ria", "cost"))
        np.testing.assert_allclose(rewards, terms)
    assert set(about) == {"action_mask", "lwf", "asf", "ria", "cost", "overflow"}
    second, rewards, _, truncations, about = env.step(sleeping(2), messages)
    assert not rewards.any() and not truncations.any() and (env.state.step == 0).all()
    assert (about["action_mask"] != infos["action_mask"]).any() and not second[:, :4, 60:68].any()
    assert set(about) == {"action_mask", "lwf", "asf", "ria", "cost", "overflow"}
    again, infos_again = env.reset(seed=5)
    np.testing.assert_array_equal(infos["action_mask"], infos_again["action_mask"])
    np.testing.assert_array_equal(first, again)


def test_vector_refuses_invalid_input(single):
    with pytest.raises(UserError, match=r"num_envs.*: 0"):
        vector.CC4Vector(num_envs=0)
    env = vector.CC4Vector(num_envs=2, num_steps=3)
    with pytest.raises(ValueError, match="call reset"):
        env.step(sleeping(2))
    env.reset(seed=1)
    with pytest.raises(ValueError, match="no options"):
        env.reset(options={"reset_mask": [True, False]})
    for action in (NUM_ACTIONS, -1, 2**32):
        with pytest.raises(ValueError, match=rf"0 to 241.*{action}"):
            env.step(np.where(sleeping(2) == 145, action, 49))
    for actions in (sleeping(3), sleeping(2) * 1.0, SLEEP):
        with pytest.raises(ValueError, match=r"actions must be integers of shape \(2, 5\)"):
            env.step(actions)
    with pytest.raises(ValueError, match="messages must be integers"):
        env.step(sleeping(2), np.zeros((2, NUM_BLUE, 7), int))


@pytest.mark.slow
@pytest.mark.parametrize("observation", cc4.OBSERVATIONS)
def test_vector_is_many_single_environments(observation, monkeypatch):
    played = []
    for steps in (vector._step, one_by_one):
        monkeypatch.setattr(vector, "_step", steps)
        env = vector.CC4Vector(num_envs=3, num_steps=20, observation=observation)
        played.append([env.reset(seed=2), *(env.step(sleeping(3)) for _ in range(21))])
    assert eqx.tree_equal(*played, rtol=1e-6)


# Agents of CybORG


class Restorer:
    """Restores its first host as soon as it can."""

    def __init__(self, name, seen):
        self.name, self.seen = name, seen

    def get_action(self, observation, action_space):
        self.seen.append(observation)
        host = next(host for host, mine in action_space["hostname"].items() if mine)
        return objects.Restore(session=0, agent=self.name, hostname=host)


def test_a_team_acts_on_dictionaries():
    """Agents see their own dictionaries, the first with sessions; those without an agent sleep."""
    seen, raw = [], {name: np.array(array) for name, array in vars(silent()).items()}
    raw["alerts"][1, 0, Alert.WORK] = 1 << 6
    agents = {"blue_agent_1": Restorer("blue_agent_1", seen)}
    team = cyborg_agents.Team(agents, np.ones((5, 242), bool), np.ones(128, bool), Random(0))
    for first in (True, False):
        indices = team.act(raw, first)
        assert ACTION_TABLE[1, indices[1], 0] == BlueAction.RESTORE
        assert (np.delete(indices, 1) == np.delete(SLEEP, 1)).all()
    assert "Sessions" in seen[0]["operational_zone_a_subnet_router"] and "message" not in seen[0]
    assert [name for name in seen[1] if "zone" in name] == ["operational_zone_a_subnet_user_host_0"]


@pytest.mark.slow
def test_agents_of_cyborg_play():
    """A Restore takes five steps and is charged every time; equal seeds play equal episodes."""
    seen = []
    sleeping = cyborg_agents.play(dict, episodes=2, num_steps=6)
    restoring = cyborg_agents.play(lambda: {"blue_agent_1": Restorer("blue_agent_1", seen)}, episodes=2, num_steps=6)
    np.testing.assert_allclose(restoring - sleeping, -6)
    first, later = seen[0], seen[2:12:2]
    assert "Sessions" in first["operational_zone_a_subnet_router"] and "message" not in first
    assert [found["success"].name for found in later] == ["IN_PROGRESS"] * 4 + ["TRUE"]
    assert isinstance(later[-1]["action"], objects.Restore) and later[-1]["action"].hostname in first
    assert len(seen) == 12 and not np.array(later[0]["message"]).any()


def test_indices_of_actions():
    """All indices as objects; other objects are refused in one sentence."""
    exists = np.ones(NUM_ACTIONS, bool)
    for number, agent in enumerate(AGENTS):
        for index in np.flatnonzero(~IS_PADDING[number]):
            kind, host, to, source = ACTION_TABLE[number, index].tolist()
            action = type(objects.ACTIONS[kind].__name__, (), {})()
            if kind >= BlueAction.ALLOW_TRAFFIC_ZONE:
                action.to_subnet, action.from_subnet = SUBNET_NAMES[to], SUBNET_NAMES[source]
            elif host < 128:
                action.hostname = host_name(host)
            assert cyborg_agents.index_of(agent, action, exists) == index
            assert cyborg_agents.index_of(agent, index, ~exists) == index
    restore = objects.Restore(0, "blue_agent_0", "restricted_zone_a_subnet_server_host_5")
    for action, mask in ((restore, ~exists), (None, exists), (242, exists), (objects.Action(), exists)):
        with pytest.raises(UserError, match="blue_agent_0 has no such action in this episode: "):
            cyborg_agents.index_of("blue_agent_0", action, mask)
    with pytest.raises(UserError, match="Restore restricted_zone_a_subnet_server_host_5"):
        cyborg_agents.index_of("blue_agent_1", restore, exists)


def test_invalid_agents_are_refused():
    for agents in ({"blue_agent_5": Restorer("", [])}, {"blue_agent_0": object()}):
        with pytest.raises(UserError, match="agents are objects with get_action"):
            cyborg_agents.Team(agents, np.ones((5, 242), bool), np.ones(128, bool), Random(0))
    with pytest.raises(UserError, match="episodes must be"):
        cyborg_agents.play(dict, episodes=0)


# Examples


def run_example(*command, cyborg=False):
    """Output of a program of examples/ in a process of its own."""
    root = Path(__file__).parents[2]
    python, path = sys.executable, [root]
    if cyborg:
        python = os.environ.get("CYBORG_PYTHON", python)
        path += [Path(os.environ["CYBORG_PATH"]).resolve(), root / "purecc4/cyborg/submission"]
        command += ("--simulator", "cyborg")
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    program, *args = command
    done = subprocess.run([python, root / "examples" / program, *args], capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


CYBORG = pytest.param(True, marks=pytest.mark.skipif("CYBORG_PATH" not in os.environ, reason="needs CybORG"))


@pytest.mark.slow
def test_the_torch_example_trains():
    torch = pytest.importorskip("torch")
    shared = []

    def from_dlpack(array):
        shared.append((array, torch.from_dlpack(array)))
        return shared[-1][1]

    env = vector.CC4Vector(num_envs=2, num_steps=3, from_dlpack=from_dlpack)
    mask = env.reset(seed=1)[1]["action_mask"]
    obs, *_ = env.step(torch.tensor(sleeping(2)))
    assert obs.dtype == torch.uint8 and mask.dtype == torch.bool
    for array, tensor in shared:
        assert isinstance(array, np.ndarray) or array.unsafe_buffer_pointer() == tensor.data_ptr()
    said = run_example("torch_ppo.py", "--updates", "2", "--num-envs", "2", "--num-steps", "8")
    assert said.count("steps per second") == 2


@pytest.mark.slow
@pytest.mark.parametrize("cyborg", [False, CYBORG])
def test_the_example_of_a_dictionary_agent_plays(cyborg):
    assert "return -" in run_example("dictionary_agent.py", "--episodes", "2", "--num-steps", "60", cyborg=cyborg)
