"""Differences of MAPPO and IPPO with memory from IPPO; their common behaviour is tested in `test_ippo.py`."""

import dataclasses
import re
import sys
from functools import partial
from pathlib import Path

import distrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import probe
import pytest
from probe import TINY, script
from scipy.special import log_softmax

from purecc4 import nn
from purecc4.__main__ import main
from purecc4.algos import ippo, ippo_rnn, mappo
from purecc4.errors import UserError
from purecc4.play.tables import read_evaluation
from purecc4.train import runs

NEW = pytest.mark.parametrize("algorithm", [ippo_rnn, mappo], ids=["ippo_rnn", "mappo"])
SHOWN_ONCE = probe.make(num_steps=4, shown_once=True)
MEMORY = dataclasses.replace(probe.CONFIGS[ippo_rnn], num_steps=4, sequence_length=2, gamma=0.9)


@NEW
def test_settings_they_share_have_equal_defaults(algorithm):
    mine, theirs = (dataclasses.asdict(module.Config()) for module in (algorithm, ippo))
    assert {name: mine[name] for name in theirs} == theirs


def all_logs(algorithm, config, env, num_updates):
    """Logs [update] of one run."""
    config = dataclasses.replace(config, arm=("plain",), seeds=(7,))
    training = runs.map_over_runs(config, algorithm.make_train, env._replace(arms={"bonus": jnp.zeros(1)}))
    _, logs = training.train(*training.start(), num_updates)
    return jax.tree.map(lambda x: x[0], logs)


@pytest.mark.slow
def test_what_was_shown_once_is_remembered():
    """The gradient flows from the step that is rewarded to the step that showed the colours.

    Chance is 1, the best is 2. Once learned, the constant learning rate may lose it again, at an update that depends on
    rounding, so the best ten updates count.
    """
    config = dataclasses.replace(MEMORY, sequence_length=4)
    returns = np.asarray(all_logs(ippo_rnn, config, SHOWN_ONCE, 100)["return"])
    assert returns[:10].mean() < 1.4 and returns.reshape(10, 10).mean(axis=1).max() > 1.7


def test_without_memory_chance_is_the_best_policy():
    """The last observation, the only one that matters, is the same for all colours."""
    for colours in ([0, 0], [0, 1], [1, 1]):
        state = probe.State(jnp.array(colours), jnp.int32(2), jnp.float32(0))
        last, *_ = SHOWN_ONCE.step(jax.random.key(0), state, jnp.zeros(2, int))
        np.testing.assert_array_equal(last.flat, [[0, 0, 0, 0, 0, 1]] * 2)


def agree(key, state, action):
    """A step that pays if both agents see the same colour, whatever they do."""
    obs, after, _, done, info = probe.ENV.step(key, state, action)
    return obs, after, jnp.where(state.colour[0] == state.colour[1], 1.0, 0.0), done, info


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "low", "high"), [(mappo, 0.9, 1), (ippo, -0.5, 0.2)], ids=["mappo", "ippo"])
def test_only_a_central_critic_foresees_what_no_agent_sees(algorithm, low, high):
    config = dataclasses.replace(probe.CONFIGS[algorithm], num_steps=1)
    logs = all_logs(algorithm, config, probe.ENV._replace(step=agree), 100)
    assert low < logs["explained_variance"][-10:].mean() <= high


def test_critic_sees_all_and_each_actor_its_own():
    network = probe.network(mappo, num_blue=3, num_obs=4, num_actions=2, hidden=8)
    vector, mask = np.zeros((1, 3, 4), np.uint8), np.ones((1, 3, 2), bool)
    play = eqx.filter_jit(network)
    logits, value = play(vector, mask)
    for agent in range(3):
        other = vector.copy()
        other[0, agent, 1] = 1
        other_logits, other_value = play(other, mask)
        changed = np.any(np.asarray(logits) != np.asarray(other_logits), axis=2)[0]
        np.testing.assert_array_equal(changed, np.arange(3) == agent)
        assert value.shape == (1,) and value != other_value
    alone = eqx.filter_jit(network.logits)((), vector[0], mask[0])[1]
    np.testing.assert_allclose(alone, logits[0], rtol=1e-6)


