"""One update: jitted, donated, with its metrics."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mmjax.training.bad_loss import judge, without_update
from mmjax.training.distinct import without_duplicates
from mmjax.training.gradient_cache import cached_value_and_grad
from mmjax.training.mesh import vmap_rows
from mmjax.training.state import TrainState

Step = Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    objective: Callable[[Mapping[str, Any], Mapping[str, Any]], jax.Array],
    micro_batches: int,
    ema_decay: float | None,
    bad_loss: Mapping[str, Any],
    shardings: TrainState,
    mesh: Mesh,
) -> Step:
    """The function of one update.

    Args:
        model: a two-tower module.
        optimizer: its transformation.
        schedule: the learning rate, for the metrics.
        objective: ``objective(outputs, where)``, the loss of a batch, with the rest of
            :func:`mmjax.training.objective.contrastive_objective` bound.
        micro_batches: parts that a batch is embedded in, one after the other, see
            :func:`mmjax.training.gradient_cache.cached_value_and_grad`. The update is that of the
            whole batch whatever their number.
        ema_decay: decay of the moving average, warmed up as ``min(decay, (1 + t) / (10 + t))``.
        bad_loss: ``policy`` and ``spike``, see :mod:`mmjax.training.bad_loss`. Only "skip" is done
            here; for the others the caller looks at the metrics.
        shardings: of the state, kept from step to step.
        mesh: the devices, whose rows are those of the batch.

    Returns:
        ``step(state, batch) -> state, metrics``; it consumes ``state``. The metrics are scalars:
        ``loss`` (nats), ``grad_norm``, ``learning_rate``, ``logit_scale``, ``logit_bias``,
        ``bad_in_a_row`` (steps, this one included) and ``batch`` (batches used so far); with
        "skip" also ``skipped`` (updates not made), with "rollback" ``passed_over`` (batches not
        learned from); for a batch with ``group`` also ``duplicates``, see
        :func:`mmjax.training.distinct.without_duplicates`.
    """
    policy, spike = bad_loss["policy"], bad_loss["spike"]

    def embed(params: Any, rows: Mapping[str, Any], keys: jax.Array) -> dict[str, Any]:
        return embed_rows(model, params, rows["inputs"], keys, mesh=mesh)

    def cost(outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> jax.Array:
        return objective(outputs, batch["where"])

    value_and_grad = cached_value_and_grad(embed, cost, micro_batches=micro_batches)

    def update(
        state: TrainState, batch: Mapping[str, Any]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        batch, duplicates = without_duplicates(batch)
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        (value, outputs), grads = value_and_grad(state.params, batch, key)
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
            **{name: outputs[name] for name in ("logit_scale", "logit_bias")},
            **duplicates,
        }
        bad, watch = judge(state.watch, value, metrics["grad_norm"], spike=spike)
        learned = (params, opt_state, ema)
        if policy == "skip":
            learned = without_update(bad, (state.params, state.opt_state, state.ema), learned)
        params, opt_state, ema = learned
        new = TrainState(
            step=state.step + 1,
            batch=state.batch + 1,
            params=params,
            opt_state=opt_state,
            ema=ema,
            key=state.key,
            watch=watch,
        )
        return new, metrics | _counts(new, policy)

    return jax.jit(update, donate_argnums=0, out_shardings=(shardings, None))


def _counts(state: TrainState, policy: str) -> dict[str, jax.Array]:
    """What the run has to know of a step besides its loss."""
    counts = {"bad_in_a_row": state.watch.in_a_row, "batch": state.batch}
    if policy == "skip":
        counts["skipped"] = state.watch.total
    if policy == "rollback":
        counts["passed_over"] = state.batch - state.step
    return counts


def embed_rows(
    model: nn.Module, params: Any, inputs: Mapping[str, Any], keys: jax.Array, *, mesh: Mesh
) -> dict[str, Any]:
    """Outputs of a two-tower module in training, the noise of every row drawn from its own key.

    The model sees one row at a time, under ``jax.vmap``; compiled, its products are those of a
    batch, and a step takes no longer. See :func:`mmjax.training.mesh.vmap_rows`.

    Args:
        model: a :class:`mmjax.models.TwoTower`.
        params: its parameters.
        inputs: per modality, rows.
        keys: one random key per row, see :func:`mmjax.training.gradient_cache.row_keys`.
        mesh: the devices.

    Returns:
        What the model returns for these rows.
    """

    def embed(row: Mapping[str, Any], key: jax.Array) -> dict[str, Any]:
        one = jax.tree.map(lambda x: x[None], row)
        outputs: Any = model.apply({"params": params}, one, train=True, rngs={"dropout": key})
        return outputs | {"embeddings": jax.tree.map(lambda x: x[0], outputs["embeddings"])}

    out_axes = {"embeddings": 0, "logit_scale": None, "logit_bias": None}
    return vmap_rows(embed, mesh, out_axes=out_axes)(inputs, keys)
