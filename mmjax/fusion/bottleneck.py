"""Bottleneck tokens: modalities exchange only what a few shared tokens can carry."""

import functools
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.fusion.blocks import LayerNorm, check_at_least, check_fusion_depth, repeated
from mmjax.fusion.modalities import Modalities
from mmjax.fusion.sequences import SequenceFusion
from mmjax.modalities import check_names


@checked
def mean_of_present(
    inputs: Mapping[str, Float[Array, "n *d"]],
    there: Mapping[str, Bool[Array, "n"]],
    otherwise: Float[Array, "n *d"],
) -> Float[jax.Array, "n *d"]:
    r"""Average what the modalities of an example say, whichever it has.

    .. math:: \frac{1}{|V|} \sum_{m \in V} x_m

    Args:
        inputs: per modality, an array per example, such as its bottleneck tokens.
        there: per modality, the examples that have it (:math:`V`, of each example).
        otherwise: the result for an example that has none.

    Returns:
        The mean, in the dtype of ``otherwise``; the sum is float32 or wider.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if the mappings do not name the same modalities.

    Source: Nagrani et al. 2021, arXiv:2107.00135, sec. 3.2 (the update of the bottleneck tokens),
    where every example has every modality.

    >>> x = {"image": jnp.array([1.0, 1.0, 1.0]), "sound": jnp.array([3.0, 3.0, 3.0])}
    >>> have = {"image": jnp.array([True, True, False]), "sound": jnp.array([True, False, False])}
    >>> mean_of_present(x, have, jnp.zeros(3)).tolist()
    [2.0, 1.0, 0.0]
    """
    check_names("inputs", inputs, "there", there)
    terms = [_said(inputs[name], there[name], otherwise) for name in sorted(inputs)]
    total, count = sum(x for x, _ in terms), sum(mask for _, mask in terms)
    mean = (total / jnp.maximum(count, 1)).astype(otherwise.dtype)
    return jnp.where(count > 0, mean, otherwise)


# What is annotated on a mapping is checked of one of its entries only; this checks every one.
@checked
def _said(
    x: Float[Array, "n *d"], there: Bool[Array, "n"], otherwise: Float[Array, "n *d"]
) -> tuple[jax.Array, jax.Array]:
    """What one modality adds to the sum, and to the count."""
    wide = accumulation_dtype(otherwise)
    mask = jnp.asarray(there).reshape(-1, *[1] * (x.ndim - 1))
    return jnp.where(mask, x.astype(wide), 0), mask.astype(wide)


class BottleneckLayer(nn.Module):
    r"""One layer in which each modality sees itself and the bottleneck tokens.

    .. math:: [x_m' ; b_m'] = \mathrm{Block}_m([x_m ; b]), \qquad
              b' = \frac{1}{|V|} \sum_{m \in V} b_m'

    Attributes:
        block: makes a block, given its name.

    Source: Nagrani et al. 2021, arXiv:2107.00135, sec. 3.2.
    """

    block: Callable[..., nn.Module]

    @nn.compact
    def __call__(
        self, state: tuple[dict[str, jax.Array], jax.Array], valid: dict[str, jax.Array]
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """Give the tokens of each modality, and the bottleneck tokens, after the layer."""
        tokens, shared = state
        own, said = {}, {}
        for name, x in tokens.items():
            both = jnp.concatenate([x, shared], axis=1)
            seen = jnp.concatenate([valid[name], jnp.ones(shared.shape[:2], bool)], axis=1)
            after = self.block(name=name)(both, None, seen)
            own[name], said[name] = jnp.split(after, [x.shape[1]], axis=1)
        there = {name: jnp.any(valid[name], axis=1) for name in tokens}
        return own, mean_of_present(said, there, shared)


class BottleneckFusion(SequenceFusion):
    """Transformers of each modality that exchange a few bottleneck tokens from some layer on (MBT).

    A missing modality says nothing to the bottleneck tokens and nothing to the result, and padding
    changes nothing.

    Attributes:
        depth: layers of each modality, at least 1: a class token has nothing to tell otherwise.
        fusion_depth: layers before the first exchange: 0 fuses from the first layer on, ``depth``
            never (the result is then an average of what each modality says alone).
        bottlenecks: number of shared tokens.
        features, heads, kernel_size, mlp_ratio, dropout: see :class:`SequenceFusion`.

    Raises:
        ValueError: while being built, for fields that do not fit each other.

    Source: Nagrani et al. 2021, arXiv:2107.00135, sec. 3.2-3.4. There a classifier reads each
    modality's class token and its logits are averaged; here the class tokens are, which is the
    same for one linear classifier.

    >>> fusion = BottleneckFusion(features=8, heads=2, depth=2, fusion_depth=1)
    >>> x = {"image": jnp.ones((3, 5, 4)), "sound": jnp.ones((3, 9, 6))}
    >>> jax.eval_shape(fusion.init_with_output, jax.random.key(0), x)[0].shape
    (3, 8)
    """

    depth: int = 4
    fusion_depth: int = 2
    bottlenecks: int = 4

    def __post_init__(self):
        check_fusion_depth(self.depth, self.fusion_depth)
        check_at_least(1, depth=self.depth, bottlenecks=self.bottlenecks)
        super().__post_init__()

    def fuse(self, given: Modalities, block: Callable[..., nn.Module]) -> jax.Array:
        """Give the mean of the class tokens of an example's modalities."""
        tokens, valid = {}, {}
        for name, x, seen in given:
            there = jnp.any(seen, axis=1, keepdims=True)
            tokens[name] = jnp.concatenate([self._learned(f"{name}_class", 1, x), x], axis=1)
            valid[name] = jnp.concatenate([there, seen], axis=1)
            tokens[name] = repeated(
                block, self.fusion_depth, f"{name}_alone", tokens[name], None, valid[name]
            )
        if self.fusion_depth < self.depth:
            shared = self._learned("bottleneck", self.bottlenecks, x)
            layer = functools.partial(BottleneckLayer, block)
            count = self.depth - self.fusion_depth
            tokens, _ = repeated(layer, count, "fusion", (tokens, shared), valid)
        said = {name: LayerNorm(name=f"{name}_norm")(x[:, 0]) for name, x in tokens.items()}
        present = {name: seen[:, 0] for name, seen in valid.items()}
        return mean_of_present(said, present, jnp.zeros_like(next(iter(said.values()))))

    def _learned(self, name: str, count: int, like: jax.Array) -> jax.Array:
        """Learned tokens, the same for every example."""
        tokens = self.param(name, nn.initializers.normal(0.02), (1, count, self.features))
        return jnp.broadcast_to(tokens.astype(like.dtype), (len(like), count, self.features))
