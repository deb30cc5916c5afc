"""Watch an episode in a browser: `purecc4 watch runs/NAME --arm C11 --seed 42` writes one self-contained HTML page.

Episode i of an evaluation seed is the episode that `evaluate` plays, so any row of its table can be watched.
"""

import json
import re
import sys
from dataclasses import dataclass, fields
from functools import partial
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer, UInt8

from purecc4 import files
from purecc4.envs import cc4
from purecc4.envs.cc4.actions import ACTION_TABLE, host_name
from purecc4.envs.cc4.constants import (
    IS_SERVER,
    NUM_ACTIONS,
    NUM_BLUE,
    NUM_HOSTS,
    NUM_ZONES,
    OWN_TARGETS,
    SLOTS,
    SUBNET_NAMES,
    ZONE_START,
    Knowledge,
    RedAction,
    Role,
    Service,
    Subnet,
)
from purecc4.envs.cc4.raw import AttackColumn
from purecc4.envs.cc4.sessions import live_ids
from purecc4.errors import UserError
from purecc4.play.episodes import advance, start
from purecc4.play.policies import Policy, scripted, trained
from purecc4.play.selection import One
from purecc4.play.tables import outgrew
from purecc4.train import definitions, devices
from purecc4.train.run_reader import REWARD_TERMS

PROCESS, CONNECTION = 27, 43  # where the alerts of a subnet begin in its block of the observation
BLOCK = 59
HOST_FIELDS = ("access_level", "decoys", "files", "reliability", "stopped", "process", "connection")


@dataclass(frozen=True, kw_only=True)
class Config(One):
    """Play one episode of a checkpoint or a scripted policy and write it as an HTML page."""

    policy: str | None = None
    """Scripted policy instead of a checkpoint, such as random."""
    red: str | None = None
    """Red agent (default: that of the game, fsm in the base game)."""
    game: str = "base"
    """Game to play."""
    eval_seed: int = 1000
    """Evaluation seed of the episode."""
    episode: int = 0
    """Episode number, from 0."""
    num_steps: int = 500
    """Episode length in env steps."""
    define: Path | None = None
    """TOML file with your own reds and games, in addition to those saved in the run folder."""
    to: Path | None = None
    """Output file (default: watch.html in the run folder, or in the current folder without one)."""


class Frame(eqx.Module):
    """One step on the page: the state after it, and its actions."""

    access_level: UInt8[Array, "*step host"]
    """Access level of red: 0 none, 1 known, 2 scanned, 3 session, 4 root."""
    decoys: UInt8[Array, "*step host"]
    files: UInt8[Array, "*step host"]
    """Files on the host, as raw.Files."""
    reliability: UInt8[Array, "*step host"]
    """Reliability of the services, in fifths."""
    stopped: Bool[Array, "*step host"]
    """True if the OTService is stopped."""
    process: Bool[Array, "*step host"]
    """Process and connection alerts of the step that blue sees."""
    connection: Bool[Array, "*step host"]
    blocked: Bool[Array, "*step subnet subnet"]
    """[to, from]"""
    phase: UInt8[Array, "*step"]
    submitted: Int32[Array, "*step blue"]
    blue_action: UInt8[Array, "*step blue"]
    """Action in progress, or just finished if no ticks are left."""
    blue_ticks: UInt8[Array, "*step blue"]
    red_action: UInt8[Array, "*step red"]
    red_ticks: UInt8[Array, "*step red"]
    red_target: Int32[Array, "*step red"]
    """Index of a host."""
    red_fate: UInt8[Array, "*step red"]
    """0 inactive (no session), 1 active, 2 action lost with its session."""
    rewards: Float[Array, "*step term"]
    raw: cc4.RawObservation
    """Raw observations of the blue agents after the step."""


