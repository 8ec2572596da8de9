"""DisentangledSSL against its definition, step by step."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.fission import (
    DisentangledSSL,
    Factors,
    disentangled_shared_loss,
    disentangled_unique_losses,
    mean_resultant_length,
    sample_vmf,
)
from mmjax.fission.modalities import key_of

RNG = np.random.default_rng(0)
N, NAMES = 6, ("audio", "image", "text")
QUICK = {"xla_backend_optimization_level": 0}  # half the time to compile, the same arithmetic
KEY = jax.random.key(1)
MEANS = {name: RNG.normal(size=(N, 4)).astype(np.float32) for name in NAMES}
WHERE = {
    "audio": np.array([1, 1, 0, 1, 0, 1], bool),
    "image": np.array([1, 0, 1, 1, 0, 1], bool),
    "text": np.array([1, 1, 1, 0, 1, 0], bool),
}
FULL = {name: np.ones(N, bool) for name in NAMES}
GONE = WHERE | {"audio": np.zeros(N, bool)}  # as if there were two modalities only
masks = pytest.mark.parametrize("where", [FULL, WHERE, GONE], ids=["full", "ragged", "gone"])


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def clip_definition(x, y, keep, tau):
    """Both directions; invalid rows are deleted."""
    scores = np.exp(x[keep] @ y[keep].T / tau)
    rows = np.zeros(len(x))
    own = np.diag(scores)
    rows[keep] = -(np.log(own / scores.sum(axis=1)) + np.log(own / scores.sum(axis=0))) / 2
    return rows


def holes(rows, where):
    return {m: np.where(where[m][:, None], x, np.nan).astype(np.float32) for m, x in rows.items()}


@functools.cache
def shared():
    def loss(means, where):
        rows = disentangled_shared_loss(
            means, key=KEY, weight=0.3, concentration=5.0, temperature=0.5, where=where
        )
        return jnp.sum(rows), rows

    return jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=QUICK)


@masks
def test_step_1_is_its_definition(where):
    (_, found), gradients = shared()(holes(MEANS, where), where)
    samples, clean = {}, {m: np.where(where[m][:, None], x, 0) for m, x in MEANS.items()}
    for name in NAMES:
        drawn = sample_vmf(clean[name], concentration=5.0, key=key_of(KEY, name))
        samples[name] = np.float64(drawn)
    total, count = np.zeros(N), np.zeros(N)
    scale = 5.0 * mean_resultant_length(4, 5.0)
    for a, b in itertools.combinations(NAMES, 2):
        both = where[a] & where[b]
        cosine = (unit(np.float64(MEANS[a])) * unit(np.float64(MEANS[b]))).sum(axis=1)
        total += clip_definition(samples[a], samples[b], both, 0.5)
        total += np.where(both, 0.3 * scale * (1 - cosine), 0)
        count += both
    np.testing.assert_allclose(found, total / np.maximum(count, 1), rtol=1e-4, atol=1e-5)
    pairs = count > 0
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all()
        assert not gradient[~(where[name] & pairs)].any()
        assert gradient[where[name] & pairs].any(axis=1).all()


@functools.cache
def unique():
    def loss(first, second, where):
        terms = disentangled_unique_losses(first, second, temperature=0.5, where=where)
        return jnp.sum(terms.contrast) + terms.overlap, terms

    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True), compiler_options=QUICK)


VIEWS = [
    Factors(*[{m: RNG.normal(size=(N, 3)).astype(np.float32) for m in NAMES} for _ in range(2)])
    for _ in range(2)
]


def overlap(x, y):
    x, y = (unit(z - z.mean(axis=0)) for z in (x, y))
    return np.linalg.norm(x.T @ y / len(x)) ** 2


def step_2(views, where):
    contrast, apart = np.zeros(N), []
    for name in (name for name in NAMES if where[name].any()):
        together = [
            unit(np.concatenate([view.unique[name], view.shared[name]], axis=1).astype(float))
            for view in views
        ]
        contrast += clip_definition(*together, where[name], 0.5)
        for view in views:
            parts = (np.float64(z[name][where[name]]) for z in (view.unique, view.shared))
            apart.append(overlap(*parts))
    count = sum(keep.astype(float) for keep in where.values())
    return contrast / np.maximum(count, 1), np.mean(apart)


@masks
def test_step_2_is_its_definition(where):
    views = [Factors(holes(view.shared, where), holes(view.unique, where)) for view in VIEWS]
    (_, found), gradients = unique()(*views, where)
    contrast, apart = step_2(VIEWS, where)
    np.testing.assert_allclose(found.contrast, contrast, rtol=1e-4)
    np.testing.assert_allclose(found.overlap, apart, rtol=1e-4)
    rng, h, ends = np.random.default_rng(1), 1e-6, []
    steps = [{m: rng.normal(size=x.shape) for m, x in view.unique.items()} for view in VIEWS]
    for end in (h, -h):
        moved = [
            view._replace(unique={m: view.unique[m] + end * step[m] for m in NAMES})
            for view, step in zip(VIEWS, steps, strict=True)
        ]
        contrast, apart = step_2(moved, where)
        ends.append(contrast.sum() + apart)
    slope = sum(
        (view.unique[m] * step[m]).sum()
        for view, step in zip(gradients, steps, strict=True)
        for m in NAMES
    )
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * h), rtol=1e-3)
    for view in gradients:
        for name in NAMES:
            assert not view.shared[name].any()  # a constant
            assert np.isfinite(view.unique[name]).all()
            assert not view.unique[name][~where[name]].any()
            assert view.unique[name][where[name]].any(axis=1).all()


def test_the_order_of_the_modalities_says_nothing():
    other = {name: MEANS[name] for name in reversed(NAMES)}
    first, second = (shared()(means, FULL) for means in (MEANS, other))
    jax.tree.map(np.testing.assert_array_equal, first, second)


INPUTS = {name: RNG.normal(size=(N, 5)).astype(np.float32) for name in ("audio", "text")}
HAVE = {name: WHERE[name] for name in INPUTS}
MODULE = DisentangledSSL(
    shared={name: nn.Dense(4) for name in INPUTS}, unique={name: nn.Dense(3) for name in INPUTS}
)


def test_unique_encoders_see_the_shared_embedding_and_leave_it_alone(fill):
    variables = fill(MODULE, INPUTS)

    def total(variables):
        factors = MODULE.apply(variables, holes(INPUTS, HAVE), where=HAVE)
        return sum(jnp.sum(x**2) for x in factors.unique.values()), factors

    run = jax.jit(jax.grad(total, has_aux=True), compiler_options=QUICK)
    gradients, factors = run(variables)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all()
        assert leaf.any() == ("unique" in jax.tree_util.keystr(path))
    params = variables["params"]
    for name, x in INPUTS.items():
        keep = HAVE[name][:, None]
        layer = params[f"shared_{name}"]
        mean = np.where(keep, unit(x @ layer["kernel"] + layer["bias"]), 0)
        np.testing.assert_allclose(factors.shared[name], mean, rtol=1e-4, atol=1e-5)
        layer = params[f"unique_{name}"]
        own = np.concatenate([x, mean], axis=1) @ layer["kernel"] + layer["bias"]
        np.testing.assert_allclose(
            factors.unique[name], np.where(keep, own, 0), rtol=1e-4, atol=1e-5
        )


def test_step_1_reaches_the_shared_encoders_only(fill):
    variables = fill(MODULE, INPUTS)

    def total(variables):
        means = MODULE.apply(variables, INPUTS, method="shared_means")
        return jnp.sum(disentangled_shared_loss(means, key=KEY, weight=1.0, concentration=5.0))

    gradients = jax.jit(jax.grad(total), compiler_options=QUICK)(variables)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert leaf.any() == ("shared" in jax.tree_util.keystr(path))


def test_bad_input_is_refused():
    def loss(means, **options):
        options = {"key": KEY, "weight": 1.0, **options}
        return jax.eval_shape(lambda means: disentangled_shared_loss(means, **options), means)

    with pytest.raises(ValueError, match="inputs must hold 2 modalities or more, got text"):
        loss({"text": MEANS["text"]})
    with pytest.raises(ValueError, match="inputs and where must name the same modalities"):
        loss(MEANS, where={"text": FULL["text"]})
    with pytest.raises(ValueError, match="temperature must be positive and finite, got -1"):
        loss(MEANS, temperature=-1)
    with pytest.raises(ValueError, match="weight must be finite, got inf"):
        loss(MEANS, weight=np.inf)
    with pytest.raises(ValueError, match="weight must be at least 0, got -1"):
        loss(MEANS, weight=-1)
    broken = Factors(VIEWS[0].shared, {"text": VIEWS[0].unique["text"]})
    with pytest.raises(ValueError, match="shared and unique must name the same modalities"):
        disentangled_unique_losses(broken, broken)
    with pytest.raises(ValueError, match="inputs and the encoders must name the same modalities"):
        jax.eval_shape(MODULE.init, KEY, {"text": INPUTS["text"]})
