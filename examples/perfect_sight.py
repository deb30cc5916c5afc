"""A bound for `algos/pgpe.py`: the same rules, learned in the same way, with red's true state in place of the history.

    python examples/perfect_sight.py

An agent sees every session in its zones and its privileges at once, and which hosts a live session can exploit. It
starts from the numbers of results/champion. The last line compares both over episodes with equal luck.
"""

import argparse
import dataclasses
from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from purecc4.algos import pgpe
from purecc4.envs.cc4.by_host import OWN_HOSTS
from purecc4.envs.cc4.constants import NO_HOST, NUM_BLUE, SLOTS, Level
from purecc4.envs.cc4.layout import pack, unpack
from purecc4.envs.cc4.raw import Files
from purecc4.envs.cc4.sessions import id_flags
from purecc4.play.selection import choose
from purecc4.train import checkpoint, devices

RED = slice(1, NUM_BLUE + 1)  # red agent b + 1 owns the zones of blue agent b
USED = OWN_HOSTS != NO_HOST
ZONE = np.where(USED, OWN_HOSTS, 0)[:, :, 0] // SLOTS


def see(state, notes):
    """The history of all agents as it would be if they saw red's state."""
    sessions, red = state.sessions, state.red
    root, abstract, known = (id_flags(ids)[RED] for ids in (sessions.root, sessions.abstract, red.known_ids))
    here = (sessions.host[RED][:, None, None, :] == OWN_HOSTS[..., None]) & USED[..., None]
    held, rooted = here.any(axis=-1), (here & root[:, None, None, :]).any(axis=-1)

    # hosts in state S, and the sessions that can exploit them: [blue own_zone target id]
    scanned = unpack(red.known[Level.S])[ZONE] & USED
    able = id_flags(red.scans).any(axis=0)[ZONE] & scanned[..., None] & (abstract & known)[:, None, None, :]
    # [blue own_zone slot target], as a product of matrices, which is the fastest way
    targets = jnp.einsum("bzsi,bzti->bzst", here.astype(jnp.float32), able.astype(jnp.float32)) > 0
    never = jnp.zeros_like(held)
    return dataclasses.replace(
        notes,
        named=jnp.where(held, jnp.maximum(notes.named, 1), 0).astype(jnp.int16),
        files=jnp.where(rooted, Files.ESCALATE, Files.NONE).astype(jnp.int8),
        unanswered=jnp.where(held & ~rooted, notes.unanswered, 0).astype(jnp.int16),
        removed=never,
        unexplained=never,
        targets=pack(targets),
        stale=scanned & ~able.any(axis=-1),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--run", type=Path, default=Path("results/champion"))
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--num-envs", type=int, default=480)
    parser.add_argument("--num-steps", type=int, default=500)
    args = parser.parse_args()
    devices.use_compile_cache()

    config = pgpe.Config(arm=("C00",), seeds=(args.seed,), num_envs=args.num_envs, num_steps=args.num_steps)
    config = dataclasses.replace(config, total_timesteps=args.updates * config.steps_per_update).resolved()
    env = pgpe.make_env(config)
    arm = jax.tree.map(lambda x: x[0], env.arms)
    (saved,) = choose(args.run, ("C00",), (args.seed,))
    learned = jnp.asarray(checkpoint.read_arrays(saved.path)["numbers"])

    runner = pgpe.init(config, env, jnp.uint32(args.seed))
    runner = dataclasses.replace(runner, network=eqx.tree_at(lambda rules: rules.numbers, runner.network, learned))
    update = jax.jit(partial(pgpe.update, config, env, play=partial(pgpe.play, see=see)))
    for index in range(args.updates):
        runner, metrics = update(arm, runner)
        print(f"update {index + 1}: own zones {metrics['own_zones']:.2f} with noise", flush=True)

    scores = {}
    for sighted, numbers in ((False, learned), (True, runner.network.numbers)):
        game = jax.jit(partial(pgpe.play, config, env, **{"see": see} if sighted else {}))
        table = jnp.broadcast_to(numbers, (args.num_envs, *numbers.shape))
        scores[sighted] = np.asarray(game(table, arm, jax.random.key(2**31))[0]).sum(axis=1)
    gain = scores[True] - scores[False]
    print(
        f"{args.num_envs} episodes, own zones: {scores[False].mean():.2f} with the history, {scores[True].mean():.2f} "
        f"with the state, difference {gain.mean():+.2f} ± {gain.std(ddof=1) / len(gain) ** 0.5:.2f}"
    )


if __name__ == "__main__":
    main()
