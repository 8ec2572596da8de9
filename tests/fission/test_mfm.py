"""MFM against its definition, with modalities that are missing."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.fission import MFM, mfm_losses

RNG = np.random.default_rng(0)
N = 6
INPUTS = {
    "audio": RNG.normal(size=(N, 3)).astype(np.float32),
    "text": RNG.normal(size=(N, 5)).astype(np.float32),
}
WHERE = {"audio": np.array([1, 1, 0, 1, 1, 0], bool), "text": np.array([1, 0, 1, 1, 1, 0], bool)}
FULL = {name: np.ones(N, bool) for name in INPUTS}
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


@functools.cache
def compiled():
    def loss(variables, inputs, where):
        made = MODULE.apply(variables, inputs, where=where)
        terms = mfm_losses(made, inputs, key=KEY, where=where)
        return jnp.sum(terms.generation) + terms.prior + jnp.sum(made.prediction), (terms, made)

    return jax.jit(jax.grad(loss, (0, 1), has_aux=True), compiler_options=QUICK)


@pytest.mark.parametrize("where", [FULL, WHERE], ids=["full", "ragged"])
def test_is_its_definition_and_reaches_every_parameter(where, fill):
    variables = fill(MODULE, INPUTS)
    (gradients, _), (terms, made) = compiled()(variables, INPUTS, where)
    errors = np.zeros(N)
    for name, x in INPUTS.items():
        errors += where[name] * ((x - np.float64(made.reconstruction[name])) ** 2).mean(axis=1)
    np.testing.assert_allclose(terms.generation, errors, rtol=1e-5)
    made = jax.tree.map(np.float64, made)
    codes = np.concatenate([made.code, made.codes["audio"], made.codes["text"]], axis=1)
    prior = np.float64(jax.random.normal(KEY, codes.shape))
    whole = where["audio"] & where["text"]
    wanted = discrepancy(np.float64(codes)[whole], prior[whole])
    np.testing.assert_allclose(terms.prior, wanted, rtol=1e-4)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)
    holed = {m: np.where(where[m][:, None], x, np.nan) for m, x in INPUTS.items()}
    again = compiled()(variables, holed, where)
    jax.tree.map(np.testing.assert_array_equal, again[0][0], gradients)
    jax.tree.map(np.testing.assert_array_equal, again[1], (terms, made))
    for name, gradient in again[0][1].items():
        assert np.isfinite(gradient).all()
        assert not gradient[~where[name]].any()


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
