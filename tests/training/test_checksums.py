import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.training.checksums import checksums
from mmjax.training.mesh import make_mesh

DTYPES = ("float32", "bfloat16", "float16", "int32", "uint8", "int8", "uint32", "bool")


def defined(x):
    """The checksum from its definition, in Python's whole numbers."""
    bits = np.asarray(x).reshape(-1)
    words = bits.view({1: np.uint8, 2: np.uint16, 4: np.uint32}[bits.dtype.itemsize])
    return sum((2 * i + 1) * int(word) for i, word in enumerate(words)) % 2**32


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (4, 5), (2, 3, 4)])
def test_it_is_what_the_definition_says(dtype, shape):
    x = jnp.asarray(np.random.default_rng(0).normal(0, 50, shape)).astype(dtype)
    assert checksums({"x": x}) == {"x": defined(x)}


@settings(deadline=None, max_examples=50)
@given(element=st.integers(0, 19), bit=st.integers(0, 31))
def test_every_bit_counts(element, bit):
    words = np.random.default_rng(1).integers(0, 2**32, 20, dtype=np.uint32)
    changed = words.copy()
    changed[element] ^= np.uint32(1 << bit)
    before, after = (checksums({"x": jnp.asarray(x.view(np.float32))}) for x in (words, changed))
    assert before != after


def test_it_does_not_depend_on_how_an_array_lies_over_devices():
    x = np.random.default_rng(2).normal(size=(16, 8)).astype(np.float32)
    mesh = make_mesh({"data": 2, "fsdp": 4})
    specs = [PartitionSpec(), PartitionSpec("data"), PartitionSpec("data", "fsdp")]
    placed = [jax.device_put(x, NamedSharding(mesh, spec)) for spec in specs]
    assert [checksums({"x": y}) for y in placed] == [{"x": defined(x)}] * 3


def test_names_are_paths_and_nothing_has_no_checksum():
    tree = {"b": [jnp.zeros(2), {"c": jnp.ones(1, jnp.int32)}], "a": None}
    assert checksums(tree) == {"b/0": 0, "b/1/c": 1}
    assert checksums({}) == {}
