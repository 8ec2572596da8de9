import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mmjax.fusion.attention import modality_attention

N, D = 4, 3
RNG = np.random.default_rng(0)
X = {name: RNG.normal(size=(N, D)) for name in ("text", "image", "sound")}
SCORES = {name: RNG.normal(size=N) for name in X}
WHERE = {"text": [1, 1, 0, 0], "image": [1, 0, 1, 0], "sound": [1, 1, 1, 0]}
WHERE = {name: np.array(have, bool) for name, have in WHERE.items()}


def definition(x, scores):
    """Of one example, given the modalities that it has."""
    odds = {name: np.exp(score) for name, score in scores.items()}
    return sum(odds[name] * x[name] for name in x) / sum(odds.values())


def test_value_and_gradients_are_those_of_the_definition():
    weights, h = RNG.normal(size=(N, D)), 1e-6

    def rows(x, scores):
        have = ([name for name in X if WHERE[name][n]] for n in range(N))
        return np.stack(
            [
                definition({m: x[m][n] for m in names}, {m: scores[m][n] for m in names})
                if names
                else np.zeros(D)
                for n, names in enumerate(have)
            ]
        )

    def weighed(x, scores):
        fused = modality_attention(x, scores, where=WHERE)
        return jnp.sum(fused * weights), fused

    holed = [
        {m: np.where(WHERE[m][(...,) + (None,) * (a[m].ndim - 1)], a[m], np.nan) for m in X}
        for a in (X, SCORES)
    ]
    with jax.enable_x64(True), jax.debug_nans(True):
        found = jax.jit(jax.grad(weighed, (0, 1), has_aux=True))(*holed)
    slopes, fused = jax.tree.map(np.asarray, found)
    np.testing.assert_allclose(fused, rows(X, SCORES), rtol=1e-10)
    for part, given in enumerate((X, SCORES)):
        for name in X:
            step = RNG.normal(size=given[name].shape)
            ends = []
            for end in (h, -h):
                moved = [X, SCORES]
                moved[part] = given | {name: given[name] + end * step}
                ends.append((rows(*moved) * weights).sum())
            want = (ends[0] - ends[1]) / (2 * h)
            np.testing.assert_allclose((slopes[part][name] * step).sum(), want, rtol=1e-6)
            assert not np.any(slopes[part][name][~WHERE[name]])


def test_scores_may_be_of_any_size():
    scores = {"text": np.full(N, 1e30), "image": np.full(N, -1e30), "sound": np.full(N, 1e30)}
    fused = modality_attention(X, scores)
    np.testing.assert_allclose(fused, (X["text"] + X["sound"]) / 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("x", "scores", "error", "message"),
    [
        (X, {"text": SCORES["text"]}, ValueError, "got image, sound, text and text"),
        (X | {"text": X["text"][:, :2]}, SCORES, TypeCheckError, None),
        (X, SCORES | {"text": SCORES["text"][:2]}, TypeCheckError, None),
        ({}, {}, ValueError, "at least one modality"),
    ],
    ids=["names", "width", "scores", "none"],
)
def test_what_does_not_fit_is_refused(x, scores, error, message):
    with pytest.raises(error, match=message):
        jax.eval_shape(functools.partial(modality_attention, x), scores)
