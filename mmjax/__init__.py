"""Multimodal representation learning in JAX and Flax: pure functions first.

Import the rooms one by one (``from mmjax.losses import clip_loss``): this module imports nothing,
so that a user of one loss pays for nothing else.
"""

__version__ = "0.1.0"
