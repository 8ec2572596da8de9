"""Which row is scored against which, and in which precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses.pairs import pair_scores, paired_rows

ROWS = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)


def test_row_i_is_scored_against_column_j_and_its_partner_is_on_the_diagonal():
    x, y = ROWS
    pairs = pair_scores(paired_rows(x, y))
    np.testing.assert_allclose(pairs.scores, np.float64(x) @ np.float64(y).T, rtol=1e-5)
    np.testing.assert_array_equal(pairs.positive, np.eye(3, dtype=bool))


def test_swapped_pairs_score_the_other_way_round():
    rows = paired_rows(*ROWS, np.array([True, False, True]))
    there, back = pair_scores(rows), pair_scores(rows.swapped())
    np.testing.assert_allclose(back.scores, there.scores.T, rtol=1e-6)
    np.testing.assert_array_equal(back.column_valid, there.column_valid)


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
def test_only_bfloat16_products_may_take_the_fast_path_of_an_accelerator(dtypes, precision):
    rows = paired_rows(*(jnp.asarray(z).astype(d) for z, d in zip(ROWS, dtypes, strict=True)))
    assert rows.x.dtype == rows.y.dtype == jnp.float32
    (product,) = (
        equation
        for equation in jax.make_jaxpr(lambda: pair_scores(rows).scores)().eqns
        if equation.primitive.name == "dot_general"
    )
    assert product.params["precision"] == (precision, precision)
