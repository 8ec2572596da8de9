"""Objectives: arrays in, one value per row out; :func:`mmjax.reduction.masked_mean` reduces them.

Every loss takes ``where`` (True = valid row) and ``axis_name`` (rows sharded over that mesh axis).
"""

from mmjax.losses.contrastive import clip_loss, info_nce
from mmjax.losses.sigmoid import siglip_bias_init, siglip_loss

__all__ = ["clip_loss", "info_nce", "siglip_bias_init", "siglip_loss"]
