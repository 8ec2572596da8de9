"""Learning from a teacher: agree with it on what resembles what."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, AxisName, Scalar, accumulation_dtype, as_scalar, checked
from mmjax.losses.blocks import CHUNK_SIZE, Layout
from mmjax.losses.pairs import Matrices, Side, Teacher, all_bfloat16, masked_rows, valid_mask
from mmjax.losses.scoring import Known, Plan, fold_scores
from mmjax.losses.statistics import Competition, Softmax


@checked
def contrastive_distillation(
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    teacher_x: Float[Array, "n e"],
    teacher_y: Float[Array, "n e"],
    *,
    logit_scale: Scalar,
    teacher_logit_scale: Scalar,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
    chunk_size: int | None = CHUNK_SIZE,
    ring: bool = False,
) -> Float[jax.Array, "n"]:
    r"""Divergence from the teacher's distribution over partners, averaged over both directions.

    .. math:: \ell_i = \tfrac12 \mathrm{KL}\big(\sigma_j(\hat s\, \hat x_i \cdot \hat y_j) \,\|\,
                       \sigma_j(s\, x_i \cdot y_j)\big)
                     + \tfrac12 \mathrm{KL}\big(\sigma_j(\hat s\, \hat x_j \cdot \hat y_i) \,\|\,
                       \sigma_j(s\, x_j \cdot y_i)\big)

    with the softmax :math:`\sigma_j` over valid rows. The teacher's distributions are made block by
    block like the scores, and never held. Two neighbours of it need no function of their own:
    comparing student rows with the teacher's rows of the other modality is
    :func:`mmjax.losses.info_nce`, imitating the rows themselves
    :func:`mmjax.losses.mean_squared_alignment`. Of several teachers average the losses; with data
    that was stored with a teacher's rows, mix it with :func:`mmjax.losses.clip_loss` as
    :math:`(1 - \lambda) \ell_{\text{CLIP}} + \lambda \ell`.

    Exact where :func:`mmjax.losses.info_nce` is, and under the same condition on gradients taken
    with ``check_vma=False`` or ``pmap``.

    Args:
        x: the student's unit-norm rows; ``x[i]`` is paired with ``y[i]``.
        y: the student's unit-norm rows of the other modality.
        teacher_x: the teacher's unit-norm rows, constants, of any number of features.
        teacher_y: the teacher's unit-norm rows of the other modality, constants.
        logit_scale: the student's multiplier :math:`s > 0` itself, not its logarithm.
        teacher_logit_scale: the teacher's multiplier :math:`\hat s > 0`, a constant.
        where: valid rows, all if None. An invalid row takes no part; its loss and gradient are 0
            even where it holds NaN, on either side.
        axis_name: mesh axis or axes that shard the rows; the softmax spans every shard.
        chunk_size: rows that are scored together; see :func:`mmjax.losses.info_nce`.
        ring: hand rows round from shard to shard; see :func:`mmjax.losses.info_nce`.

    Returns:
        One divergence per row, in nats, float32.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy scale is not positive and finite, for a ``chunk_size``
            below 1, or a ``ring`` without ``axis_name``.

    Source: Vasu et al. 2024 (MobileCLIP, reinforced data), arXiv:2311.17049, the distillation
    term of its training loss; contrastive relational distillation of Yang et al. 2024 (CLIP-KD),
    arXiv:2307.12732.

    >>> x, y = jnp.eye(2), jnp.eye(2)[::-1]
    >>> same, other = (
    ...     contrastive_distillation(x, x, x, z, logit_scale=1.0, teacher_logit_scale=1.0)
    ...     for z in (x, y)
    ... )
    >>> print(f"{same.sum():.3f} {other.sum():.3f}")
    0.000 0.924
    """
    layout = Layout(axis_name, chunk_size, ring)
    valid = valid_mask(where, x, y, teacher_x, teacher_y)
    plan = Plan(Competition(), layout, all_bfloat16(x, y))
    x, y = masked_rows(x, valid), masked_rows(y, valid)
    dtype = accumulation_dtype(x, y)
    scale = as_scalar("logit_scale", logit_scale, dtype=dtype, positive=True)
    teacher_dtype = accumulation_dtype(teacher_x, teacher_y)
    teacher_scale = jax.lax.stop_gradient(
        as_scalar("teacher_logit_scale", teacher_logit_scale, dtype=teacher_dtype, positive=True)
    )
    seen = tuple(
        jax.lax.stop_gradient(masked_rows(z, valid)).astype(teacher_dtype)
        for z in (teacher_x, teacher_y)
    )
    teaching = Plan(Competition(), layout, bfloat16=False)  # its rows are multiplied by its scale

    def direction(x: jax.Array, y: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        rows = teacher_scale * a
        alone = Known(Side(valid), Side(valid), Matrices())
        taught, _ = fold_scores(teaching, rows, b, alone, scale=jnp.ones((), teacher_dtype))
        partition = jnp.where(valid, taught.log_partition, 0)
        known = Known(
            Side(valid, teacher=Teacher(rows, partition)),
            Side(valid, teacher=Teacher(b, partition)),
            Matrices(),
        )
        teacher, _ = fold_scores(teaching, rows, b, known, scale=jnp.ones((), teacher_dtype))
        student, _ = fold_scores(plan, x, y, known, scale=scale)
        return _surprise(student) - _surprise(teacher).astype(dtype)

    there, back = direction(x, y, *seen), direction(y, x, *seen[::-1])
    return jnp.where(valid, (there + back) / 2, 0)


def _surprise(found: Softmax) -> jax.Array:
    """Cross-entropy of the target under the softmax, per unit of its mass."""
    mass = jnp.where(found.mass > 0, found.mass, 1)
    return found.log_sum + (found.peak - found.target / mass)
