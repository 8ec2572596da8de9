"""Everything that a step changes, and how it is first made."""

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mmjax.training.bad_loss import LossWatch
from mmjax.training.mesh import state_shardings


@flax.struct.dataclass
class TrainState:
    """What a checkpoint holds: with it and the configuration a run goes on bit by bit."""

    step: jax.Array  # updates made so far
    batch: jax.Array  # batches used so far: more than updates where a run was rolled back
    params: Any
    opt_state: Any
    ema: Any | None  # exponential moving average of params, None if the run keeps none
    key: jax.Array  # uint32 key data; the key of a step is this one folded with its number
    watch: LossWatch

    @property
    def eval_params(self) -> Any:
        """The parameters to evaluate: the moving average where there is one."""
        return self.params if self.ema is None else self.ema


def abstract_state(
    model: nn.Module,
    inputs: Any,
    optimizer: optax.GradientTransformation,
    *,
    ema: bool,
    seed: int,
    mesh: Mesh,
) -> tuple[TrainState, Any]:
    """Shapes and shardings of the state, and the function that makes it.

    Args:
        model: a Linen module.
        inputs: abstract or real inputs of the model.
        optimizer: its state mirrors the parameters' shardings.
        ema: whether to keep a moving average.
        seed: of the parameters and of every step's key.
        mesh: the devices.

    Returns:
        The abstract state, whose leaves carry shardings, and ``make() -> TrainState``.
    """

    def boxed() -> TrainState:
        key, init_key = jax.random.split(jax.random.key(seed))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), inputs)
        params = model.init(init_key, zeros)["params"]
        return TrainState(
            step=jnp.int32(0),
            batch=jnp.int32(0),
            params=params,
            opt_state=optimizer.init(params),
            ema=jax.tree.map(jnp.copy, params) if ema else None,
            key=jax.random.key_data(key),
            watch=LossWatch.fresh(),
        )

    abstract = jax.eval_shape(boxed)
    shardings = state_shardings(abstract, mesh)
    shapes = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        nn.unbox(abstract),
        shardings,
    )
    return shapes, jax.jit(lambda: nn.unbox(boxed()), out_shardings=shardings)
