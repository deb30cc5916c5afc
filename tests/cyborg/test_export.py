"""Exported policies: equal logits, a self-contained folder, and the challenge's submission on stand-ins of CybORG."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stand_ins
from scipy.special import log_softmax, softmax
from stand_ins import submission
from worlds import FEW, reset_few, step_few

from purecc4.algos import ippo, ippo_notebook, ippo_rnn, mappo
from purecc4.cyborg import export
from purecc4.cyborg.submission import policy as exported
from purecc4.envs import cc4
from purecc4.envs.cc4.constants import NUM_ACTIONS, NUM_BLUE, NUM_OBS
from purecc4.errors import UserError
from purecc4.play import selection
from purecc4.train import checkpoint

FLAT = {"num_obs": NUM_OBS, "num_actions": NUM_ACTIONS, "hidden": 32}
SIZES = {
    "ippo": FLAT | {"precision": "float32"},
    "ippo_rnn": FLAT | {"memory": 16},
    "mappo": FLAT | {"num_blue": NUM_BLUE},
    "ippo_notebook": {"num_host": 29, "num_zone": 19, "num_secret": 7, "hidden": 16},
}
EVERY = pytest.mark.parametrize("algorithm", SIZES, indirect=True)
NOTEBOOK = pytest.mark.parametrize("algorithm", ["ippo_notebook"], indirect=True)
WITH_MEMORY = pytest.mark.parametrize("algorithm", ["ippo_rnn", "ippo_notebook"], indirect=True)


@pytest.fixture(scope="module", params=["ippo"])
def algorithm(request):
    """Name of an algorithm."""
    return request.param


@pytest.fixture(scope="module")
def network(algorithm):
    """Random weights: initialising a network would compile a program for every layer."""
    module = {"ippo": ippo, "ippo_rnn": ippo_rnn, "mappo": mappo, "ippo_notebook": ippo_notebook}[algorithm]
    network = eqx.filter_eval_shape(module.ActorCritic, jax.random.key(3), **SIZES[algorithm])
    random = np.random.default_rng(4)
    return jax.tree.map(lambda x: jnp.asarray(0.15 * random.normal(size=x.shape), x.dtype), network)


@pytest.fixture(scope="module")
def run(algorithm, network, tmp_path_factory):
    """A run folder with two checkpoints of one training run."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    for env_steps, scale in ((24000, 0.0), (48000, 1.0)):
        path = checkpoint.path_of(folder, "C11", 42, env_steps)
        about = {"algorithm": algorithm, "network": network.init_kwargs}
        checkpoint.save(path, jax.tree.map(lambda x, scale=scale: scale * x, network), about)
    return folder


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """An exported folder, written by the command line."""
    to = tmp_path_factory.mktemp("export") / "policy"
    assert command(run, "--arm", "C11", "--seed", "42", "--to", to) == ""
    return to


def command(*args):
    """Run the command. Returns its standard error."""
    done = subprocess.run([sys.executable, "-m", "purecc4", "export", *map(str, args)], capture_output=True, text=True)
    assert (done.returncode != 0) == bool(done.stderr)
    return done.stderr


class Played(NamedTuple):
    """Observations [step env blue obs] of FEW environments, with masks and actions."""

    vector: np.ndarray
    mask: np.ndarray
    action: np.ndarray


@pytest.fixture(scope="module")
def observations():
    """The first steps of random play."""
    params = cc4.make_params()
    obs, state = reset_few()(jax.random.split(jax.random.key(0), FEW), params)
    player, seen = exported.RandomPolicy(0), []
    for i in range(60):
        vector, mask = np.asarray(obs.flat), np.asarray(obs.mask)
        action = player.act(vector, mask)
        seen.append((vector, mask, action))
        obs, state, *_ = step_few()(jax.random.split(jax.random.key(i + 1), FEW), state, jnp.asarray(action), params)
    return Played(*map(np.stack, zip(*seen, strict=True)))


@EVERY
def test_same_logits(algorithm, network, folder, observations):
    """In every step of played episodes, including memory."""
    away, think = exported.load(folder, 0), jax.jit(jax.vmap(type(network).logits, (None, 0, 0, 0)))
    note = jax.jit(jax.vmap(type(network).update_carry, (None, 0, 0)))
    ours = jax.vmap(lambda _: network.initial_carry(NUM_BLUE))(jnp.arange(FEW))
    theirs = None
    for vector, legal, action in zip(*observations, strict=True):
        ours, wanted = think(network, ours, vector, legal)
        theirs, logits = away.logits(theirs, vector, legal)
        ours, theirs = note(network, ours, action), away.update_carry(theirs, action)
        assert logits.dtype == np.float32 and (logits[~legal] == np.finfo(np.float32).min).all()
        np.testing.assert_allclose(log_softmax(logits, axis=-1)[legal], log_softmax(wanted, axis=-1)[legal], atol=1e-5)
    assert len(np.unique(observations.vector, axis=0)) > 20
    assert (theirs is None) == (algorithm in ("ippo", "mappo"))


