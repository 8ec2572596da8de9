"""Dense layers for inputs that are feature vectors already."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float

from mmjax.arrays import Array, checked
from mmjax.encoders.fields import check_rate
from mmjax.encoders.partitioned import dense


class MLP(nn.Module):
    """Hidden layers with GELU, then a linear one.

    Attributes:
        hidden: features of each hidden layer; empty for a linear map.
        features: features of the result.
        dropout: share of the hidden features set to 0 while training.
        dtype: dtype of the computation; parameters are float32.

    Raises:
        ValueError: while being built, if ``dropout`` is no share below 1.

    >>> tower = MLP(hidden=(32,), features=16)
    >>> rows = jnp.ones((3, 7))
    >>> features, _ = jax.eval_shape(tower.init_with_output, jax.random.key(0), rows)
    >>> features.shape
    (3, 16)
    """

    hidden: tuple[int, ...]
    features: int
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        check_rate("dropout", self.dropout)
        super().__post_init__()

    @nn.compact
    @checked
    def __call__(
        self, x: Float[Array, "n d"], *, train: bool = False
    ) -> Float[jax.Array, "n {self.features}"]:
        """Transform rows of features.

        Args:
            x: one row per example.
            train: turn dropout on; it draws from the random stream "dropout".

        Returns:
            One row of ``features`` features per example.
        """
        x = jnp.asarray(x).astype(self.dtype)
        for i, width in enumerate(self.hidden):
            x = dense(width, axes=("embed", "mlp"), dtype=self.dtype, name=f"hidden_{i}")(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.gelu(x))
        axes = ("mlp", "embed") if self.hidden else (None, "embed")
        return dense(self.features, axes=axes, dtype=self.dtype, name="out")(x)
