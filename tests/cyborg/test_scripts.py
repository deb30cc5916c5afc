"""The history and the scripts in NumPy: the same as in the simulator at every step, and as a submission."""

import operator
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stand_ins
from recorded import AGENTS, Record, is_raw

from purecc4.algos import ippo_history, pgpe
from purecc4.cyborg import transfer
from purecc4.cyborg.submission.policy import HistoryPolicy, RulesPolicy, history, names_of, rules, scripts
from purecc4.cyborg.submission.policy.raw import HOSTS, OWN_ZONES, RawObservation
from purecc4.envs import cc4
from purecc4.envs.cc4 import history as cc4_history
from purecc4.envs.cc4 import raw as cc4_raw
from purecc4.envs.cc4.actions import ACTION_TABLE
from purecc4.envs.cc4.by_host import OWN_HOSTS
from purecc4.envs.cc4.constants import NO_HOST, NUM_BLUE, NUM_HOSTS, NUM_OBS, SLOTS, BlueAction
from purecc4.play.scripts import SCRIPTS

GOLDEN = list(filter(is_raw, sorted((Path(__file__).parent.parent / "golden").rglob("*.npz"))))
NAMES = tuple(scripts.SCRIPTS)
PER_HOST = [name for name in vars(history.init("blue_agent_0")) if name not in ("hosts", "step", "action", "ticks")]


class Episode(NamedTuple):
    """Observations of all agents and legal actions, [step, blue]; the masks of the agents."""

    seen: RawObservation
    mask: np.ndarray
    actions: np.ndarray


@cache
def recorded(path):
    """A recorded episode with random legal actions."""
    record = Record(path)
    seen = [np.stack(parts, axis=1) for parts in zip(*map(record.arrays, range(NUM_BLUE)), strict=True)]
    return episode(RawObservation(*seen), [HOSTS[name] for name in record.hosts if name in HOSTS])


