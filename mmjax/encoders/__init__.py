"""Towers: Flax Linen modules from one modality to one row of features per example."""

from mmjax.encoders.bag_of_words import BagOfWords
from mmjax.encoders.convnet import ConvNet
from mmjax.encoders.mlp import MLP
from mmjax.encoders.text_transformer import TextTransformer
from mmjax.encoders.vision_transformer import VisionTransformer

#: What a configuration may name. Each one takes a batch and ``train``, and gives ``[n, width]``.
ENCODERS = {
    "vision_transformer": VisionTransformer,
    "convnet": ConvNet,
    "text_transformer": TextTransformer,
    "bag_of_words": BagOfWords,
    "mlp": MLP,
}

__all__ = [
    "ENCODERS",
    "MLP",
    "BagOfWords",
    "ConvNet",
    "TextTransformer",
    "VisionTransformer",
]
