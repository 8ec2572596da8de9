"""Classification: is the label among the highest scores."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from mmjax.arrays import Array, checked
from mmjax.reduction import masked_mean


@checked
def top_k_accuracy(
    scores: Float[Array, "n c"],
    labels: Int[Array, "n"],
    *,
    k: int = 1,
    where: Bool[Array, "n"] | None = None,
) -> Float[jax.Array, ""]:
    r"""Share of the rows whose label is among the ``k`` highest scores.

    .. math:: \frac{1}{|V|} \sum_{i \in V}
              \Big[\, \big|\{j \ne y_i : s_{ij} \ge s_{i y_i}\}\big| < k \,\Big]

    Ties count against us, so that equal scores for all classes score 0 and not 1. A NaN score never
    wins: the row is a miss if its label's score is NaN, and other classes' NaN are ignored.

    Args:
        scores: one score per class ``c``, higher is likelier, in any unit.
        labels: classes in ``[0, c)``; a row with another label is a miss.
        k: between 1 and the number of classes.
        where: valid rows :math:`V`, all if None.

    Returns:
        A share in [0, 1]; 0 if no row is valid.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``k`` is not between 1 and the number of classes.

    Source: Russakovsky et al. 2015, arXiv:1409.0575, sec. 4.1 (1 minus its flat error), where ties
    are not spoken of.

    >>> print(top_k_accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1])))
    0.5
    """
    scores, classes = jnp.asarray(scores), scores.shape[-1]
    if not 1 <= k <= classes:
        raise ValueError(f"k must be between 1 and the {classes} classes, got {k}")
    # Compared, not indexed: an index out of range would be clamped to a class and could hit.
    own = jnp.asarray(labels).astype(int)[:, None] == jnp.arange(classes)[None]
    right = jnp.sum(jnp.where(own, scores, 0), axis=-1, keepdims=True)
    above = jnp.sum(~own & (scores >= right), axis=-1)
    hit = (above < k) & jnp.any(own, axis=-1) & ~jnp.isnan(right[:, 0])
    return masked_mean(hit.astype(jnp.float32), where)
