"""Checkpoints: damage, older formats, moved files, weights that are not finite."""

import json
import random
from functools import partial
from pathlib import Path

import jax
import numpy as np
import probe
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purecc4.algos import ippo
from purecc4.errors import UserError
from purecc4.play import policies
from purecc4.train import checkpoint


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Path of a checkpoint with a checksum."""
    sizes = {"num_obs": 4, "num_actions": 3, "hidden": 8, "precision": "float32"}
    path = checkpoint.path_of(tmp_path_factory.mktemp("run"), "C00", 7, 64)
    about = {"algorithm": "ippo", "arm": "C00", "seed": 7, "env_steps": 64, "network": sizes}
    checkpoint.save(path, ippo.ActorCritic(jax.random.key(0), 4, 3, 8), about)
    return path


def readers(path: Path):
    """The functions that read a checkpoint."""
    return (partial(policies.load_network, path), partial(checkpoint.read_arrays, path))


def test_every_flipped_bit_is_detected(network, tmp_path):
    content, path = network.read_bytes(), tmp_path / "copy.eqx"
    generator = random.Random(0)
    places = [*range(0, 400, 7), *(generator.randrange(len(content)) for _ in range(100))]
    for place in places:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << generator.randrange(8)]) + content[place + 1 :])
        for read in readers(path):
            with pytest.raises(UserError):
                read()


@pytest.mark.parametrize("change", [lambda x: x + b"junk", lambda x: x[:-1], lambda x: x[: len(x) // 2], lambda x: b""])
@pytest.mark.parametrize("checksum", [True, False])
def test_changed_lengths_are_detected(change, checksum, network, tmp_path):
    """With or without a checksum."""
    path, content = tmp_path / "copy.eqx", network.read_bytes()
    path.write_bytes(change(content if checksum else without_checksum(content)))
    for read in readers(path):
        with pytest.raises(UserError, match=r"damaged|not written by"):
            read()


def without_checksum(content: bytes, **changes) -> bytes:
    """A checkpoint as older versions wrote it, with changes to its header."""
    first, _, body = content.partition(b"\n")
    header = json.loads(first) | changes
    del header[checkpoint.CHECKSUM]
    return json.dumps(header).encode() + b"\n" + body


def test_older_checkpoints_are_read(network, tmp_path):
    path = tmp_path / "copy.eqx"
    path.write_bytes(without_checksum(network.read_bytes()))
    probe.assert_equal(policies.load_network(path), policies.load_network(network))


@pytest.mark.parametrize(("name", "value"), [("arm", "C11"), ("seed", 8), ("env_steps", 32)])
def test_a_moved_checkpoint_is_refused(name, value, network, tmp_path):
    place = {"arm": "C00", "seed": 7, "env_steps": 64, name: value}
    path = checkpoint.path_of(tmp_path, **place)
    path.parent.mkdir(parents=True)
    path.write_bytes(network.read_bytes())
    for read in readers(path):
        with pytest.raises(UserError, match=f"checkpoint with {name} "):
            read()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_weights_are_refused(value, network, tmp_path):
    weights = policies.load_network(network)
    checkpoint.save(
        tmp_path / "bad.eqx",
        jax.tree.map(lambda x: x.at[0].set(value), weights),
        {**{key: x for key, x in checkpoint.read_about(network).items() if key != "leaves"}},
    )
    for read in readers(tmp_path / "bad.eqx"):
        with pytest.raises(UserError, match=r"not finite in first\.weight"):
            read()


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4)


@settings(max_examples=60, deadline=None)
@given(
    key=st.sampled_from(["purecc4_format", "leaves", "algorithm", "network", "num_obs", "num_actions", "hidden"]),
    value=JSON,
)
def test_damaged_headers_are_refused(network, tmp_path_factory, key, value):
    """Without the checksum: the file is refused, or read as it was written."""
    sizes = checkpoint.read_about(network)["network"]
    changes = {"network": sizes | {key: value}} if key in sizes else {key: value}
    path = tmp_path_factory.mktemp("header") / "copy.eqx"
    path.write_bytes(without_checksum(network.read_bytes(), **changes))
    try:
        found = policies.load_network(path)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        probe.assert_equal(found, policies.load_network(network))