@WITH_MEMORY
def test_memory_changes_the_logits_and_is_cleared_by_reset(folder, observations):
    vector, mask = observations.vector[:2, 0], observations.mask[0, 0]
    first, second = (exported.load(folder, 0) for _ in range(2))
    first.act(vector[0], mask)
    remembered = first.logits(first.memory, vector[1], mask)[1]
    assert not np.allclose(remembered, second.logits(second.memory, vector[1], mask)[1])
    first.reset()
    np.testing.assert_array_equal(*(away.logits(away.memory, vector[1], mask)[1] for away in (first, second)))


def test_sampling_follows_the_probabilities(folder, observations):
    vector, mask = observations.vector[-1, 0, :1], observations.mask[-1, 0, :1]
    away = exported.load(folder, 1)
    logits = away.logits(None, vector, mask)[1][0]
    wanted = softmax(logits)
    draws = away.act(np.repeat(vector, 20_000, 0), np.repeat(mask, 20_000, 0))
    found = np.bincount(draws, minlength=NUM_ACTIONS) / len(draws)
    assert np.abs(found - wanted).max() < 5 * np.sqrt(wanted.max() / len(draws))
    assert not found[~mask[0]].any()
    greedy = exported.TrainedPolicy("ippo", away.arrays, 0, greedy=True)
    assert greedy.act(vector, mask) == logits.argmax()
    again = [exported.load(folder, seed).act(observations.vector, observations.mask) for seed in (5, 5, 6)]
    assert (again[0] == again[1]).all() and (again[0] != again[2]).any()


def test_indices_of_sleep():
    for agent, index in enumerate(exported.SLEEP):
        assert cc4.label(agent, int(index)) == "Sleep"


@EVERY
def test_folder_needs_only_numpy(folder):
    code = """
import sys
import numpy as np
from policy import load
from policy.raw import RawTranslator
RawTranslator("blue_agent_0")
policy = load(".", 0)
vector = np.tile(np.arange(210) == 8, (3, 1)).astype(np.int64)
assert policy.act(vector, np.ones((3, 242), bool)).shape == (3,)
assert not {"jax", "equinox", "purecc4", "jaxtyping"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}
    assert names == {
        "policy",
        "policy/__init__.py",
        "policy/history.py",
        "policy/history_features.py",
        "policy/notebook.py",
        "policy/raw.py",
        "policy/rules.py",
        "policy/scripts.py",
        "policy/wrapper.py",
        "policy.safetensors",
        "submission.py",
        "metadata",
    }


def test_weights_are_safetensors(network, folder):
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(folder / "policy.safetensors", "numpy") as file:
        assert file.metadata()["arm"] == "C11" and file.metadata()["env_steps"] == "48000"
        np.testing.assert_array_equal(file.get_tensor("first.weight"), network.first.weight)
        assert set(file.keys()) == {f"{x}.{y}" for x in ("first", "second", "actor") for y in ("weight", "bias")}


@pytest.fixture
def cyborg(observations):
    """Stand-ins of CybORG's modules. The wrapper only has the mask of one scenario."""
    masked = type("EnterpriseMAE", (stand_ins.Wrapper,), {"masks": observations.mask[0, 0]})
    with stand_ins.cyborg(EnterpriseMAE=masked):
        yield


def test_submission_is_legal_and_deterministic(cyborg, folder, observations):
    played = []
    for _ in range(2):
        entry = submission(folder)
        entry.wrap(None)
        vectors = observations.vector[0, 0]
        actions = [[entry.AGENTS[f"blue_agent_{i}"].get_action(vectors[i], None) for i in range(5)] for _ in range(50)]
        assert all(observations.mask[0, 0, i, action] for row in actions for i, action in enumerate(row))
        played.append(actions)
    assert played[0] == played[1]
    assert len({tuple(column) for column in zip(*played[0], strict=True)}) == 5
    assert entry.NAME == "purecc4 C11 seed 42" and "sampled" in entry.TECHNIQUE


@WITH_MEMORY
def test_submission_clears_memory_at_every_reset(algorithm, cyborg, folder, observations):
    """As in the challenge's evaluation, one wrapper and one set of agents play all episodes."""
    entry = submission(folder)
    wrapped, memories = entry.wrap(None), []
    for _ in range(2):
        assert wrapped.reset(seed=1) == ("observations", "infos")
        for vectors in observations.vector[:5, 0]:
            for agent, vector in zip(entry.AGENTS.values(), vectors, strict=True):
                agent.policy.greedy = True
                agent.get_action(vector, None)
            memories.append(np.concatenate([numbers(agent.policy.memory) for agent in entry.AGENTS.values()]))
    np.testing.assert_array_equal(memories[:5], memories[5:])
    assert (memories[0] != memories[1]).any() and entry.TECHNIQUE.startswith(f"{algorithm} ")


