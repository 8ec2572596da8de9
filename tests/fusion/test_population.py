import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.fusion import train_population

P, D, STEPS = 3, 2, 8
RNG = np.random.default_rng(0)
CANDIDATES = {"start": RNG.normal(size=(P, D)), "curvature": RNG.uniform(0.1, 2, size=(P, D))}


@pytest.fixture
def promotion():
    """Optax mixes a rate of float32 with parameters of float64."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.usefixtures("promotion")
def test_candidates_train_together_as_each_would_alone():
    """Heavy ball on a bowl of its own for each, by hand."""
    rate, momentum = 0.25, 0.5
    with jax.enable_x64(True):
        params, losses = train_population(
            lambda key, candidate: candidate["start"],
            lambda x, candidate, key: jnp.sum(candidate["curvature"] * x**2) / 2,
            CANDIDATES,
            optimizer=optax.sgd(rate, momentum),
            steps=STEPS,
            key=jax.random.key(0),
        )
    assert losses.shape == (P, STEPS)
    for p in range(P):
        x, curvature = CANDIDATES["start"][p], CANDIDATES["curvature"][p]
        velocity = np.zeros(D)
        for step in range(STEPS):
            np.testing.assert_allclose(losses[p, step], curvature @ x**2 / 2, rtol=1e-10)
            velocity = momentum * velocity + curvature * x
            x = x - rate * velocity
        np.testing.assert_allclose(params[p], x, rtol=1e-10)


def test_every_candidate_and_every_update_draws_anew():
    params, losses = train_population(
        lambda key, candidate: jax.random.uniform(key),
        lambda x, candidate, key: jax.random.uniform(key),  # flat: nothing moves
        CANDIDATES,
        optimizer=optax.sgd(1.0),
        steps=STEPS,
        key=jax.random.key(0),
    )
    drawn = np.concatenate([np.ravel(losses), params])
    assert len(np.unique(drawn)) == P * STEPS + P


def test_training_takes_a_step_at_least():
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        train_population(
            None, None, CANDIDATES, optimizer=optax.sgd(1.0), steps=0, key=jax.random.key(0)
        )