@cache
def invented(steps=200):
    """Random observations: attacks, new processes and results of own actions, independent of each other."""
    random, hosts = np.random.default_rng(1), [host for host in range(NUM_HOSTS) if host % SLOTS in (0, 1, 6, 7)]
    seen = RawObservation(*(np.repeat(np.asarray(x)[None], steps, axis=0) for x in vars(cc4_raw.silent()).values()))
    rows = seen.attacks.shape[:3]
    seen.attacks[..., :3] = np.where((random.random(rows) < 0.05)[..., None], random.integers(1, 4, (*rows, 3)), 0)
    seen.attacks[..., 1:3] = random.choice(hosts, (*rows, 2))
    seen.pids[..., 0] = random.choice(hosts, rows)
    seen.pids[..., 1] = np.where(random.random(rows) < 0.05, random.integers(1, 60, rows), 0)
    kinds = -1, BlueAction.ANALYSE, BlueAction.REMOVE, BlueAction.RESTORE, BlueAction.DEPLOY_DECOY
    kind = seen.result[..., 1] = random.choice(kinds, rows[:2], p=(0.2, 0.6, 0.1, 0.05, 0.05))
    for agent in range(NUM_BLUE):
        seen.result[:, agent, 2] = random.choice([h for h in hosts if h // SLOTS in OWN_ZONES[AGENTS[agent]]], steps)
    seen.result[..., 5] = np.where(kind == BlueAction.ANALYSE, random.integers(0, 5, rows[:2]), -1)
    seen.result[..., 7] = np.where(kind == BlueAction.DEPLOY_DECOY, random.integers(1, 60, rows[:2]), -1)
    return episode(seen, hosts)


def episode(seen, hosts):
    """Observations with random legal actions, among these hosts."""
    mask = np.asarray(cc4.action_mask(jnp.isin(jnp.arange(NUM_HOSTS), jnp.array(hosts))))
    random = np.random.default_rng(0)
    return Episode(seen, mask, np.where(mask, random.random((len(seen[0]), *mask.shape)), 0).argmax(axis=-1))


EPISODES = {path.stem: partial(recorded, path) for path in GOLDEN} | {"invented": invented}
LATER = [path.stem for path in GOLDEN[1:]]


@cache
def played(name):
    """The simulator's histories after each observation, and what the scripts do then: [step, blue]."""
    seen, mask, actions = EPISODES[name]()

    def step(notes, raw, action):
        notes = cc4_history.update(notes, raw)
        chosen = {name: SCRIPTS[name].choose(notes, jnp.asarray(mask)) for name in NAMES}
        return cc4_history.submit(notes, action), (notes, chosen)

    return over_steps(step, seen, jnp.asarray(actions))


def over_steps(step, seen, *others):
    """Scan a step of the simulator's history over observations [step, blue]."""

    def of_arrays(notes, now):
        raw, *rest = now
        return step(notes, cc4_raw.RawObservation(*raw), *rest)

    _, out = jax.jit(lambda *x: jax.lax.scan(of_arrays, cc4_history.init(), x))(tuple(map(jnp.asarray, seen)), *others)
    return jax.tree.map(np.asarray, out)


def differences(ours, theirs, agent):
    """Names of the fields that differ in a step; `theirs` is the simulator's history of all agents."""
    zones = len(OWN_ZONES[AGENTS[agent]])
    pairs = {name: (getattr(ours, name), getattr(theirs, name)[..., agent, :zones, :]) for name in PER_HOST}
    pairs |= {name: (getattr(ours, name), getattr(theirs.in_progress, name)[agent]) for name in ("action", "ticks")}
    pairs |= {"step": (ours.step, theirs.step), "busy": (history.is_busy(ours), theirs.in_progress.ticks[agent] > 0)}
    return [name for name, pair in pairs.items() if not np.array_equal(*pair)]


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LATER)) for name in EPISODES])
def test_same_history_and_actions_at_every_step(name):
    """All five agents are compared. The submitted actions are random and legal."""
    seen, mask, actions = EPISODES[name]()
    notes, chosen = played(name)
    at = [jax.tree.map(lambda x, t=t: x[t], notes) for t in range(len(actions))]
    for agent, name in enumerate(AGENTS):
        ours = history.init(name)
        for step, wanted in enumerate(at):
            ours = history.update(ours, RawObservation(*(x[step, agent] for x in seen)))
            assert differences(ours, wanted, agent) == []
            for script, act in scripts.SCRIPTS.items():
                assert act(ours, mask[agent]) == chosen[script][step, agent], (script, step, name)
            ours = history.submit(ours, int(actions[step, agent]))


def test_the_invented_episode_fills_every_field():
    """So that the comparison above can fail."""
    for name in PER_HOST:
        assert np.count_nonzero(getattr(played("invented")[0], name)) > 40, name


def any_histories(count):
    """Histories of the simulator with random entries, [history, ...]. Idle agents; urgent causes are rare."""
    random, empty = np.random.default_rng(0), cc4_history.init()
    arrays = {name: np.zeros((count, *getattr(empty, name).shape), int) for name in PER_HOST}
    for name in ("files", "unanswered", "removed", "unexplained", "named"):
        likely = random.choice([0, 0.01, 0.2], (count, 1, 1, 1))
        arrays[name] += (random.random(arrays[name].shape) < likely) * random.choice([1, 2, 4, 5], arrays[name].shape)
    for name in ("exploits", "brute_forces"):
        arrays[name] += random.choice([0, 0, 0, 1, 2], arrays[name].shape)
    arrays["decoys"] += random.choice([0, 0, 1, 2, 3], (count, 1, 1, 1))
    arrays["step"] = random.choice([3, 50, 166, 167, 333, 334, 378, 379, 483, 484, 498], count)
    arrays["looked"] = arrays["step"][:, None, None, None] - random.integers(0, 50, arrays["looked"].shape)
    arrays |= {name: arrays[name] * (OWN_HOSTS != NO_HOST) for name in PER_HOST}
    arrays = {name: x.astype(getattr(empty, name).dtype) for name, x in arrays.items()}
    return jax.vmap(lambda fields: replace(empty, **fields))(arrays)


