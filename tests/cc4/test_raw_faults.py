"""A fault planted in any rule of the raw observation is found by the replay of recorded episodes.

The steps of the episodes are prepared once. A fault then changes what enters `report.observe`, or a function that it
calls, and the raw observations and the evidence of all steps are compared with the record. Rules that play no part in
these few episodes (a second escalation of a host, scans of orphans that blue suspects, SQL injections that no one
notices) have their tests in `test_raw_observation.py`.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purecc4.envs import cc4
from purecc4.envs.cc4 import env, files, green, report
from purecc4.envs.cc4.actions import BlueOrder
from purecc4.envs.cc4.blue import BlueStep
from purecc4.envs.cc4.constants import NUM_HOSTS, Subnet
from purecc4.envs.cc4.draws import Draws
from purecc4.envs.cc4.green import GreenStep
from purecc4.envs.cc4.raw import AttackKind, Files, ResultColumn
from purecc4.envs.cc4.red import RedStep
from purecc4.envs.cc4.routing import owner_of
from purecc4.envs.cc4.sessions import Phished, live_ids
from purecc4.envs.cc4.state import State
from purecc4.parity import raw, replay
from purecc4.parity.translation import load

RAW = sorted((Path(__file__).parents[1] / "golden/raw").glob("*.npz"))
pytestmark = pytest.mark.slow


class Inputs(NamedTuple):
    """Arguments of `report.observe`."""

    state: State
    order: BlueOrder
    defended: BlueStep
    worked: GreenStep
    phished: Phished
    did: RedStep
    draws: Draws


def prepare(state: State, now) -> tuple[Inputs, State]:
    """The inputs of a recorded step, and the state after it."""
    choices, draws = replay.recorded_chances(state, now)
    alive = live_ids(state.sessions)
    after, orders = env._submit(state, now.actions, choices, alive)
    after, defended = env._blue_acts(after, orders.blue, draws)
    survivors = alive & ~defended.killed
    worked, phished = env._green_acts(after, survivors, choices, draws)
    _, did = env._red_acts(after, survivors, phished, orders.red, draws)
    after = cc4.transition(state, now.actions, now.messages, choices, draws)[1]
    return Inputs(state, orders.blue, defended, worked, phished, did, draws), after


@pytest.fixture(scope="module")
def recorded() -> tuple[Inputs, dict[str, np.ndarray]]:
    """Inputs of all steps of all episodes, [step], and what is recorded of them."""
    results = list(replay.replay(RAW, False))
    assert not any(result.difference for result in results)

    def episode(scenario, play):
        return jax.lax.scan(lambda state, now: prepare(state, now)[::-1], cc4.start(scenario)[1], play)[1]

    scenarios, plays = replay.stack([result.translation for result in results])
    inputs = jax.jit(jax.vmap(episode))(scenarios, plays)
    inputs = jax.tree.map(lambda x: x[: len(RAW)].reshape(-1, *x.shape[2:]), inputs)
    truth = [recorded_of(load(path)) for path in RAW]
    return inputs, {name: np.concatenate([one[name] for one in truth]) for name in truth[0]}


def recorded_of(trace) -> dict[str, np.ndarray]:
    evidence = {
        "files": trace.to_hosts(trace.raw["files"])[..., 0],
        "on 80": trace.to_hosts(trace.raw["listen"])[..., 2],
    }
    return {name: values[1:] for name, values in (raw.shares(trace) | evidence).items()}


def observed(inputs: Inputs) -> dict[str, np.ndarray]:
    """Replay all steps operation by operation, so that no program is compiled for a fault."""

    def one(*args):
        evidence, told = report.observe(*args)
        hosts = args[2].hosts
        on_80 = evidence.orphans + (hosts.suspicious_orphan_pid > 0).sum(axis=0)
        on_80 += (hosts.decoy_pid[0] > 0).astype(int) + (hosts.decoy_pid[3] > 0)
        on_80 = on_80.reshape(NUM_HOSTS) + args[0].scenario.services[0]
        return vars(told) | {"files": files.found(evidence.files, jnp.arange(NUM_HOSTS)), "on 80": on_80}

    return jax.tree.map(np.asarray, jax.vmap(one)(*inputs))


def differences(inputs: Inputs, truth: dict[str, np.ndarray]) -> dict[str, int]:
    """By array the number of steps that differ."""
    wrong = {
        name: (values != truth[name]).reshape(len(values), -1).any(axis=1) for name, values in observed(inputs).items()
    }
    return {name: int(steps.sum()) for name, steps in wrong.items() if steps.any()}


FAULTS: dict[str, Callable] = {}


def fault(plant: Callable) -> Callable:
    """A function of (monkeypatch, inputs) that plants a fault and returns the inputs."""
    FAULTS[plant.__name__] = plant
    return plant


def put(inputs: Inputs, where: Callable, value) -> Inputs:
    """Change a part of the inputs, unchecked: they have a leading axis."""
    return eqx.tree_at(where, inputs, value)


def wrap(patch, module, name: str, change: Callable) -> None:
    """Change what a function returns; `change` also gets its arguments."""
    original = getattr(module, name)
    patch.setattr(module, name, lambda *args: change(original(*args), *args))


# Files


@fault
def restore_leaves_files(patch, inputs):
    patch.setattr(files, "update", lambda old, restored, did, update=files.update: update(old, restored & 0, did))
    return inputs


@fault
def a_later_exploit_does_not_move_cmd_to_the_end(patch, inputs):
    wrap(patch, files, "update", lambda new, *_: new.at[2].set(0))
    return inputs


@fault
def sql_injections_leave_no_file(patch, inputs):
    return put(inputs, lambda x: x.did.opened.done, inputs.did.opened.done & inputs.did.attack.brute_force)


# Own actions


@fault
def files_in_the_wrong_order(patch, inputs):
    wrap(patch, files, "found", lambda found, *_: jnp.where(found == Files.CMD_ESCALATE, Files.ESCALATE_CMD, found))
    return inputs


@fault
def the_busy_see_their_action(patch, inputs):
    wrap(patch, report, "_results", lambda rows, *_: rows.at[:, ResultColumn.ACTION].set(jnp.maximum(rows[:, 1], 0)))
    return inputs


@fault
def blocking_twice_succeeds(patch, inputs):
    wrap(patch, report, "_results", lambda rows, *_: rows.at[:, 0].set(jnp.where(rows[:, 0] == 0, 1, rows[:, 0])))
    return inputs


@fault
def sleep_succeeds(patch, inputs):
    wrap(patch, report, "_results", lambda rows, *_: rows.at[:, 0].set(jnp.where(rows[:, 0] == 2, 1, rows[:, 0])))
    return inputs


@fault
def decoys_count_pids_from_the_largest(patch, inputs):
    wrap(patch, report, "_gap", lambda gap, *_: gap * 0)
    return inputs


@fault
def tomcat_shown_as_haraka(patch, inputs):
    return put(inputs, lambda x: x.defended.deployed.kind, inputs.defended.deployed.kind[:, [0, 2, 1, 3]])


# Scans and decoys


@fault
def quiet_scans_list_all_ports(patch, inputs):
    return put(inputs, lambda x: x.did.scan.loud, inputs.did.scan.noticed)


@fault
def silent_scans_are_noticed(patch, inputs):
    return put(inputs, lambda x: x.did.scan.noticed, inputs.did.scan.done)


@fault
def impact_does_not_close_port_1(patch, inputs):
    return put(inputs, lambda x: x.state.ot_stopped, inputs.state.ot_stopped * 0)


@fault
def restore_does_not_open_port_1(patch, inputs):
    return put(inputs, lambda x: x.defended.restored, inputs.defended.restored * 0)


@fault
def orphans_do_not_listen(patch, inputs):
    wrap(patch, report, "after_blue", lambda left, *_: replace(left, orphans=left.orphans * 0))
    return inputs


@fault
def genuine_smtp_is_not_listed(patch, inputs):
    return put(inputs, lambda x: x.did.target.services, inputs.did.target.services.at[:, 2].set(False))


@fault
def decoy_hits_look_like_scans(patch, inputs):
    wrap(patch, report, "_attacks", lambda found, *_: replace(found, kind=jnp.where(found.kind == 3, 1, found.kind)))
    return inputs


@fault
def https_decoys_show_port_80(patch, inputs):
    hits = inputs.did.attack.decoy_hits
    hits = jnp.stack([hits.any(axis=1), hits[:, 1] & False], axis=1)
    return put(inputs, lambda x: x.did.attack.decoy_hits, hits)


@fault
def decoy_hits_raise_no_alert(patch, inputs):
    wrap(patch, report, "_alerts", lambda words, *_: words.at[3].set(0))
    return inputs


# Brute forces, sources, routers


@fault
def the_source_is_server_0(patch, inputs):
    wrap(patch, report, "_source", lambda hosts, *_: hosts & ~15)
    return inputs


@fault
def the_source_does_not_report(patch, inputs):
    wrap(patch, report, "_attacks", lambda found, *_: replace(found, reported=found.reported & False))
    return inputs


@fault
def the_source_always_reports(patch, inputs):
    return put(inputs, lambda x: x.did.attack.source_connection, inputs.did.attack.brute_force)


@fault
def routers_are_silent(patch, inputs):
    patch.setattr(report, "_detecting", lambda u: jnp.zeros(u.shape, jnp.uint32))
    return inputs


@fault
def routers_always_report(patch, inputs):
    patch.setattr(report, "_detecting", lambda u: jnp.full(u.shape, 0xFF, jnp.uint32))
    return inputs


@fault
def routers_share_a_coin(patch, inputs):
    def detecting(u, original=report._detecting):
        return jnp.where(original(u) >> Subnet.RZA & 1, 0xFF, 0).astype(jnp.uint32)

    patch.setattr(report, "_detecting", detecting)
    return inputs


@fault
def the_way_misses_the_router_of_the_own_zone(patch, inputs):
    wrap(patch, report, "routers_between", lambda zones, a, b: jnp.where(a == b, 0, zones).astype(jnp.uint32))
    return inputs


@fault
def the_way_misses_routers_above_the_end(patch, inputs):
    ends = lambda zones, a, b: zones & (1 << a.astype(jnp.uint32) | 1 << b.astype(jnp.uint32))  # noqa: E731
    wrap(patch, report, "routers_between", ends)
    return inputs


@fault
def brute_forces_count_as_decoy_hits(patch, inputs):
    force = AttackKind.BRUTE_FORCE
    wrap(
        patch, report, "_attacks", lambda found, *_: replace(found, kind=jnp.where(found.kind == force, 3, found.kind))
    )
    return inputs


@fault
def rows_by_the_target(patch, inputs):
    target = lambda word: word >> 8 & 0xFF  # noqa: E731
    patch.setattr(report, "_row", lambda word, told: told & (owner_of(target(word) // 16) == jnp.arange(6)[:, None]))
    return inputs


# Pids


@fault
def pids_of_exploits_without_the_gap(patch, inputs):
    gap = jax.vmap(report._gap)(inputs.state, inputs.did.opened.host)
    return put(inputs, lambda x: x.did.opened.pid, inputs.did.opened.pid - gap)


@fault
def pids_are_not_compacted(patch, inputs):
    wrap(patch, report, "_pid_rows", lambda rows, *_: jnp.roll(rows, 1, axis=1))
    return inputs


# Green


@fault
def false_alarms_of_work_look_like_exploits(patch, inputs):
    wrap(patch, report, "_alerts", lambda words, *_: words.at[1].set(words[0] | words[1]).at[0].set(0))
    return inputs


@fault
def blocked_visits_look_like_false_alarms(patch, inputs):
    visits = inputs.worked.visits
    return put(
        inputs, lambda x: (x.worked.visits.blocked, x.worked.visits.false_alarm), (visits.false_alarm, visits.blocked)
    )


@fault
def visits_show_no_zone(patch, inputs):
    wrap(patch, green, "visited", lambda words, *_: jnp.broadcast_to(words.max(axis=0), words.shape))
    return inputs


# Who is told


@fault
def all_are_told_of_all_attacks(patch, inputs):
    patch.setattr(report, "_OWN", report._OWN | 0xFE)
    return inputs


@fault
def the_contractors_are_watched(patch, inputs):
    patch.setattr(report, "_OWN", report._OWN | 1)
    patch.setattr(report, "_MONITORED", report._MONITORED | 1)
    return inputs


@fault
def agents_see_the_next_zone(patch, inputs):
    wrap(patch, report, "_of_zones", lambda words, *_: jnp.roll(words, 1, axis=0))
    return inputs


def test_without_a_fault_there_is_no_difference(recorded):
    inputs, truth = recorded
    assert differences(inputs, truth) == {}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(recorded, monkeypatch, name):
    inputs, truth = recorded
    found = differences(FAULTS[name](monkeypatch, inputs), truth)
    print(f"{name.replace('_', ' ')}: {', '.join(f'{array} in {steps} steps' for array, steps in found.items())}")
    assert found
