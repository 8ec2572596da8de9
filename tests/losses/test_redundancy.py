"""Views with statistics that can be worked out by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses.redundancy import barlow_twins, vicreg

# Two features that vary by themselves: each has the unbiased variance 4/3.
CORNERS = np.array([[1, 1], [-1, 1], [1, -1], [-1, -1]], np.float32)
TWINS = CORNERS[:, :1].repeat(2, axis=1)  # two features that say the same


@functools.cache
def compiled(loss):
    """Gradients by both views."""
    return jax.jit(jax.grad(lambda x, y, where: loss(x, y, where=where), (0, 1)))


def vicreg_term(x, y, name):
    weights = dict.fromkeys(("invariance", "variance", "covariance"), 0.0)
    return float(vicreg(x, y, **{**weights, name: 1.0}))


def test_invariance_is_the_mean_square():
    assert vicreg_term(CORNERS, CORNERS + 3, "invariance") == 9


def test_variance_is_the_mean_of_both_hinges_and_does_not_see_the_mean():
    halves = CORNERS / 2  # unbiased variance 1/3
    wanted = 1 - np.sqrt(1 / 3 + 1e-4)
    assert vicreg_term(halves, halves + 7, "variance") == pytest.approx(wanted, rel=1e-5)
    assert vicreg_term(halves, 9 * halves, "variance") == pytest.approx(wanted / 2, rel=1e-5)


def test_covariance_is_the_sum_of_both_and_over_ordered_pairs_of_features():
    # Off the diagonal 4/3 twice, squared, over two features, for either view.
    assert vicreg_term(TWINS, TWINS, "covariance") == pytest.approx(2 * 16 / 9)
    assert vicreg_term(TWINS, CORNERS, "covariance") == pytest.approx(16 / 9)


def test_correlations_of_twins_that_say_the_same():
    assert barlow_twins(TWINS, TWINS, redundancy=0.5) == pytest.approx(2 * 0.5)
    assert barlow_twins(CORNERS, CORNERS[:, ::-1], redundancy=0.5) == pytest.approx(2 + 2 * 0.5)


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_correlations_know_no_scale(scale):
    assert barlow_twins(TWINS * np.float32(scale), CORNERS) == pytest.approx(1 + 0.005)


@pytest.mark.parametrize("loss", [vicreg, barlow_twins])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
def test_a_constant_feature_has_a_finite_gradient(loss, constant):
    x = CORNERS.copy()
    x[:, 0] = constant
    gradients = compiled(loss)(x, CORNERS, np.ones(4, bool))
    assert all(np.all(np.isfinite(g)) for g in gradients)
    if loss is barlow_twins:
        assert loss(x, CORNERS, redundancy=0.0) == pytest.approx(1)
        assert not np.any(gradients[0][:, 0])


def test_a_single_row_varies_in_nothing():
    x, y, where = CORNERS, CORNERS + 1, np.array([False, True, False, False])
    assert vicreg(x, y, invariance=2.0, where=where) == 2
    assert barlow_twins(x, y, where=where) == 0
    for loss in (vicreg, barlow_twins):
        assert all(np.all(np.isfinite(g)) for g in compiled(loss)(x, y, where))


@pytest.mark.parametrize("weight", ["invariance", "variance", "covariance"])
def test_a_weight_that_is_not_finite_is_refused(weight):
    with pytest.raises(ValueError, match=f"{weight} must be finite, got nan"):
        jax.eval_shape(lambda x: vicreg(x, x, **{weight: float("nan")}), jnp.ones((3, 2)))


def test_a_redundancy_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="redundancy must be finite, got inf"):
        barlow_twins(CORNERS, CORNERS, redundancy=float("inf"))