def test_same_actions_on_any_history():
    """Every number in the rules decides sometimes, and every kind of action is chosen."""
    notes, mask = any_histories(1000), invented().mask
    for name, act in scripts.SCRIPTS.items():
        wanted = np.asarray(jax.jit(jax.vmap(lambda x, n=name: SCRIPTS[n].choose(x, jnp.asarray(mask))))(notes))
        for agent, of in enumerate(AGENTS):
            empty, zones = history.init(of), len(OWN_ZONES[of])
            rows = {name: np.asarray(getattr(notes, name)) for name in PER_HOST}
            for index, step in enumerate(np.asarray(notes.step).tolist()):
                fields = {name: row[index][..., agent, :zones, :] for name, row in rows.items()}
                assert act(replace(empty, step=step, **fields), mask[agent]) == wanted[index, agent], (name, of, index)
        kinds = {ACTION_TABLE[agent, index, 0] for agent in range(NUM_BLUE) for index in np.unique(wanted[:, agent])}
        assert kinds == {BlueAction.ANALYSE, BlueAction.REMOVE, BlueAction.RESTORE}


def test_rules_choose_the_same_on_any_history():
    """With random numbers, so that each decides sometimes."""
    assert tuple(pgpe.NUMBERS) == rules.NUMBERS
    notes, mask, random = any_histories(400), invented().mask, np.random.default_rng(3)
    tables = pgpe.start() + pgpe.NOISE * random.normal(size=(400, NUM_BLUE, len(pgpe.NUMBERS))).astype(np.float32)
    tables[:, :, rules.NUMBERS.index("sources")] *= random.choice([1, 10], (400, 1))

    def choose(numbers, notes):
        rules = eqx.tree_at(lambda rules: rules.numbers, pgpe.Rules(), numbers)
        return rules.choose(notes, jnp.asarray(mask))

    wanted = np.asarray(jax.jit(jax.vmap(choose))(jnp.asarray(tables), notes))
    rows = {name: np.asarray(getattr(notes, name)) for name in PER_HOST}
    for agent, of in enumerate(AGENTS):
        empty, zones = history.init(of), len(OWN_ZONES[of])
        for index, step in enumerate(np.asarray(notes.step).tolist()):
            fields = {name: row[index][..., agent, :zones, :] for name, row in rows.items()}
            policy = RulesPolicy(of, {"numbers": tables[index]}, 0)
            ours = policy.choose(replace(empty, step=step, **fields), mask[agent])
            assert ours == wanted[index, agent], (of, index)
    kinds = {ACTION_TABLE[agent, index, 0] for agent in range(NUM_BLUE) for index in np.unique(wanted[:, agent])}
    assert kinds == set(BlueAction) - {BlueAction.SLEEP, BlueAction.MONITOR, BlueAction.ALLOW_TRAFFIC_ZONE}


@pytest.fixture(scope="module", params=NAMES)
def script(request):
    return request.param


