import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmjax.training.optimizer import build_optimizer, decays, learning_rate_schedule

CONFIG = {
    "learning_rate": 0.1,
    "warmup_steps": 4,
    "final_share": 0.1,
    "b1": 0.9,
    "b2": 0.99,
    "eps": 1e-8,
    "weight_decay": 0.5,
    "clip_norm": 1.0,
}


def test_the_learning_rate_warms_up_and_falls_as_a_cosine():
    rate = learning_rate_schedule(CONFIG, steps=20)
    np.testing.assert_allclose([rate(0), rate(2), rate(4)], [0, 0.05, 0.1], atol=1e-7)
    halfway = 0.1 * (0.1 + 0.9 * 0.5)
    np.testing.assert_allclose([rate(12), rate(20)], [halfway, 0.01], rtol=1e-5)


def test_a_run_shorter_than_its_warm_up_ends_within_it():
    rate = learning_rate_schedule(CONFIG, steps=2)
    np.testing.assert_allclose([rate(0), rate(1), rate(2)], [0, 0.025, 0.05], atol=1e-7)


def test_without_warm_up_a_run_starts_at_the_peak():
    rate = learning_rate_schedule(CONFIG | {"warmup_steps": 0}, steps=1)
    np.testing.assert_allclose([rate(0), rate(1)], [0.1, 0.01], rtol=1e-5)


def test_only_matrices_and_tables_decay():
    params = {
        "dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "layers": {"norm": {"scale": jnp.ones((3, 2))}, "query_bias": jnp.ones((3, 2, 2))},
        "attention": {"query": jnp.ones((2, 1, 2))},
        "positions": {"table": jnp.ones((4, 2))},
        "class_token": jnp.ones((1, 2)),
        "logit_scale": jnp.ones(()),
    }
    expected = jax.tree.map(lambda _: False, params)
    expected["dense"]["kernel"] = expected["attention"]["query"] = True
    expected["positions"]["table"] = True
    assert decays(params) == expected

    # With a gradient of 0 AdamW moves a parameter by -rate * decay * value, or not at all.
    optimizer = build_optimizer(CONFIG, steps=20)
    state = optimizer.init(params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    for _ in range(2):  # the rate of the first update is 0
        updates, state = optimizer.update(zeros, state, params)
    jax.tree.map(
        lambda update, decay: np.testing.assert_allclose(update, -0.025 * 0.5 * decay, rtol=1e-5),
        updates,
        expected,
    )


def test_a_large_gradient_is_clipped_before_it_reaches_the_moments():
    optimizer = build_optimizer(CONFIG, steps=20)
    params = {"dense": {"kernel": jnp.zeros((2, 2))}}
    _, state = optimizer.update(
        {"dense": {"kernel": jnp.full((2, 2), 100.0)}}, optimizer.init(params), params
    )
    first = optax.tree.get(state, "mu")["dense"]["kernel"]
    np.testing.assert_allclose(jnp.linalg.norm(first), 0.1, rtol=1e-5)  # (1 - b1) * clip_norm
