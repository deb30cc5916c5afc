"""Export a trained policy or a script as a NumPy-only submission to CAGE Challenge 4.

    purecc4 export runs/first --arm C11 --seed 42 --to exported
    purecc4 export --policy analyst --to exported

The folder holds the actor's weights by name (`policy.safetensors`), a NumPy implementation of the policy (`policy`),
and the `submission.py` and empty `metadata` that the challenge's evaluation requires. A script has no weights. With
`--games`, it also holds the numbers of these games (`games`), with which `game.py` runs the evaluation.
"""

import dataclasses
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from purecc4 import files
from purecc4.cyborg import game_file
from purecc4.cyborg.submission.policy import LAYERS, WEIGHTS, names_of
from purecc4.errors import UserError
from purecc4.play.selection import One
from purecc4.play.tables import MODES, Mode
from purecc4.train import checkpoint, definitions

FILES, GAME = (Path(__file__).parent.resolve() / name for name in ("submission", "game.py"))
COPIED = ("submission.py", *(f"policy/{path.name}" for path in sorted(FILES.glob("policy/*.py"))))
Script = Literal["sweep", "analyst"]
"""Scripts that can be exported, those of `policy.scripts`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(One):
    """Export a checkpoint or a script to a folder."""

    policy: Script | None = None
    """Script to export instead of a checkpoint."""
    to: Path
    """Output folder. It must not exist."""
    sample_seed: int = 0
    """Seed for the action sampling of the exported policy."""
    games: tuple[str, ...] = ()
    """Games to evaluate the policy in besides CAGE Challenge 4."""
    define: Path | None = None
    """TOML file with your own games and reds, in addition to those saved in the run folder."""


def run(config: Config) -> None:
    """Export the policy and print how to evaluate it in CybORG."""
    if config.sample_seed < 0:
        raise UserError(f"--sample-seed must be at least 0: {config.sample_seed}.")
    if (config.run is None) == (config.policy is None):
        raise UserError("give either a run folder with --arm and --seed, or --policy.")
    own = definitions.load(config.define, *([config.run] if config.run else []))
    games = {f"games/{name}.json": game_file.written(own, own.match(None, name)).encode() for name in config.games}
    if config.policy:
        write_script(config.to, config.policy, games)
    else:
        write(config.to, config.find().path, config.mode, config.sample_seed, games)
    print(f"Exported {config.policy or config.find().path} to {config.to}.", end=" ")
    print("To evaluate it, run in a CybORG checkout with CybORG's Python:")
    to = config.to.resolve()
    print(f"    python -m CybORG.Evaluation.evaluation --max-eps 2 {to} /tmp/output")
    for name in games:
        game = f"PYTHONPATH=. python {GAME} {to / name}"
        print(f"    {game} -m CybORG.Evaluation.evaluation --max-eps 2 {to} /tmp/output")


def write(
    folder: Path, path: Path, mode: Mode, sample_seed: int = 0, more: Mapping[str, bytes] = MappingProxyType({})
) -> None:
    """Write the exported folder of a checkpoint atomically, with more files by name.

    Raises UserError if the folder exists, or the checkpoint is foreign or of an unsupported algorithm.
    """
    algorithm, arrays = checkpoint.read_about(path).get("algorithm"), checkpoint.read_arrays(path)
    if algorithm not in LAYERS or not set(names_of(algorithm)) <= set(arrays):
        raise UserError(
            f"{path} was trained by {algorithm}, which cannot be exported; supported are {', '.join(LAYERS)}."
        )
    _, arm, seed, env_steps = path.with_suffix("").parts[-4:]
    about = {"algorithm": algorithm, "arm": arm, "seed": seed, "env_steps": env_steps}
    about |= {"mode": mode, "sample_seed": str(sample_seed), "name": f"{arm} seed {seed}"}
    about["technique"] = f"{algorithm} with action masks, {env_steps} env steps, {mode} actions"
    _write(folder, {name: arrays[name] for name in names_of(algorithm)}, about, more)


def write_script(folder: Path, script: Script, more: Mapping[str, bytes] = MappingProxyType({})) -> None:
    """Write the exported folder of a script atomically, as `write`. Raises UserError if the folder exists."""
    about = {"algorithm": script, "mode": MODES[0], "sample_seed": "0"}
    _write(folder, {}, about | {"name": script, "technique": "rules on the raw observation"}, more)


def _write(folder: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, str], more: Mapping[str, bytes]) -> None:
    if folder.exists():
        raise UserError(f"{folder} already exists: choose another folder.")
    contents = {name: (FILES / name).read_bytes() for name in COPIED} | {"metadata": b""}
    files.write_folder(folder, contents | {WEIGHTS: to_safetensors(arrays, about)} | dict(more))


def to_safetensors(arrays: Mapping[str, np.ndarray], about: Mapping[str, str]) -> bytes:
    """Serialise float32 arrays as safetensors: length of the header (8 bytes), header (JSON), data."""
    header, data = {"__metadata__": dict(about)}, b""
    for name, array in arrays.items():
        content = np.ascontiguousarray(array, "<f4").tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data
