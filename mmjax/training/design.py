"""What a configuration says about the training itself: all of a run but its data."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax.sharding import Mesh, NamedSharding

from mmjax.models import TwoTower, build_two_tower
from mmjax.training.bad_loss import check_policy
from mmjax.training.cost import SampleCost, sample_cost
from mmjax.training.gradient_cache import check_micro_batches
from mmjax.training.mesh import BATCH, check_batch_size, make_mesh
from mmjax.training.objective import LOSSES, contrastive_objective
from mmjax.training.optimizer import build_optimizer, learning_rate_schedule
from mmjax.training.state import TrainState, abstract_state
from mmjax.training.step import Step, make_train_step
from mmjax.training.trace import check_profile_steps


@dataclasses.dataclass(frozen=True)
class Design:
    """Model, optimizer, devices and shapes. Made by :func:`build_design`, which touches no data.

    Attributes:
        config: the configuration.
        mesh: the devices.
        model: the two-tower module.
        inputs: shape and dtype of one row of each modality, with a leading 1.
        optimizer: the transformation of a step.
        schedule: learning rate by update.
        abstract: shapes and shardings of the state.
        make_state: makes the state of step 0.
    """

    config: ml_collections.ConfigDict
    mesh: Mesh
    model: TwoTower
    inputs: dict[str, jax.ShapeDtypeStruct]
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    abstract: TrainState
    make_state: Callable[[], TrainState]

    def train_step(self) -> Step:
        """The compiled update, see :func:`mmjax.training.step.make_train_step`."""
        return make_train_step(
            self.model,
            self.optimizer,
            self.schedule,
            objective=functools.partial(
                contrastive_objective,
                loss=self.config.loss,
                mesh=self.mesh,
                chunk_size=self.config.loss_chunk_size,
                ring=self.config.loss_ring,
            ),
            micro_batches=self.config.micro_batches,
            ema_decay=self.config.ema_decay,
            bad_loss=self.config.bad_loss,
            shardings=jax.tree.map(lambda x: x.sharding, self.abstract),
            mesh=self.mesh,
        )

    def cost(self) -> SampleCost:
        """FLOPs of a sample, see :func:`mmjax.training.cost.sample_cost`."""
        return sample_cost(
            self.model,
            {name: x.shape[1:] for name, x in self.inputs.items()},
            batch_size=self.config.batch_size,
            micro_batches=self.config.micro_batches,
            chunk_size=self.config.loss_chunk_size,
            ring=self.config.loss_ring,
        )

    def abstract_batch(self) -> dict[str, Any]:
        """Shapes and shardings of the batch that a step takes."""
        rows, sharding = self.config.batch_size, NamedSharding(self.mesh, BATCH)

        def of_rows(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=sharding)

        batch: dict[str, Any] = {
            "inputs": {name: of_rows(x.shape[1:], x.dtype) for name, x in self.inputs.items()},
            "where": {name: of_rows((), jnp.bool_) for name in self.inputs},
        }
        return (
            batch
            if self.config.data.distinct is None
            else batch | {"group": of_rows((), jnp.int32)}
        )


def build_design(
    config: ml_collections.ConfigDict,
    *,
    vocab_size: int,
    devices: Sequence[Any] | None = None,
) -> Design:
    """Turn a configuration into everything but data.

    Args:
        config: as the files in ``configs/`` return it.
        vocab_size: the tokenizer's, for towers that do not give their own.
        devices: those of all processes if None, see :func:`mmjax.training.mesh.make_mesh`.

    Returns:
        The design, with no parameters yet.

    Raises:
        ValueError: if the configuration cannot work; says which field and what would.
    """
    mesh = checked_mesh(config, devices)
    model = build_two_tower(
        config.model.to_dict(), batch_size=config.batch_size, vocab_size=vocab_size
    )
    size, channels = config.data.image.size, config.data.image.channels
    inputs = {
        "image": jax.ShapeDtypeStruct((1, size, size, channels), jnp.uint8),
        "text": jax.ShapeDtypeStruct((1, config.data.text.length), jnp.int32),
    }
    for name, shape in config.data.arrays.items():
        inputs[name] = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    if set(model.towers) != set(inputs):
        raise ValueError(
            f"a run trains the towers {', '.join(inputs)} (image, text and data.arrays), got "
            f"{', '.join(model.towers)}"
        )
    optimizer = build_optimizer(config.optimizer, steps=config.steps)
    abstract, make_state = abstract_state(
        model,
        inputs,
        optimizer,
        ema=config.ema_decay is not None,
        seed=config.seed,
        mesh=mesh,
    )
    return Design(
        config=config,
        mesh=mesh,
        model=model,
        inputs=inputs,
        optimizer=optimizer,
        schedule=learning_rate_schedule(config.optimizer, steps=config.steps),
        abstract=abstract,
        make_state=make_state,
    )


def checked_mesh(config: ml_collections.ConfigDict, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of a configuration, which goes with what else it says.

    Raises:
        ValueError: if the mesh cannot be, or a field does not go with it or has no such value.
    """
    if config.steps < 1:
        raise ValueError(f"steps must be at least 1, got {config.steps}")
    if config.loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {config.loss!r}")
    if config.loss_chunk_size < 1:
        raise ValueError(f"loss_chunk_size must be at least 1, got {config.loss_chunk_size}")
    check_policy(config.bad_loss)
    check_profile_steps(config.profile_steps)
    mesh = make_mesh(config.mesh.to_dict(), devices)
    check_batch_size(config.batch_size, mesh)
    check_micro_batches(config.micro_batches, config.batch_size, mesh)
    return mesh