@pytest.fixture(scope="module")
def folder(script, tmp_path_factory):
    """An exported script, written by the command line."""
    to = tmp_path_factory.mktemp("export") / script
    command = [sys.executable, "-m", "purecc4", "export", "--policy", script, "--to", str(to)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and f"Exported {script} to {to}." in done.stdout, done.stderr
    return to


def test_the_submission_acts_as_the_script(folder, script):
    """Two episodes with one set of agents, as in the challenge's evaluation."""
    record, mask = Record(GOLDEN[0]), recorded(GOLDEN[0]).mask

    class Replay(stand_ins.Wrapper):
        masks = mask

        def at(self, step):
            return {name: record.observation(step, agent) for agent, name in enumerate(AGENTS)}

        def reset(self):
            self.now = 0
            return self.at(0), "infos"

        def step(self, actions):
            self.now += 1
            return self.at(self.now), {}, {}, {}, {}

    with stand_ins.cyborg(BlueFixedActionWrapper=Replay):
        entry = stand_ins.submission(folder)
        env = entry.wrap(type("Env", (), {"get_ip_map": lambda self: record.ip_map})())
        for _ in range(2):
            observations, _ = env.reset()
            for wanted in expected(script)[:200]:
                actions = [agent.get_action(observations[name], None) for name, agent in entry.AGENTS.items()]
                assert actions == wanted.tolist()
                observations, *_ = env.step(dict(zip(AGENTS, actions, strict=True)))
    name, technique = entry.NAME, entry.TECHNIQUE
    assert name == f"purecc4 {script}" and technique == "rules on the raw observation"


def expected(name):
    """Actions [step, blue] of the simulator's script on the observations of the first recording."""
    seen, mask, _ = recorded(GOLDEN[0])

    def step(notes, raw):
        notes = SCRIPTS[name].read(notes, raw)
        action = SCRIPTS[name].choose(notes, jnp.asarray(mask))
        return SCRIPTS[name].update_carry(notes, action), action

    return over_steps(step, seen)


@pytest.mark.slow
@pytest.mark.skipif("CYBORG_PATH" not in os.environ, reason="needs a checkout of CybORG: CYBORG_PATH, CYBORG_PYTHON")
@pytest.mark.parametrize("fast", [(), (transfer.FAST,)])
def test_the_challenge_evaluates_it(folder, script, fast, tmp_path):
    """Two episodes by the challenge's own evaluation, as it is and with faster functions; both need Ray."""
    python, cyborg = os.environ.get("CYBORG_PYTHON", "python3"), str(Path(os.environ["CYBORG_PATH"]).resolve())
    arguments = ["-m", "CybORG.Evaluation.evaluation", "--max-eps", "2", "--seed", "7001", str(folder), str(tmp_path)]
    variables = os.environ | {"PYTHONPATH": cyborg, "PYTHONHASHSEED": "0"}
    done = subprocess.run([python, *fast, *arguments], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    returns = re.findall(r"total reward: (\S+)", (tmp_path / "full.txt").read_text())
    assert script != "analyst" or returns == ["-73", "-99"]


def weights(network):
    """The arrays of a network as in an exported folder."""
    arrays = {name: operator.attrgetter(name)(network) for name in names_of("ippo_history")}
    return {name: np.asarray(array) for name, array in arrays.items()}


def test_a_trained_network_gives_the_same_logits_on_any_history():
    """Weights are large, so that every feature matters."""
    env = ippo_history.make_env(ippo_history.Config())
    config = ippo_history.Config(hidden=8)
    network = jax.jit(partial(ippo_history.init, config, env))(jnp.uint32(1)).network
    network = jax.tree.map(lambda x: 3 * x, network)
    notes, mask = any_histories(100), invented().mask
    rows = {name: np.asarray(getattr(notes, name)) for name in PER_HOST}
    flat = jnp.zeros((NUM_BLUE, NUM_OBS), jnp.uint8)
    wanted = np.asarray(jax.jit(jax.vmap(lambda x: network.logits(x, flat, jnp.asarray(mask))[1]))(notes))
    for agent, of in enumerate(AGENTS):
        policy, zones = HistoryPolicy(of, weights(network), 0), len(OWN_ZONES[of])
        for index, step in enumerate(np.asarray(notes.step).tolist()):
            fields = {name: row[index][..., agent, :zones, :] for name, row in rows.items()}
            ours = policy.logits(replace(history.init(of), step=step, **fields), mask[agent])
            np.testing.assert_allclose(ours, wanted[index, agent], atol=2e-3, rtol=1e-3)
    assert np.ptp(wanted[wanted > -1e30]) > 5
