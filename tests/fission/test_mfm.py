"""MFM against its definition, with modalities that are missing."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.fission import MFM, mfm_losses
from mmjax.fission.modalities import key_of

RNG = np.random.default_rng(0)
N = 6
INPUTS = {
    "audio": RNG.normal(size=(N, 3)).astype(np.float32),
    "text": RNG.normal(size=(N, 5)).astype(np.float32),
}
WHERE = {"audio": np.array([1, 1, 0, 1, 1, 0], bool), "text": np.array([1, 0, 1, 1, 1, 0], bool)}
FULL = {name: np.ones(N, bool) for name in INPUTS}
EVEN = np.arange(N) % 2 == 0
APART = {"audio": EVEN, "text": ~EVEN}  # no example has both
GONE = {"audio": EVEN, "text": np.zeros(N, bool)}
KEY = jax.random.key(3)
QUICK = {"xla_backend_optimization_level": 0}  # half the time to compile, the same arithmetic


class SumOfDense(nn.Module):
    @nn.compact
    def __call__(self, inputs, *, where):
        terms = {name: nn.Dense(4, name=name)(x) for name, x in inputs.items()}
        return sum(jnp.where(where[name][:, None], x, 0) for name, x in terms.items())


MODULE = MFM(SumOfDense(), outputs=2, code=3, features=4, hidden=(6,))


def discrepancy(x, y):
    """Squared MMD with the kernel exp(-|u - v|^2 / d), every pair."""

    def kernel(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(axis=-1) / x.shape[1]).mean()

    return kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)


def prior_term(made, where):
    """Of what occurs; where an example lacks a code, it has that of the prior."""
    some = np.any(list(where.values()), axis=0)
    sides = []
    for name, code in {"": made.code, **made.codes}.items():
        have = where.get(name, some)
        if have.any():
            prior = np.float64(jax.random.normal(key_of(KEY, name), code.shape))
            sides.append((np.where(have[:, None], code, prior), prior))
    return discrepancy(*(np.concatenate(side, axis=1)[some] for side in zip(*sides, strict=True)))


@functools.cache
def compiled():
    def loss(variables, inputs, where):
        made = MODULE.apply(variables, inputs, where=where)
        terms = mfm_losses(made, inputs, key=KEY, where=where)
        return jnp.sum(terms.generation) + terms.prior + jnp.sum(made.prediction), (terms, made)

    return jax.jit(jax.grad(loss, (0, 1), has_aux=True), compiler_options=QUICK)


@pytest.mark.parametrize(
    "where", [FULL, WHERE, APART, GONE], ids=["full", "ragged", "apart", "gone"]
)
def test_is_its_definition_and_reaches_every_parameter(where, fill):
    variables = fill(MODULE, INPUTS)
    (gradients, _), (terms, made) = compiled()(variables, INPUTS, where)
    errors = np.zeros(N)
    for name, x in INPUTS.items():
        errors += where[name] * ((x - np.float64(made.reconstruction[name])) ** 2).mean(axis=1)
    np.testing.assert_allclose(terms.generation, errors, rtol=1e-5)
    made = jax.tree.map(np.float64, made)
    np.testing.assert_allclose(terms.prior, prior_term(made, where), rtol=1e-4)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path)
        assert leaf.any() == (where["text"].any() or "text" not in name), name
    holed = {m: np.where(where[m][:, None], x, np.nan) for m, x in INPUTS.items()}
    again = compiled()(variables, holed, where)
    jax.tree.map(np.testing.assert_array_equal, again[0][0], gradients)
    jax.tree.map(np.testing.assert_array_equal, again[1], (terms, made))
    for name, gradient in again[0][1].items():
        assert np.isfinite(gradient).all()
        assert not gradient[~where[name]].any()


def test_masking_a_modality_equals_deleting_it(fill):
    variables = fill(MODULE, INPUTS)
    (masked, _), (terms, _) = compiled()(variables, INPUTS, GONE)
    less = {"audio": INPUTS["audio"]}, {"audio": GONE["audio"]}
    (deleted, _), (wanted, _) = compiled()(variables, *less)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, (masked, terms), (deleted, wanted))


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, inputs, *, where, train=False):
        return nn.Dropout(0.5, deterministic=not train)(SumOfDense()(inputs, where=where))


@pytest.mark.parametrize(("fusion", "drops"), [(Dropped(), True), (SumOfDense(), False)])
def test_train_reaches_a_fusion_that_takes_it(fusion, drops, fill):
    module, rngs = MODULE.clone(fusion=fusion), {"dropout": KEY}
    variables = fill(module, INPUTS)
    for train in (False, True):
        apply = functools.partial(module.apply, train=train, rngs=rngs)
        program = str(jax.make_jaxpr(apply)(variables, INPUTS))
        assert ("random_bits" in program) == (train and drops)


def test_a_modality_is_generated_from_its_own_factor_and_the_discriminative_one(fill):
    variables = fill(MODULE, INPUTS)
    _, (_, made) = compiled()(variables, INPUTS, FULL)
    layers = variables["params"]["decode_text"]
    both = np.concatenate([made.factors["text"], made.factor], axis=1)
    hidden = np.maximum(both @ layers["kernel_0"] + layers["bias_0"], 0)
    again = hidden @ layers["kernel_1"] + layers["bias_1"]
    np.testing.assert_allclose(made.reconstruction["text"], again, rtol=1e-4, atol=1e-5)
    assert made.prediction.shape == (N, 2)


def test_names_that_differ_are_refused(fill):
    _, (_, made) = compiled()(fill(MODULE, INPUTS), INPUTS, FULL)
    with pytest.raises(ValueError, match="codes and inputs must name the same modalities"):
        mfm_losses(made, {"text": INPUTS["text"]}, key=KEY)
