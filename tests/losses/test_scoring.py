"""In which precision scores are made, how many products that takes, and what is sent around."""

import functools

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from definitions.contexts import DATA, mesh
from jax.sharding import PartitionSpec as P

from mmjax.losses import clip_loss, info_nce

ROWS = np.random.default_rng(0).normal(size=(2, 8, 4)).astype(np.float32)


def primitives(jaxpr, name):
    """All equations of one kind, those of inner programs included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == name:
            yield equation
        for parameter in jax.tree.leaves(list(equation.params.values()), is_leaf=is_program):
            if is_program(parameter):
                yield from primitives(getattr(parameter, "jaxpr", parameter), name)


def is_program(parameter):
    return isinstance(parameter, jax.extend.core.ClosedJaxpr | jax.extend.core.Jaxpr)


def products(loss, *rows):
    return list(primitives(jax.make_jaxpr(loss)(*rows).jaxpr, "dot_general"))


@pytest.mark.parametrize("chunk_size", [None, 3])
@pytest.mark.parametrize(
    ("dtypes", "precision"),
    [
        (("float32", "float32"), jax.lax.Precision.HIGHEST),
        (("bfloat16", "float32"), jax.lax.Precision.HIGHEST),
        (("float16", "float16"), jax.lax.Precision.HIGHEST),
        (("bfloat16", "bfloat16"), jax.lax.Precision.DEFAULT),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else value.name,
)
def test_only_bfloat16_products_may_take_the_fast_path_of_an_accelerator(
    dtypes, precision, chunk_size
):
    rows = [jnp.asarray(z).astype(d) for z, d in zip(ROWS, dtypes, strict=True)]
    loss = functools.partial(clip_loss, logit_scale=1.0, chunk_size=chunk_size)
    gradient = jax.grad(lambda x, y: jnp.sum(loss(x, y)), (0, 1))
    for product in products(gradient, *rows):
        assert product.params["precision"] == (precision, precision)
        assert product.outvars[0].aval.dtype == jnp.float32


def test_both_directions_of_clip_take_one_product():
    loss = functools.partial(clip_loss, logit_scale=1.0, chunk_size=None)
    assert len(products(loss, *ROWS)) == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_in_blocks_rows_are_sent_as_they_came(dtype):
    loss = functools.partial(info_nce, temperature=1.0, axis_name="data", chunk_size=2)

    def cost(x, y):
        return jax.lax.psum(jnp.sum(loss(x, y)), "data")

    both = (DATA, DATA)
    run = jax.shard_map(
        jax.value_and_grad(cost, (0, 1)), mesh=mesh(data=8), in_specs=both, out_specs=(P(), both)
    )
    jaxpr = jax.make_jaxpr(run)(*(jnp.asarray(z).astype(dtype) for z in ROWS)).jaxpr
    gathered = [equation.invars[0].aval for equation in primitives(jaxpr, "all_gather")]
    sent = [aval.dtype for aval in gathered if aval.ndim == 2]
    assert sent == [dtype] * 2  # once in each pass
    returned = [equation.invars[0].aval for equation in primitives(jaxpr, "reduce_scatter")]
    assert [aval.dtype for aval in returned if aval.ndim == 2] == [jnp.float32]


def test_one_block_can_be_differentiated_forwards_and_twice():
    x, y = ROWS
    loss = functools.partial(clip_loss, logit_scale=3.0)

    def cost(x):
        return jnp.sum(loss(x, y))

    slope = jax.grad(cost)(x)
    _, along = jax.jvp(cost, (x,), (x,))
    np.testing.assert_allclose(along, np.sum(slope * x), rtol=1e-4)
    assert jax.hessian(cost)(x).shape == (8, 4, 8, 4)


def test_in_blocks_it_says_that_it_cannot_be_differentiated_forwards():
    loss = functools.partial(info_nce, temperature=1.0, chunk_size=3)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: loss(x, ROWS[1]), (ROWS[0],), (ROWS[0],))


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_seeds_can_be_mapped(chunk_size):
    loss = functools.partial(clip_loss, logit_scale=3.0, chunk_size=chunk_size)
    gradient = jax.grad(lambda x, y: jnp.sum(loss(x, y)))
    stacked = np.stack([ROWS, ROWS[::-1]])
    found = jax.vmap(gradient)(stacked[:, 0], stacked[:, 1])
    for got, (x, y) in zip(found, stacked, strict=True):
        np.testing.assert_allclose(got, gradient(x, y), rtol=1e-4, atol=1e-6)


def test_no_rows_have_no_losses():
    nothing = jnp.zeros((0, 4))
    assert clip_loss(nothing, nothing, logit_scale=1.0).shape == (0,)
