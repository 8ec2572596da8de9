"""What happens when a loss is no number, or jumps: stop, skip the update, or roll back.

The judgement is part of the compiled step and of the state that a checkpoint holds, so that a run
that is interrupted judges as one that is not.
"""

from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

POLICIES = ("stop", "skip", "rollback")
WINDOW = 128  # good losses that the running median is taken over; judged from half of them on


class BadLoss(FloatingPointError):
    """A loss or gradient that is no number, or a spike; the message says what was done."""


@flax.struct.dataclass
class LossWatch:
    """What the judgement of the next loss needs."""

    recent: jax.Array  # float32 [WINDOW], the last good losses; +inf where there is none yet
    in_a_row: jax.Array  # int32, bad steps since the last good one
    total: jax.Array  # int32, bad steps in all

    @classmethod
    def fresh(cls) -> "LossWatch":
        """Nothing seen."""
        recent = jnp.full(WINDOW, jnp.inf, jnp.float32)
        return cls(recent=recent, in_a_row=jnp.int32(0), total=jnp.int32(0))


def judge(
    watch: LossWatch, loss: jax.Array, grad_norm: jax.Array, *, spike: float | None
) -> tuple[jax.Array, LossWatch]:
    """Is this step bad?

    Args:
        watch: of the steps before.
        loss: float32 [], nats, at least 0.
        grad_norm: float32 [].
        spike: a loss above this multiple of the median of the last good ones is bad too; None
            leaves only those that are not finite.

    Returns:
        bool [], and the watch after this step.
    """
    bad = ~(jnp.isfinite(loss) & jnp.isfinite(grad_norm))
    if spike is not None:  # The median is +inf until half of the window is filled.
        bad |= loss > spike * jnp.median(watch.recent)
    recent = jnp.where(bad, watch.recent, jnp.append(watch.recent[1:], loss))
    in_a_row = jnp.where(bad, watch.in_a_row + 1, 0)
    total = watch.total + bad.astype(jnp.int32)
    return bad, LossWatch(recent=recent, in_a_row=in_a_row, total=total)


def without_update(bad: jax.Array, old: Any, new: Any) -> Any:
    """``old`` where the step is bad, else ``new``; the learning rate's clock goes on either way.

    Args:
        bad: bool [].
        old: parameters, or the state of the optimizer, before the update.
        new: the same after it.

    Returns:
        A tree like them.
    """

    def is_clock(x: Any) -> bool:
        return isinstance(x, optax.ScaleByScheduleState)

    def choose(before: Any, after: Any) -> Any:
        return after if is_clock(before) else jnp.where(bad, before, after)

    return jax.tree.map(choose, old, new, is_leaf=is_clock)


def check_policy(config: Mapping[str, Any]) -> None:
    """Raise ValueError if ``bad_loss`` of a configuration cannot work."""
    if config["policy"] not in POLICIES:
        raise ValueError(
            f"bad_loss.policy must be one of {', '.join(POLICIES)}, got {config['policy']!r}"
        )
    if config["spike"] is not None and config["spike"] <= 1:
        raise ValueError(
            f"bad_loss.spike is a multiple of the median loss, above 1, got {config['spike']}"
        )
    if config["limit"] < 1:
        raise ValueError(f"bad_loss.limit must be at least 1, got {config['limit']}")