def numbers(memory):
    """Flatten a memory into one array."""
    if isinstance(memory, np.ndarray):
        return memory
    return np.concatenate([np.ravel(x) for notes in memory for x in vars(notes).values() if not isinstance(x, str)])


@WITH_MEMORY
def test_agents_are_independent(folder, observations):
    """In the challenge each agent has its own policy, with its own observations and actions only."""
    together, *alone = (exported.load(folder, 0) for _ in range(1 + NUM_BLUE))
    for policy in (together, *alone):
        policy.greedy = True
    for vectors, masks in zip(observations.vector[:, 0], observations.mask[:, 0], strict=True):
        actions = [policy.act(*own) for policy, *own in zip(alone, vectors, masks, strict=True)]
        np.testing.assert_array_equal(together.act(vectors, masks), actions)


@NOTEBOOK
def test_the_notebook_records_actions(folder, observations):
    """A Restore takes five steps: the agent is busy for four more, and then the host is clean."""
    away = exported.load(folder, 0)
    vector, mask = observations.vector[0, 0], observations.mask[0, 0]
    restore = np.array([cc4.actions.SLEEP[i] - 16 * (3 if i == 4 else 1) for i in range(NUM_BLUE)])
    assert [cc4.label(i, int(action)).split()[0] for i, action in enumerate(restore)] == ["Restore"] * NUM_BLUE
    memory, _ = away.logits(None, vector, mask)
    memory = away.update_carry(memory, restore)
    for left in (4, 3, 2, 1, 0):
        assert [notes.ticks for notes in memory] == [left] * NUM_BLUE
        assert all(notes.since_restore[0, 0] == (4 - left if left else -1) for notes in memory)
        memory, logits = away.logits(memory, vector, mask)
        assert ((logits > np.finfo(np.float32).min).sum(axis=1) == 1).all() == (left > 0)
        if left:
            memory = away.update_carry(memory, restore)


def test_an_earlier_checkpoint(run, tmp_path):
    export.write(tmp_path / "new", checkpoint.path_of(run, "C11", 42, 24000), "greedy")
    away = exported.load(tmp_path / "new", 0)
    assert away.greedy and not away.arrays["actor.weight"].any()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--arm", "C12", "--seed", "42"), "arm C12 with seed 42"),
        (("--arm", "C11", "--seed", "7"), "arm C11 with seed 7"),
        (("--arm", "C11", "--seed", "42", "--env-steps", "5"), "at 5 env steps, only at 24000, 48000"),
        (("--policy", "sweep"), "give either a run folder with --arm and --seed, or --policy"),
    ],
)
def test_wrong_selections_are_rejected(run, tmp_path, args, message):
    error = command(run, *args, "--to", tmp_path / "new")
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_not_overwritten(run, tmp_path):
    (tmp_path / "mine").write_text("mine")
    assert "already exists" in command(run, "--arm", "C11", "--seed", "42", "--to", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_foreign_files_are_rejected(tmp_path):
    with pytest.raises(UserError, match="has no checkpoints"):
        selection.choose(tmp_path)
    path = checkpoint.path_of(tmp_path, "C11", 42, 1)
    for arrays, about in (({"gru": jnp.zeros(3)}, {}), ({"first": jnp.zeros(3)}, {"algorithm": "ippo"})):
        checkpoint.save(path, arrays, about)
        with pytest.raises(UserError, match="cannot be exported"):
            export.write(tmp_path / "new", path, "sampled")
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"\.eqx"):
        export.write(tmp_path / "new", path, "sampled")
    assert not list(tmp_path.glob("new*"))


@pytest.mark.slow
@pytest.mark.skipif("CYBORG_PATH" not in os.environ, reason="needs a checkout of CybORG: CYBORG_PATH, CYBORG_PYTHON")
@EVERY
def test_the_challenge_evaluates_it(folder, tmp_path):
    """Two episodes by the challenge's own evaluation; CYBORG_PYTHON needs Ray, too."""
    python = os.environ.get("CYBORG_PYTHON", "python3")
    arguments = ["-m", "CybORG.Evaluation.evaluation", "--max-eps", "2", "--seed", "1", str(folder), str(tmp_path)]
    done = subprocess.run([python, *arguments], cwd=Path(os.environ["CYBORG_PATH"]), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Average reward is: -\d+", done.stdout)
