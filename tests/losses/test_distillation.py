"""What the divergence from a teacher is worth where it can be worked out by hand."""

import jax
import numpy as np

from mmjax.losses import contrastive_distillation

X, Y, A, B = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)


def test_who_agrees_with_the_teacher_pays_nothing():
    rows = contrastive_distillation(X, Y, X, Y, logit_scale=2.0, teacher_logit_scale=2.0)
    np.testing.assert_allclose(rows, np.zeros(5), atol=1e-6)


def test_it_is_a_divergence_from_the_teacher_and_not_to_it():
    # A teacher that is certain of the partner asks for the cross-entropy of it: that of CLIP.
    certain = np.eye(5, dtype=np.float32)
    rows = contrastive_distillation(
        X, Y, certain, certain, logit_scale=1.0, teacher_logit_scale=1e4
    )
    logits = X @ Y.T
    there, back = (np.logaddexp.reduce(z, axis=1) - np.diag(z) for z in (logits, logits.T))
    np.testing.assert_allclose(rows, (there + back) / 2, rtol=1e-5)


def test_the_teacher_is_not_taught():
    def cost(a, scale):
        scales = {"logit_scale": 1.0, "teacher_logit_scale": scale}
        return contrastive_distillation(X, Y, a, B, **scales).sum()

    slopes = jax.grad(cost, (0, 1))(A, np.float32(2))
    assert not any(np.any(slope) for slope in slopes)
