"""The optimizer of a run: AdamW with warm-up, cosine decay, clipping and a weight-decay mask."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import optax


def learning_rate_schedule(config: Mapping[str, Any], *, steps: int) -> optax.Schedule:
    """Linear warm-up to the peak, then a cosine down to ``final_share`` of it at ``steps``.

    Args:
        config: ``learning_rate`` (peak), ``warmup_steps``, ``final_share``.
        steps: length of the run; one that is shorter than the warm-up ends within it.

    Returns:
        Learning rate as a function of the number of updates made.
    """
    peak, warmup = config["learning_rate"], config["warmup_steps"]
    rise = optax.linear_schedule(0.0, peak, warmup)
    fall = optax.cosine_decay_schedule(peak, max(steps - warmup, 1), config["final_share"])
    return optax.join_schedules([rise, fall], [warmup])


_NO_DECAY = ("bias", "scale", "class_token", "logit")  # parts of parameter names


def decays(params: Any) -> Any:
    """True for matrices and tables; biases, norms, class token and temperature do not decay."""

    def matrix(path: Any, x: jax.Array) -> bool:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return x.ndim > 1 and not any(word in name for word in _NO_DECAY)

    return jax.tree_util.tree_map_with_path(matrix, nn.unbox(params))


def build_optimizer(config: Mapping[str, Any], *, steps: int) -> optax.GradientTransformation:
    """AdamW as the configuration says.

    Args:
        config: the fields of :func:`learning_rate_schedule` and ``b1``, ``b2``, ``eps``,
            ``weight_decay``, ``clip_norm`` (largest global gradient norm; ``inf`` for none).
        steps: length of the run.

    Returns:
        An optax transformation.
    """
    return optax.chain(
        optax.clip_by_global_norm(config["clip_norm"]),
        optax.adamw(
            learning_rate_schedule(config, steps=steps),
            b1=config["b1"],
            b2=config["b2"],
            eps=config["eps"],
            weight_decay=config["weight_decay"],
            mask=decays,
        ),
    )
