"""A batch in parts is the batch at once: value, outputs, gradients, noise; and rows stay put."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.models.two_tower import clamped_scale
from mmjax.training.gradient_cache import cached_value_and_grad, check_micro_batches, row_keys
from mmjax.training.mesh import make_mesh

N, D = 12, 3
RNG = np.random.default_rng(0)
PARAMS = {
    "kernel": RNG.normal(size=(4, D)).astype(np.float32),
    "prototypes": RNG.normal(size=(2, D)).astype(np.float32),
    "scale": np.float32(1.5),
}
BATCH = {
    "x": RNG.normal(size=(N, 4)).astype(np.float32),
    "weights": RNG.random(N).astype(np.float32),
}
KEY = jax.random.key(7)


def embed_row(params, x, key):
    keep = jax.random.bernoulli(key, 0.6, (D,))
    return jnp.tanh(x @ params["kernel"]) * keep


def embed(params, rows, keys):
    z = jax.vmap(lambda x, key: embed_row(params, x, key))(rows["x"], keys)
    return {"rows": [z], "prototypes": params["prototypes"] ** 2, "scale": params["scale"]}


def loss(outputs, batch):
    """Every row against every other and against the prototypes; rows are told apart by weight."""
    (z,) = outputs["rows"]
    scores = jnp.concatenate([z @ z.T, z @ outputs["prototypes"].T], axis=1)
    return jnp.sum(batch["weights"] * jax.nn.logsumexp(outputs["scale"] * scores, axis=1))


def wanted():
    """Row by row, at once, with nothing of what is tested."""

    def outputs_of(params):
        keys = [jax.random.fold_in(KEY, i) for i in range(N)]
        z = jnp.stack([embed_row(params, x, k) for x, k in zip(BATCH["x"], keys, strict=True)])
        return {"rows": [z], "prototypes": params["prototypes"] ** 2, "scale": params["scale"]}

    value, slopes = jax.value_and_grad(lambda params: loss(outputs_of(params), BATCH))(PARAMS)
    return (value, outputs_of(PARAMS)), slopes


def assert_close(got, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, expected)


@pytest.mark.parametrize("micro_batches", [1, 2, 3, N])
def test_parts_give_value_outputs_and_gradients_of_the_whole_batch(micro_batches):
    run = jax.jit(cached_value_and_grad(embed, loss, micro_batches=micro_batches))
    assert_close(run(PARAMS, BATCH, KEY), wanted())


def collectives(text):
    """Type and kind of every collective operation of a compiled program."""
    kinds = "all-to-all|all-gather|collective-permute|all-reduce|reduce-scatter"
    return re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text)


def test_sharded_rows_are_embedded_where_they_lie():
    """Only embeddings are exchanged: no device gets another one's inputs."""
    n, mesh = 32, make_mesh({"data": 4, "fsdp": 2})
    rows = NamedSharding(mesh, P(("data", "fsdp")))
    whole = NamedSharding(mesh, P())
    pixels = RNG.integers(0, 255, (n, 4)).astype(np.uint8)
    batch = {"x": pixels, "weights": RNG.random(n).astype(np.float32)}

    def scaled(params, rows, keys):
        return embed(params, {"x": rows["x"].astype(jnp.float32) / 255}, keys)

    at_once, in_parts = (cached_value_and_grad(scaled, loss, micro_batches=k) for k in (1, 2))
    run = jax.jit(in_parts, in_shardings=(whole, rows, whole)).lower(PARAMS, batch, KEY).compile()
    found = collectives(run.as_text())
    assert "all-gather" in {kind for _, kind in found}  # of embeddings: the negatives
    assert not {kind for _, kind in found} & {"all-to-all", "collective-permute"}
    assert not [kind for of, kind in found if "u8[" in of]
    placed = jax.device_put((PARAMS, batch, KEY), (whole, rows, whole))
    assert_close(run(*placed), jax.jit(at_once)(PARAMS, batch, KEY))


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_a_scale_at_its_clamp_has_the_one_sided_slope_of_the_whole_batch(direction):
    def embed(params, rows, keys):
        return {"rows": rows, "scale": clamped_scale(params, log_max=0.0)}

    def loss(outputs, batch):
        return direction * outputs["scale"] * jnp.sum(outputs["rows"])  # rows of either sign

    rows = np.array([-3.0, 1.0, 1.0, 5.0], np.float32)
    run = cached_value_and_grad(embed, loss, micro_batches=4)
    _, slope = run(jnp.float32(2), rows, KEY)
    assert slope == max(direction * 4, 0)


def test_narrow_gradients_are_summed_in_float32():
    n = 512  # counted one by one, bfloat16 stops at 256
    run = cached_value_and_grad(
        lambda weight, rows, keys: rows * weight,
        lambda rows, batch: jnp.sum(rows.astype(jnp.float32)),
        micro_batches=n,
    )
    _, slope = jax.jit(run)(jnp.bfloat16(1), jnp.ones(n, jnp.bfloat16), KEY)
    assert slope.dtype == jnp.bfloat16
    assert slope == n


def test_rows_have_noise_of_their_own():
    drawn = jax.vmap(jax.random.bits)(row_keys(KEY, 50))
    assert len(set(drawn.tolist())) == 50


def test_no_parts_are_refused():
    with pytest.raises(ValueError, match="micro_batches must be at least 1, got 0"):
        cached_value_and_grad(embed, loss, micro_batches=0)


def with_output(make):
    return lambda params, rows, keys: {"x": rows["x"], "odd": make(rows["x"])}


@pytest.mark.parametrize(
    ("embed", "batch", "key", "message"),
    [
        (embed, {"x": BATCH["x"][:9]}, KEY, "must divide the rows .* got 2 for 9 rows"),
        (embed, BATCH | {"x": BATCH["x"][:9]}, KEY, r"same number of rows, .*'weights'.*\(12,\)"),
        (embed, BATCH | {"scale": np.float32(1)}, KEY, r"same number of rows, .*'scale'.*\(\)"),
        (embed, BATCH, jax.random.key(0, impl="rbg"), "of the kind threefry2x32, got rbg"),
        (with_output(lambda x: x > 0), BATCH, KEY, r"must be floats, got bool for \['odd'\]"),
        (
            with_output(lambda x: x.T),
            BATCH,
            KEY,
            r"got \['odd'\] of \(4, 6\) for a part and \(4, 12\) for all",
        ),
    ],
    ids=["indivisible", "rows", "scalar", "key", "dtype", "shape"],
)
def test_what_cannot_be_cut_is_named(embed, batch, key, message):
    run = cached_value_and_grad(embed, loss, micro_batches=2)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(run, PARAMS, batch, key)


def test_parts_that_do_not_divide_the_rows_of_a_device_are_refused():
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    for good in (1, 2, 3, 6):
        check_micro_batches(good, 24, mesh)
    for bad in (0, 4, 12):
        message = rf"the 6 rows that each of 4 devices .* 24, got {bad}; use one of 1, 2, 3, 6"
        with pytest.raises(ValueError, match=message):
            check_micro_batches(bad, 24, mesh)
