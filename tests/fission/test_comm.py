"""CoMM against its definition, with modalities that are missing and padding that is masked."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from mmjax.fission import CoMM, Projections, comm_loss
from mmjax.reduction import masked_mean

RNG = np.random.default_rng(0)
N, NAMES = 6, ("audio", "image", "text")
QUICK = {"xla_backend_optimization_level": 0}  # half the time to compile, the same arithmetic


def unit(*shape):
    rows = RNG.normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


ROWS = {name: unit(2, N, 4) for name in (*NAMES, "joint")}  # both views
WHERE = {
    "audio": np.array([1, 1, 0, 1, 0, 0], bool),
    "image": np.array([1, 0, 1, 1, 0, 1], bool),
    "text": np.array([1, 1, 1, 0, 0, 0], bool),
}


def nt_xent_definition(x, y, keep, tau):
    """Of each of 2n views against all others; invalid examples are deleted."""
    views = np.concatenate([x[keep], y[keep]])
    scores = np.exp(views @ views.T / tau)
    np.fill_diagonal(scores, 0)
    count = keep.sum()
    partner = np.roll(np.arange(2 * count), count)
    costs = -np.log(scores[np.arange(2 * count), partner] / scores.sum(axis=1))
    rows = np.zeros(len(x))
    rows[keep] = (costs[:count] + costs[count:]) / 2
    return rows


def definition(rows, where, tau):
    some = np.any(list(where.values()), axis=0)
    total = nt_xent_definition(*rows["joint"], some, tau)
    for name, keep in where.items():
        total += nt_xent_definition(rows[name][0], rows["joint"][1], keep, tau) / 2
        total += nt_xent_definition(rows[name][1], rows["joint"][0], keep, tau) / 2
    return total / (1 + sum(keep.astype(float) for keep in where.values()))


def projections(rows, names=NAMES):
    return tuple(
        Projections(rows["joint"][view], {name: rows[name][view] for name in names})
        for view in (0, 1)
    )


@functools.cache
def compiled():
    def loss(rows, where):
        found = comm_loss(*projections(rows), temperature=0.5, where=where)
        return masked_mean(found), found

    return jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=QUICK)


@pytest.mark.parametrize("case", ["full", "ragged"])
def test_is_its_definition_whatever_stands_in_place_of_a_missing_modality(case):
    where = WHERE if case == "ragged" else {name: np.ones(N, bool) for name in NAMES}
    have = where | {"joint": np.any(list(where.values()), axis=0)}
    rows = {
        name: np.where(have[name][None, :, None], both, np.nan).astype(np.float32)
        for name, both in ROWS.items()
    }
    (_, found), gradients = compiled()(rows, where)
    np.testing.assert_allclose(found, definition(ROWS, where, 0.5), rtol=1e-4, atol=1e-6)
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all()
        assert not gradient[:, ~have[name]].any()
        assert np.abs(gradient[:, have[name]]).min(axis=-1).max() > 0


def test_sharded_examples_cost_what_they_cost_together():
    rows = {name: both.astype(np.float32) for name, both in ROWS.items()}
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",), axis_types=(AxisType.Auto,))

    def loss(rows, where):
        local = functools.partial(comm_loss, temperature=0.5, axis_name="data")
        sharded = jax.shard_map(
            lambda rows, where: local(*projections(rows), where=where),
            mesh=mesh,
            in_specs=(P(None, "data"), P("data")),
            out_specs=P("data"),
        )
        found = sharded(rows, where)
        return masked_mean(found), found

    run = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=QUICK)
    (_, found), gradients = run(rows, WHERE)
    (_, wanted), wanted_gradients = compiled()(rows, WHERE)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, wanted_gradients[name], rtol=1e-4, atol=1e-6)


def test_the_order_of_the_modalities_says_nothing():
    rows = {name: both.astype(np.float32) for name, both in ROWS.items()}
    one, other = (jax.jit(comm_loss)(*projections(rows, names)) for names in (NAMES, NAMES[::-1]))
    np.testing.assert_array_equal(one, other)


class MeanOfTokens(nn.Module):
    """A fusion that any mask can reach: a dense layer on the mean of all valid tokens."""

    @nn.compact
    def __call__(self, inputs, *, where):
        total = sum(jnp.sum(x, axis=1, where=where[name][..., None]) for name, x in inputs.items())
        count = sum(jnp.sum(valid, axis=1, dtype=jnp.float32) for valid in where.values())
        return nn.Dense(3)(total / jnp.maximum(count, 1)[:, None])


TOKENS = {
    "image": RNG.normal(size=(4, 3, 2)).astype(np.float32),
    "text": RNG.normal(size=(4, 5, 2)).astype(np.float32),
}
PADDED = {name: np.ones(x.shape[:2], bool) for name, x in TOKENS.items()}
PADDED["text"][:, 3:] = False  # padding
PADDED["image"][1] = False  # a missing modality


def test_the_module_masks_padding_and_leaves_modalities_alone(fill):
    module = CoMM(MeanOfTokens(), hidden=(6,), features=4)
    variables = fill(module, TOKENS, where=PADDED, method="project")
    garbage = {
        name: np.where(PADDED[name][..., None], x, np.nan).astype(np.float32)
        for name, x in TOKENS.items()
    }
    project = jax.jit(functools.partial(module.apply, method="project"))
    found = project(variables, garbage, where=PADDED)
    cut = {"image": TOKENS["image"], "text": TOKENS["text"][:, :3]}
    shorter = {"image": PADDED["image"], "text": PADDED["text"][:, :3]}
    wanted = project(variables, cut, where=shorter)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), found, wanted)
    # Alone is what the fusion gives for that modality alone, also where the other one is missing.
    only = module.apply(variables, {"text": cut["text"]}, method="project")
    np.testing.assert_allclose(found.alone["text"], only.joint, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.joint[1], found.alone["text"][1], rtol=1e-6)
    assert np.abs(found.joint[0] - found.alone["text"][0]).max() > 1e-3
    np.testing.assert_allclose(np.linalg.norm(found.joint, axis=1), 1, rtol=1e-5)
    embedded = module.apply(variables, garbage, where=PADDED)
    assert embedded.shape == (4, 3)


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, inputs, *, where, train=False):
        return nn.Dropout(0.5, deterministic=not train)(MeanOfTokens()(inputs, where=where))


@pytest.mark.parametrize("method", ["__call__", "project"])
@pytest.mark.parametrize(("fusion", "drops"), [(Dropped(), True), (MeanOfTokens(), False)])
def test_train_reaches_a_fusion_that_takes_it(method, fusion, drops, fill):
    module, rngs = CoMM(fusion, hidden=(6,), features=4), {"dropout": jax.random.key(0)}
    variables = fill(module, TOKENS, method="project")
    for train in (False, True):
        apply = functools.partial(module.apply, train=train, rngs=rngs, method=method)
        program = str(jax.make_jaxpr(apply)(variables, TOKENS))
        assert ("random_bits" in program) == (train and drops)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
        ({"where": {"audio": np.ones(N, bool)}}, "must name the same modalities"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        comm_loss(*projections(ROWS), **options)


def test_views_of_different_modalities_are_refused():
    first, second = projections(ROWS)[0], projections(ROWS, ("audio",))[1]
    with pytest.raises(ValueError, match="first and second must name the same modalities, got aud"):
        comm_loss(first, second)
