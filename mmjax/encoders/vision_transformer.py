"""The vision transformer: an image read as a sequence of patches."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float, UInt8

from mmjax.arrays import Array, checked
from mmjax.encoders.fields import check_choice, check_heads, check_rate
from mmjax.encoders.partitioned import dense, parameter
from mmjax.encoders.pixels import scale_pixels
from mmjax.encoders.pooling import AttentionPool, class_pool, mean_pool
from mmjax.encoders.positions import LearnedPositions, sincos_2d
from mmjax.encoders.transformer import Transformer


@checked
def cut_patches(images: Float[Array, "n h w c"], size: int) -> Float[jax.Array, "n p d"]:
    """Cut images into squares, row by row, each flattened as (row, column, channel).

    Args:
        images: height and width a multiple of ``size``.
        size: side of a square, in pixels.

    Returns:
        ``h / size * w / size`` patches of ``size * size * c`` numbers each.

    Raises:
        ValueError: if ``size`` does not divide height and width.

    >>> cut_patches(jnp.arange(8.0).reshape(1, 2, 4, 1), 2).tolist()
    [[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]
    """
    images = jnp.asarray(images)
    n, h, w, c = images.shape
    if h % size or w % size:
        near = [max(size, size * round(side / size)) for side in (h, w)]
        raise ValueError(
            f"height and width must be multiples of patch_size={size}, got {h} x {w}; resize to "
            f"{near[0]} x {near[1]}, for example, or choose a patch_size that divides both"
        )
    grid = images.reshape(n, h // size, size, w // size, size, c)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(n, -1, size * size * c)


@checked
def drop_patches(
    patches: Float[Array, "n p d"], rate: float, *, key: jax.Array
) -> Float[jax.Array, "n kept d"]:
    """Keep a random subset of the patches of each image, of the same size for all of them.

    Args:
        patches: with their positions added, since the subset comes back in random order.
        rate: share left out, from 0 to below 1; at least one patch stays.
        key: random key.

    Returns:
        ``round((1 - rate) * p)`` patches per image, drawn without replacement.

    Source: Li et al. 2023 (FLIP), arXiv:2212.00794, section 3.

    >>> drop_patches(jnp.ones((2, 8, 3)), 0.75, key=jax.random.key(0)).shape
    (2, 2, 3)
    """
    n, p, _ = patches.shape
    kept = max(1, round((1 - rate) * p))
    _, index = jax.lax.top_k(jax.random.uniform(key, (n, p)), kept)
    return jnp.take_along_axis(jnp.asarray(patches), index[:, :, None], axis=1)


class VisionTransformer(nn.Module):
    """Patches, positions, a transformer, one row per image.

    Attributes:
        patch_size: side of a patch, in pixels.
        width: features of a token and of the result.
        depth: number of blocks.
        heads: attention heads; they divide ``width``.
        mlp_ratio: hidden features of a feed-forward layer per feature.
        positions: "sincos", fixed and good for any image size, or "learned", for one size.
        pooling: "class" (a learned token put first), "mean" or "attention" (a learned query).
            A class token makes the length of the sequence odd, which fast kernels dislike.
        patch_dropout: share of the patches left out of each image while training. It makes a step
            cheaper by that share, and never takes the class token.
        dropout: share of the features of each branch of a block set to 0 while training.
        scan_layers: see :class:`~mmjax.encoders.transformer.Transformer`.
        remat: see :class:`~mmjax.encoders.transformer.Transformer`.
        dtype: dtype of the computation; parameters are float32.

    Raises:
        ValueError: while being built, for a field that cannot be.

    Source: Dosovitskiy et al. 2021, arXiv:2010.11929; sin-cos positions and mean pooling as in
    Beyer et al. 2022, arXiv:2205.01580; attention pooling as in Zhai et al. 2022, arXiv:2106.04560.

    >>> tower = VisionTransformer(patch_size=4, width=16, depth=1, heads=2)
    >>> images = jnp.zeros((3, 8, 8, 3), jnp.uint8)
    >>> features, _ = jax.eval_shape(tower.init_with_output, jax.random.key(0), images)
    >>> features.shape
    (3, 16)
    """

    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    positions: str = "sincos"
    pooling: str = "mean"
    patch_dropout: float = 0.0
    dropout: float = 0.0
    scan_layers: bool = True
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        check_choice("positions", self.positions, ("sincos", "learned"))
        check_choice("pooling", self.pooling, ("class", "mean", "attention"))
        check_heads(self.width, self.heads)
        check_rate("patch_dropout", self.patch_dropout)
        check_rate("dropout", self.dropout)
        super().__post_init__()

    @nn.compact
    @checked
    def __call__(
        self, images: UInt8[Array, "n h w c"] | Float[Array, "n h w c"], *, train: bool = False
    ) -> Float[jax.Array, "n {self.width}"]:
        """Encode images.

        Args:
            images: bytes, or floats already scaled to about -1 to 1.
            train: drop patches and features; both draw from the random stream "dropout".

        Returns:
            One row of features per image, before any shared projection.

        Raises:
            ValueError: if the patch size does not divide the image, or learned positions are for
                another image size.
        """
        x = self._embed_patches(images)
        if train and self.patch_dropout > 0:
            x = drop_patches(x, self.patch_dropout, key=self.make_rng("dropout"))
        if self.pooling == "class":
            init = nn.initializers.normal(0.02)
            token = parameter(self, "class_token", init, (1, self.width), (None, "embed"))
            token = jnp.broadcast_to(token.astype(self.dtype), (len(x), 1, self.width))
            x = jnp.concatenate([token, x], axis=1)
        x = Transformer(
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            dropout=self.dropout,
            scan_layers=self.scan_layers,
            remat=self.remat,
            dtype=self.dtype,
            name="transformer",
        )(x, train=train)
        if self.pooling == "attention":
            return AttentionPool(self.heads, self.mlp_ratio, self.dtype, name="pooling")(x)
        return class_pool(x) if self.pooling == "class" else mean_pool(x)

    def _embed_patches(self, images: Array) -> jax.Array:
        patches = cut_patches(scale_pixels(images, dtype=self.dtype), self.patch_size)
        x = dense(self.width, axes=(None, "embed"), dtype=self.dtype, name="patch_embedding")(
            patches
        )
        if self.positions == "learned":
            where = LearnedPositions(patches.shape[1], self.width, name="positions")()
        else:
            rows, columns = (side // self.patch_size for side in images.shape[1:3])
            where = jnp.asarray(sincos_2d(rows, columns, self.width))
        return x + where[None].astype(self.dtype)