def picture(
    before: cc4.State, after: cc4.State, obs: cc4.Observation, actions: Int32[Array, "blue"], info: cc4.Info
) -> Frame:
    """Build the frame of a step."""
    view, alive = cc4.view(after), live_ids(before.sessions)
    lost = (after.red.queue.ticks == 0) & ~alive.contains(after.red.session)
    target = after.red.target.astype(jnp.int32)
    process, connection = (alerts(obs.flat, offset) for offset in (PROCESS, CONNECTION))
    return Frame(
        access_level=access_level(view),
        decoys=(view.decoy_pid > 0).sum(axis=0, dtype=jnp.uint8),
        files=view.files,
        reliability=view.reliability // 20,
        stopped=view.ot_stopped,
        process=process,
        connection=connection,
        blocked=after.blocked,
        phase=cc4.mission_phase(before.scenario, before.step).astype(jnp.uint8),
        submitted=actions,
        blue_action=after.blue.action,
        blue_ticks=after.blue.ticks,
        red_action=after.red.queue.action,
        red_ticks=after.red.queue.ticks,
        red_target=jnp.where(target < OWN_TARGETS, ZONE_START + target, (target - OWN_TARGETS) * SLOTS),
        red_fate=jnp.where(alive.count() > 0, 1 + lost, 0).astype(jnp.uint8),
        rewards=jnp.stack([getattr(info.rewards, part) for part in REWARD_TERMS]),
        raw=obs.raw,
    )


def access_level(view: cc4.View) -> UInt8[Array, "host"]:
    """Access level of red on every host. Server 0 of a zone includes the knowledge of red agents in other zones."""
    foreign = jnp.zeros((NUM_ZONES, SLOTS), jnp.uint8).at[:, 0].set(view.foreign.max(axis=0)).reshape(NUM_HOSTS)
    levels = np.zeros(len(Knowledge), np.uint8)
    levels[[Knowledge.K, Knowledge.KD]] = 1
    levels[Knowledge.S :] = 2
    seen = jnp.maximum(jnp.asarray(levels)[view.knowledge], jnp.asarray(levels)[foreign])
    return jnp.where(view.rooted, 4, jnp.where(view.held, 3, seen)).astype(jnp.uint8)


def alerts(vector: UInt8[Array, "blue obs"], offset: int) -> Bool[Array, "host"]:
    """Alert flags of all hosts from blue's observations. The contractor network is unmonitored and has none."""
    single = vector[:-1, 1 + offset : 1 + offset + SLOTS]
    hq = vector[-1, 1 : 1 + 3 * BLOCK].reshape(3, BLOCK)[:, offset : offset + SLOTS]
    return jnp.concatenate([jnp.zeros((1, SLOTS), jnp.uint8), single, hq]).reshape(NUM_HOSTS) > 0


@partial(jax.jit, static_argnames="num_steps")
def play(
    policy: Policy, params: cc4.Params, seed: Integer[Array, ""], episode: Integer[Array, ""], num_steps: int
) -> tuple[cc4.Scenario, Frame, Int32[Array, ""]]:
    """Play one episode. Returns its scenario, a frame per step, and the overflow count of the simulator's tables."""

    def step(before, _):
        after, info, actions = advance(policy, params, before, key_steps)
        return after, picture(before.state, after.state, after.obs, actions, info)

    began, key_steps = start(policy, params, seed, episode)
    last, frames = jax.lax.scan(step, began, length=num_steps)
    return began.state.scenario, frames, last.state.overflow


def describe(scenario: cc4.Scenario) -> dict[str, Any]:
    """Describe the game and this network (its existing hosts) for the page."""
    hosts = [
        {
            "zone": host // SLOTS,
            "server": bool(IS_SERVER[host]),
            "name": short(host_name(host)),
            "services": [service.name.lower() for service in Service if scenario.services[service, host]],
            "role": [role.name for role in Role if scenario.roles[role] == host],
        }
        for host in np.flatnonzero(scenario.exists).tolist()
    ]
    return {
        "subnets": [{"name": subnet.name, "long": long} for subnet, long in zip(Subnet, SUBNET_NAMES, strict=True)],
        "hosts": hosts,
        "host_names": [short(host_name(host)) for host in range(NUM_HOSTS)],
        "phase_starts": np.asarray(scenario.phase_starts).tolist(),
        "parts": REWARD_TERMS,
        "blue_labels": [[short(cc4.label(blue, i)) for i in range(NUM_ACTIONS)] for blue in range(NUM_BLUE)],
        "blue_durations": np.asarray(scenario.game.blue_duration)[ACTION_TABLE[:, :, 0]].tolist(),
        "blue_targets": ACTION_TABLE[:, :, 1].tolist(),
        "red_labels": [action.name.replace("_", " ").lower() for action in RedAction],
        "red_durations": np.asarray(scenario.game.red_duration).tolist(),
    }