def test_mappo_loss_by_hand():
    """The team's advantage is every agent's."""
    network = probe.network(mappo, num_blue=2, num_obs=4, num_actions=2, hidden=8)
    vector, mask = jnp.eye(4, dtype=jnp.uint8).reshape(2, 2, 4), jnp.ones((2, 2, 2), bool)
    logits, value = network(vector, mask)
    policy = distrax.Categorical(logits=logits)
    action, ratio = jnp.array([[0, 1], [0, 1]], jnp.uint8), np.array([[1.5, 0.5], [1.1, 1.0]])
    advantage, target = np.array([1.0, 4.0]), np.array([-1.0, 2.0])
    old = policy.log_prob(action) - np.log(ratio)
    batch = mappo.Batch(vector, action, old, jnp.float32(advantage), jnp.float32(target))
    loss, logs = jax.jit(mappo.ppo_loss, static_argnums=3)(network, batch, mask, probe.CONFIGS[mappo])
    expected = probe.loss_by_hand(ratio, advantage[:, None], value, target, policy.entropy())
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(logs["clipfrac"], 0.5)


def test_memory_in_the_rollout_is_that_of_playing_step_by_step():
    arm, runner = probe.one_run(ippo_rnn, MEMORY, SHOWN_ONCE)
    network = runner.network
    traj, memory, mask = jax.jit(partial(ippo_rnn.rollout, MEMORY, SHOWN_ONCE))(network, arm, jax.random.key(0))
    traj, memory, mask = jax.tree.map(np.asarray, (traj, memory, mask.reshape(-1, 3)))
    assert memory.shape == (2, len(mask), 16) and not memory[0].any()
    remembered, play = network.initial_carry(len(mask)), jax.jit(type(network).logits)
    for step in range(4):
        if step % 2 == 0:
            np.testing.assert_allclose(memory[step // 2], remembered, atol=1e-6)
        remembered, logits = play(network, remembered, traj.obs[step].reshape(len(mask), -1), mask)
        chosen = np.take_along_axis(log_softmax(logits, axis=1), traj.action[step].reshape(-1, 1), 1)
        np.testing.assert_allclose(traj.log_prob[step].ravel(), chosen[:, 0], atol=1e-5)
    *_, value = eqx.filter_jit(network)(memory[1], traj.obs[2:].reshape(2, len(mask), -1), mask)
    np.testing.assert_allclose(value, traj.value[2:].reshape(2, -1), atol=1e-5)


def test_memory_is_that_of_equinox():
    network = probe.network(ippo_rnn, num_obs=4, num_actions=2, hidden=8, memory=16)
    random = np.random.default_rng(1)
    x, memory = (jnp.asarray(random.normal(size=(5, size)), jnp.float32) for size in (8, 16))

    @eqx.filter_jit
    def both(network, x, memory):
        cell = network.cell
        ours = network.gru(memory, nn.product(x, cell.weight_ih, "float32") + cell.bias)
        return ours, jax.vmap(cell)(x, memory)

    np.testing.assert_allclose(*both(network, x, memory), rtol=1e-5, atol=1e-6)


def test_sequences_come_agent_by_agent():
    x = np.arange(4 * 3 * 2 * 5).reshape(4, 3, 2, 5)  # steps, environments, agents, values
    found = np.asarray(ippo_rnn.sequences(jnp.asarray(x), 2))
    assert found.shape == (2 * 6, 2, 5)
    for sample, sequence in enumerate(found):
        first, (env, blue) = sample // 6 * 2, divmod(sample % 6, 2)
        np.testing.assert_array_equal(sequence, x[first : first + 2, env, blue])


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", probe.ALGORITHMS, ids=["ippo", "ippo_rnn", "mappo"])
def test_first_step_of_the_optimiser(algorithm):
    """Before it all ratios are 1: vectors, masks, actions and memories of the rollout belong together.

    Gradients are scaled down to the norm: with a tiny limit Adam's epsilon outweighs the gradient, so that the step
    shrinks with the limit.
    """

    def reset(key, arm):
        key_mask, key_env = jax.random.split(key)
        obs, state = SHOWN_ONCE.reset(key_env, arm)
        return obs._replace(mask=jax.random.bernoulli(key_mask, 0.5, (2, 3)).at[:, 0].set(True)), state

    env = SHOWN_ONCE._replace(reset=reset)
    config = MEMORY if algorithm is ippo_rnn else dataclasses.replace(probe.CONFIGS[algorithm], num_steps=4)
    config = dataclasses.replace(config, num_minibatches=1, update_epochs=1, max_grad_norm=1e-9)
    arm, runner = probe.one_run(algorithm, config, env)
    after, logs = jax.jit(partial(algorithm.update, config, env))(arm, runner)
    assert abs(logs["approx_kl"]) < 1e-6 and logs["clipfrac"] == 0 and logs["entropy"] > 0.1
    assert logs["grad_norm"] > 1e-3
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(after.opt_state[0].mu)))
    np.testing.assert_allclose(norm, 0.1 * 1e-9, rtol=1e-3)


