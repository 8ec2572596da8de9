"""One update: jitted, donated, with its metrics."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mmjax.training.objective import contrastive_objective
from mmjax.training.state import TrainState

Step = Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    loss: str,
    ema_decay: float | None,
    shardings: TrainState,
) -> Step:
    """The function of one update.

    Args:
        model: a two-tower module.
        optimizer: its transformation.
        schedule: the learning rate, for the metrics.
        loss: a key of :data:`mmjax.training.objective.LOSSES`.
        ema_decay: decay of the moving average, warmed up as ``min(decay, (1 + t) / (10 + t))``.
        shardings: of the state, kept from step to step.

    Returns:
        ``step(state, batch) -> state, metrics``; it consumes ``state``. The metrics are float32
        scalars: ``loss`` (nats), ``grad_norm``, ``learning_rate``, ``logit_scale``,
        ``logit_bias``.
    """

    def update(
        state: TrainState, batch: Mapping[str, Any]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)

        def cost(params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            outputs: Any = model.apply(
                {"params": params}, batch["inputs"], train=True, rngs={"dropout": key}
            )
            scalars = {name: outputs[name] for name in ("logit_scale", "logit_bias")}
            return contrastive_objective(outputs, batch["where"], loss=loss), scalars

        (value, scalars), grads = jax.value_and_grad(cost, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema_decay is not None:
            decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
            ema = optax.incremental_update(params, ema, 1.0 - decay)
        metrics = {
            "loss": value,
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": schedule(state.step),
            **scalars,
        }
        new = dataclasses.replace(
            state, step=state.step + 1, params=params, opt_state=opt_state, ema=ema
        )
        return new, metrics

    return jax.jit(update, donate_argnums=0, out_shardings=(shardings, None))
