"""Where a token stands: fixed waves over a grid, and learned tables."""

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float

from mmjax.arrays import checked
from mmjax.encoders.partitioned import parameter


@checked
def sincos_2d(
    height: int, width: int, features: int, *, temperature: float = 10_000.0
) -> Float[np.ndarray, "hw {features}"]:
    r"""Fixed positions of the cells of a grid, a quarter of the features for each of four waves.

    .. math::
        [\sin(x \omega), \cos(x \omega), \sin(y \omega), \cos(y \omega)],
        \qquad \omega_k = T^{-k / (K - 1)},\; K = \text{features} / 4

    Args:
        height: rows of the grid, in cells.
        width: columns of the grid, in cells.
        features: size of a position; a multiple of 4, and at least 8.
        temperature: :math:`T`; the longest wave is :math:`2 \pi T` cells.

    Returns:
        One row per cell, row by row as a reshaped image lies; float32, computed in float64.

    Raises:
        ValueError: if ``features`` is no multiple of 4, or less than 8.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5, once per axis as in Chen et al. 2021
    (MoCo v3), arXiv:2104.02057. Waves are grouped by kind, not interleaved.

    >>> sincos_2d(2, 3, 8).shape
    (6, 8)
    """
    if features % 4 or features < 8:
        raise ValueError(
            f"sin-cos positions need a multiple of 4 and at least 8 features, got {features}"
        )
    quarter = features // 4
    omega = temperature ** -(np.arange(quarter) / (quarter - 1))
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    x, y = (axis.reshape(-1, 1) * omega for axis in (columns, rows))
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1, dtype=np.float32)


class LearnedPositions(nn.Module):
    """One learned row for each of ``length`` places.

    Attributes:
        length: places in the table, in tokens or patches.
        width: features of a place.
    """

    length: int
    width: int

    @nn.compact
    @checked
    def __call__(self) -> Float[jax.Array, "{self.length} {self.width}"]:
        """Give the table in float32.

        Raises:
            ValueError: if the parameters hold a table of another length, as they do when an image
                has another size than the one that initialised the tower.
        """
        if self.has_variable("params", "table"):
            learned = nn.unbox(self.get_variable("params", "table")).shape[0]
            if learned != self.length:
                raise ValueError(
                    f"positions were learned for {learned} places, got {self.length}; give inputs "
                    'of the size seen at initialisation, or use positions="sincos"'
                )
        init = nn.initializers.normal(0.02)
        return parameter(self, "table", init, (self.length, self.width), (None, "embed"))