def test_one_sequence_is_enough_for_a_minibatch():
    """It has an advantage for each step."""
    ippo_rnn.Config(num_envs=1, num_steps=4, sequence_length=4, num_minibatches=5, total_timesteps=4).check()
    with pytest.raises(UserError, match="one sample in a minibatch"):
        ippo_rnn.Config(num_envs=1, num_steps=4, sequence_length=1, num_minibatches=20, total_timesteps=4).check()


@pytest.mark.parametrize(
    ("algorithm", "args", "sentence"),
    [
        (ippo_rnn, "--sequence-length 7", "sequence_length = 7 does not divide the 500 steps"),
        (ippo_rnn, "--sequence-length 0", "sequence_length must be at least 1"),
        (ippo_rnn, "--memory 0", "memory must be at least 1"),
        (ippo_rnn, "--num-minibatches 7", "num_minibatches = 7 does not divide the 4800 samples"),
        (mappo, "--num-envs 1 --num-minibatches 500 --total-timesteps 500", "one sample in a minibatch"),
        (mappo, "--num-minibatches 7", "num_minibatches = 7 does not divide the 24000 samples"),
    ],
)
def test_refusals(algorithm, args, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refusal = script(algorithm, args)
    assert refusal.startswith(algorithm.Config.algorithm) and sentence in refusal and "\n" not in refusal
    assert not Path("runs").exists()


@pytest.mark.slow
@NEW
def test_script_evaluation_and_page(algorithm, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert script(algorithm, "--name tiny --seeds 1", TINY, "--sequence-length 5" * (algorithm is ippo_rnn)) is None
    for command, args in (
        ("evaluate", "--reds fsm --episodes 2 --num-steps 12 --policies sleep"),
        ("watch", "--arm C11 --seed 1 --num-steps 12"),
    ):
        monkeypatch.setattr(sys, "argv", ["purecc4", command, "runs/tiny", *args.split()])
        main()
    values = read_evaluation([Path("runs/tiny")]).cells
    assert [(cell.arm, cell.env_steps, len(table)) for cell, table in values.items()] == [
        ("sleep", 0, 2),
        ("C11", 120, 2),
    ]
    assert '"policy":"C11, seed 1, after 120 env steps"' in Path("runs/tiny/watch.html").read_text()
    for other in {*probe.ALGORITHMS} - {algorithm}:
        refusal = script(other, "--name tiny --resume")
        assert re.fullmatch(
            rf".*tiny was started by {algorithm.Config.algorithm}\.py.*resume it with the same\.", refusal
        )
