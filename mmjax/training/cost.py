r"""Floating-point operations of a model and its loss, from the sizes of the modules alone.

Counted are the products of matrices and convolutions, two operations for each multiplication with
its addition, as is usual for the utilisation of a device (Chowdhery et al. 2022, arXiv:2204.02311,
appendix B): normalisations, softmaxes and activations are left out, a causal attention counts in
full. XLA's own ``cost_analysis`` counts the body of a loop once, and so a scanned stack of layers;
these functions do not depend on how a module is compiled.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from mmjax.encoders import MLP, BagOfWords, ConvNet, TextTransformer, VisionTransformer
from mmjax.models import TwoTower

Shape = tuple[int, ...]


def product(rows: float, inputs: float, outputs: float) -> float:
    """FLOPs of ``[rows, inputs] @ [inputs, outputs]``.

    >>> product(2, 3, 5)
    60.0
    """
    return 2.0 * rows * inputs * outputs


def attention(queries: float, keys: float, width: int) -> float:
    """FLOPs of multi-head attention with its four projections, whatever the number of heads.

    Args:
        queries: tokens that ask.
        keys: tokens that are asked.
        width: features of a token.
    """
    projections = 2 * product(queries, width, width) + 2 * product(keys, width, width)
    return projections + 2 * product(queries, width, keys)


def feed_forward(tokens: float, width: int, ratio: float) -> float:
    """FLOPs of two dense layers with ``ratio * width`` features between them."""
    return 2 * product(tokens, width, round(width * ratio))


def transformer(tokens: float, width: int, depth: int, ratio: float) -> float:
    """FLOPs of a stack of ``depth`` blocks over ``tokens`` tokens of ``width`` features."""
    return depth * (attention(tokens, tokens, width) + feed_forward(tokens, width, ratio))


def attention_pool(tokens: float, width: int, ratio: float) -> float:
    """FLOPs of one learned query over ``tokens`` tokens, and of its feed-forward layer."""
    return attention(1, tokens, width) + feed_forward(1, width, ratio)


@dataclasses.dataclass(frozen=True)
class Forward:
    """FLOPs of one example's forward pass.

    Attributes:
        total: all of it.
        again: what rematerialisation computes once more for the backward pass.
    """

    total: float
    again: float = 0.0


def vision_transformer(tower: VisionTransformer, shape: Shape, *, train: bool = True) -> Forward:
    """FLOPs for an image of ``shape`` (h, w, c), in training with the patches that are kept."""
    height, width, channels = shape
    size, features = tower.patch_size, tower.width
    patches = (height // size) * (width // size)
    embedding = product(patches, size * size * channels, features)
    if train and tower.patch_dropout:
        patches = max(1, round((1 - tower.patch_dropout) * patches))
    tokens = patches + (tower.pooling == "class")
    return _pooled(tower, tokens, embedding)


def text_transformer(tower: TextTransformer, shape: Shape, *, train: bool = True) -> Forward:
    """FLOPs for a text of ``shape`` (tokens,); looking up an embedding is no arithmetic."""
    del train
    (tokens,) = shape
    return _pooled(tower, tokens, 0.0)


def _pooled(tower: VisionTransformer | TextTransformer, tokens: int, embedding: float) -> Forward:
    pools = tower.pooling == "attention"
    pooling = attention_pool(tokens, tower.width, tower.mlp_ratio) if pools else 0.0
    blocks = transformer(tokens, tower.width, tower.depth, tower.mlp_ratio)
    # The last product of a block is only added to what came in: no gradient asks for it.
    last = tower.depth * product(tokens, round(tower.width * tower.mlp_ratio), tower.width)
    return Forward(embedding + blocks + pooling, blocks - last if tower.remat else 0.0)


def convnet(tower: ConvNet, shape: Shape, *, train: bool = True) -> Forward:
    """FLOPs for an image of ``shape`` (h, w, c): 3 x 3 convolutions, padded as if all of it.

    XLA counts no multiplication with padding, and so a little less for small images.
    """
    del train
    height, width, channels = shape
    total = 0.0
    for stage, (features, blocks) in enumerate(zip(tower.widths, tower.blocks, strict=True)):
        height, width = -(-height // 2), -(-width // 2)
        before = tower.widths[stage - 1] if stage else channels
        total += product(height * width, 9 * before, features)
        total += blocks * product(height * width, 9 * features, features)
    return Forward(total + product(1, 2 * tower.widths[-1], tower.features))


def mlp(tower: MLP, shape: Shape, *, train: bool = True) -> Forward:
    """FLOPs for a row of ``shape`` (features,)."""
    del train
    return Forward(_layers(*shape, *tower.hidden, tower.features))


def bag_of_words(tower: BagOfWords, shape: Shape, *, train: bool = True) -> Forward:
    """FLOPs for a text of ``shape`` (tokens,): those of the layers after the mean."""
    del shape, train
    hidden = (tower.width, *tower.hidden, tower.width) if tower.hidden else (tower.width,)
    return Forward(_layers(*hidden))


def _layers(*widths: int) -> float:
    return sum(product(1, a, b) for a, b in itertools.pairwise(widths))


ENCODER_COSTS: Mapping[type[nn.Module], Callable[..., Forward]] = {
    VisionTransformer: vision_transformer,
    TextTransformer: text_transformer,
    ConvNet: convnet,
    MLP: mlp,
    BagOfWords: bag_of_words,
}


def tower(module: nn.Module, shape: Shape, *, train: bool = True) -> Forward:
    """FLOPs of one example in a tower, before the projection.

    Args:
        module: a module of :data:`mmjax.encoders.ENCODERS`.
        shape: of one example, without the axis of the rows.
        train: whether patches are dropped.

    Raises:
        ValueError: for a module whose arithmetic is not known here.
    """
    if type(module) not in ENCODER_COSTS:
        known = ", ".join(kind.__name__ for kind in ENCODER_COSTS)
        raise ValueError(
            f"the FLOPs of {type(module).__name__} are not known, only those of {known}; add a"
            " function to ENCODER_COSTS"
        )
    return ENCODER_COSTS[type(module)](module, shape, train=train)


@dataclasses.dataclass(frozen=True)
class SampleCost:
    """FLOPs of one sample of a training step, all modalities of it.

    ``model`` is what the mathematics asks for, and what a utilisation is measured by; ``computed``
    adds what is computed once more to save memory.

    Attributes:
        towers: forward and backward pass of towers and projections, 3 x forward.
        recomputed: the forward passes of the towers that remat and gradient caching add.
        loss: scores and their gradients, whose products are float32 with float32 embeddings.
        rescored: the scores that the loss computes once more.
    """

    towers: float
    recomputed: float
    loss: float
    rescored: float

    @property
    def model(self) -> float:
        """FLOPs that the update needs."""
        return self.towers + self.loss

    @property
    def computed(self) -> float:
        """FLOPs that are carried out."""
        return self.model + self.recomputed + self.rescored


def contrastive_loss(batch_size: int, embed_dim: int, modalities: int = 2) -> float:
    """FLOPs of a sample's scores in a contrastive loss, of one pass over them.

    A gradient takes two such passes more, one for each side; scores that are not kept, one more.

    Args:
        batch_size: rows over all devices.
        embed_dim: features of a row.
        modalities: every pair of them is scored.
    """
    pairs = modalities * (modalities - 1) // 2
    return pairs * product(1, embed_dim, batch_size)


def sample_cost(
    model: TwoTower,
    shapes: Mapping[str, Shape],
    *,
    batch_size: int,
    micro_batches: int = 1,
    chunk_size: int | None = None,
    ring: bool = False,
) -> SampleCost:
    """FLOPs of one sample of a training step.

    Args:
        model: the towers.
        shapes: per modality, the shape of one example.
        batch_size: rows over all devices.
        micro_batches: parts of a step; more than one embeds everything twice.
        chunk_size: of the loss: scores that come in several chunks are computed twice.
        ring: of the loss, which then computes scores twice too.
    """
    forward = {name: tower(model.towers[name], shape) for name, shape in shapes.items()}
    projections = sum(product(1, _width(model.towers[name]), model.embed_dim) for name in shapes)
    once = sum(cost.total for cost in forward.values()) + projections
    remat = sum(cost.again for cost in forward.values())
    scores = contrastive_loss(batch_size, model.embed_dim, len(shapes))
    again = ring or (chunk_size is not None and chunk_size < batch_size)
    return SampleCost(
        towers=3 * once,
        recomputed=remat + (once if micro_batches > 1 else 0.0),
        loss=3 * scores,
        rescored=scores if again else 0.0,
    )


def _width(module: Any) -> int:
    """Features that a tower gives."""
    return module.features if isinstance(module, ConvNet | MLP) else module.width