def short(text: str) -> str:
    """Abbreviate host and subnet names: subnets as in Subnet, without the word host."""
    for subnet, long in zip(Subnet, SUBNET_NAMES, strict=True):
        text = text.replace(long, subnet.name)
    return re.sub("_(server|user)_host_", r" \1 ", text)


def steps_of(scenario: cc4.Scenario, frames: Frame) -> dict[str, list]:
    """Convert frames to JSON values: per step, a string with one digit per existing host, or a short list."""
    exists = np.flatnonzero(scenario.exists)
    steps = {"told": told_of(frames.raw), "attacks": attacks_of(frames.raw)}
    for field, values in vars(frames).items():
        if field == "raw":
            continue
        values = np.asarray(values)
        if field in HOST_FIELDS:
            steps[field] = ["".join(map(str, row)) for row in values[:, exists].astype(int).tolist()]
        else:
            steps[field] = values.reshape(len(values), -1).astype(int).tolist()
    return steps


def told_of(raw: cc4.RawObservation) -> list[list[list[str]]]:
    """[step][blue]: the agent's raw observation in sentences."""
    names = [short(host_name(host)) for host in range(NUM_HOSTS)]
    steps = (jax.tree.map(lambda x, t=t: x[t], raw) for t in range(len(raw.result)))
    return [[cc4.told(step, blue, names) for blue in range(NUM_BLUE)] for step in steps]


def attacks_of(raw: cc4.RawObservation) -> list[list[list[int]]]:
    """[step]: kind (raw.AttackKind), target and source of every attack that an agent notices, and its number."""
    columns = [AttackColumn.KIND, AttackColumn.TARGET, AttackColumn.SOURCE]
    return [
        [[*row[columns].tolist(), blue] for blue, rows in enumerate(step) for row in rows if row[AttackColumn.KIND]]
        for step in np.asarray(raw.attacks)
    ]


def render(title: dict[str, str], scenario: cc4.Scenario, frames: Frame) -> str:
    """Render the page."""
    episode = json.dumps({**title, **describe(scenario), "steps": steps_of(scenario, frames)}, separators=(",", ":"))
    template = (resources(__package__) / "watch.html").read_text(encoding="utf-8")
    return template.replace("__EPISODE__", episode.replace("<", "\\u003c"))


def find_policy(config: Config) -> tuple[str, Policy]:
    """Find the selected policy. Returns its title, too. Raises UserError if the selection is ambiguous or missing."""
    if config.policy and any(getattr(config, field.name) != field.default for field in fields(One)):
        raise UserError("give either a checkpoint (RUN, --arm, --seed, --env-steps, --mode) or --policy, not both.")
    if config.policy:
        return config.policy, scripted(config.policy)
    arm, seed, env_steps, path = config.find()
    greedy = config.mode == "greedy"
    return f"{arm}, seed {seed}, after {env_steps:,} env steps" + ", greedy" * greedy, trained(path, greedy)


def watch(config: Config) -> Path:
    """Play the episode and write the page. Returns its path.

    Raises UserError for an ambiguous or missing policy, an unknown red or game, or a number out of range.
    """
    if not 0 <= config.episode < 2**31 or not 0 <= config.eval_seed < 2**32:
        raise UserError("--episode must be from 0 to 2147483647, and --eval-seed from 0 to 4294967295.")
    to = config.to or (config.run or Path()) / "watch.html"
    if to.is_dir():
        raise UserError(f"{to} is a folder: --to needs a file.")
    name, policy = find_policy(config)
    own = definitions.load(config.define, *([config.run] if config.run else []))
    red = own.match(config.red, config.game)
    params = own.params(red, config.num_steps, "raw")
    seed, episode = jnp.uint32(config.eval_seed), jnp.int32(config.episode)
    scenario, frames, overflow = jax.device_get(play(policy, params, seed, episode, config.num_steps))
    if overflow:
        print(outgrew(1), file=sys.stderr)
    title = {
        "policy": name,
        "red": red,
        "episode": f"episode {config.episode} of evaluation seed {config.eval_seed}",
    }
    files.write(to, render(title, scenario, frames).encode())
    return to


def run(config: Config) -> None:
    """Write the page and print its path."""
    devices.use_compile_cache()
    print(watch(config))
