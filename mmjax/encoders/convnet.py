"""A small residual convnet for tiny images, fast on a CPU."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float, UInt8

from mmjax.arrays import Array, checked
from mmjax.encoders.fields import check_rate
from mmjax.encoders.partitioned import dense, named
from mmjax.encoders.pixels import scale_pixels

_GROUP = 16  # channels normalised together
_CONV = named(
    nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal"),
    (None, None, "conv_in", "conv_out"),
)


@checked
def mean_and_max(x: Float[Array, "n h w c"]) -> Float[jax.Array, "n 2*c"]:
    """Pool an image: how much of each feature there is, then whether it is there at all.

    The gradient of a maximum goes to its first place, and not in equal parts to all places that
    equal it, as that of ``jnp.max`` does: when XLA computes the activations once more for the
    backward pass and rounds them otherwise, no place equals the maximum, and ``jnp.max`` divides
    by that count.

    Args:
        x: a grid of features per image.

    Returns:
        The c averages, summed in float32, then the c maxima, in the dtype of ``x``.

    >>> mean_and_max(jnp.array([0.0, 1.0, 1.0, 2.0]).reshape(1, 2, 2, 1)).tolist()
    [[1.0, 2.0]]
    """
    x = jnp.asarray(x)
    cells = x.reshape(len(x), -1, x.shape[-1])
    mean = jnp.mean(cells, axis=1, dtype=jnp.float32).astype(x.dtype)
    first = jnp.argmax(cells, axis=1, keepdims=True)
    largest = jax.lax.broadcasted_iota(first.dtype, cells.shape, 1) == first
    return jnp.concatenate([mean, jnp.sum(jnp.where(largest, cells, 0), axis=1)], axis=1)


class ConvNet(nn.Module):
    """A stem, stages that halve the image, residual blocks, average and maximum over the image.

    The stem halves the image, and each stage after the first halves it again: images of 32 pixels
    come to 4 with three stages. Group normalisation keeps no statistics of the batch, so that an
    example's features do not depend on its neighbours and the tower has parameters only.

    Attributes:
        features: features of the result.
        widths: channels of each stage; multiples of 16.
        blocks: residual blocks of each stage, of one 3 x 3 convolution each.
        dropout: share of the pooled features set to 0 while training.
        dtype: dtype of the computation; parameters are float32.

    Raises:
        ValueError: while being built, for a field that cannot be.

    Source: He et al. 2016, arXiv:1603.05027 (normalisation and activation before the convolution),
    with one convolution per block instead of two, and Wu and He 2018, arXiv:1803.08494.

    >>> tower = ConvNet(features=24, widths=(16, 32), blocks=(0, 1))
    >>> images = jnp.zeros((3, 8, 8, 1), jnp.uint8)
    >>> features, _ = jax.eval_shape(tower.init_with_output, jax.random.key(0), images)
    >>> features.shape
    (3, 24)
    """

    features: int = 256
    widths: tuple[int, ...] = (32, 64, 128)
    blocks: tuple[int, ...] = (0, 0, 1)
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        if not self.widths or any(width < 1 or width % _GROUP for width in self.widths):
            raise ValueError(
                f"widths must be multiples of {_GROUP}, one per stage, got {tuple(self.widths)}"
            )
        if len(self.blocks) != len(self.widths) or any(count < 0 for count in self.blocks):
            raise ValueError(
                f"blocks must be one count per stage of widths={tuple(self.widths)}, "
                f"got {tuple(self.blocks)}"
            )
        check_rate("dropout", self.dropout)
        super().__post_init__()

    @nn.compact
    @checked
    def __call__(
        self, images: UInt8[Array, "n h w c"] | Float[Array, "n h w c"], *, train: bool = False
    ) -> Float[jax.Array, "n {self.features}"]:
        """Encode images.

        Args:
            images: bytes, or floats already scaled to about -1 to 1; any height and width.
            train: turn dropout on; it draws from the random stream "dropout".

        Returns:
            One row of features per image, before any shared projection.
        """
        x = scale_pixels(images, dtype=self.dtype)
        x = self._conv(self.widths[0], "stem", stride=2)(x)
        for i, (width, count) in enumerate(zip(self.widths, self.blocks, strict=True)):
            if i:
                x = self._norm_relu(x, f"stage_{i}_norm")
                x = self._conv(width, f"stage_{i}_conv", stride=2)(x)
            for j in range(count):
                name = f"stage_{i}_block_{j}"
                x = x + self._conv(width, f"{name}_conv")(self._norm_relu(x, f"{name}_norm"))
        x = self._norm_relu(x, "final_norm")
        x = mean_and_max(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return dense(self.features, axes=("conv_out", "embed"), dtype=self.dtype, name="out")(x)

    def _conv(self, width: int, name: str, stride: int = 1) -> nn.Conv:
        return nn.Conv(
            width, (3, 3), stride, kernel_init=_CONV, use_bias=False, dtype=self.dtype, name=name
        )

    def _norm_relu(self, x: jax.Array, name: str) -> jax.Array:
        norm = nn.GroupNorm(
            num_groups=None,
            group_size=_GROUP,
            epsilon=1e-5,
            scale_init=named(nn.initializers.ones, ("conv_out",)),
            bias_init=named(nn.initializers.zeros, ("conv_out",)),
            name=name,
        )
        # Flax would mix the dtypes of input and statistics, which strict promotion refuses.
        return nn.relu(norm(x.astype(jnp.float32)).astype(self.dtype))
