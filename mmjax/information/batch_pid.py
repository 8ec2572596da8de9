"""The partial information decomposition of continuous sources, by networks and in batches.

The union information is a minimum over joint distributions with given pairs. Here such a
distribution is a table over all pairs of rows of a batch and all classes: networks score it, and
rows and columns are rescaled until they have the marginals that classifiers of either source say.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Integer

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.information.aligned import aligned_joint
from mmjax.information.codes import as_codes
from mmjax.information.perceptrons import Networks, perceptron
from mmjax.information.units import in_unit


class BatchPID(NamedTuple):
    """An estimate of a partial information decomposition.

    Attributes:
        redundancy: what either source says of the target by itself; estimated too low, by as much
            as the alignment falls short of the best.
        unique_1: what only the first source says of it; too high by as much.
        unique_2: what only the second source says of it; too high by as much.
        synergy: what only both together say of it; too low by as much.
        infeasibility: sum of the absolute errors of the marginals of the alignment.
    """

    redundancy: Float[jax.Array, ""]
    unique_1: Float[jax.Array, ""]
    unique_2: Float[jax.Array, ""]
    synergy: Float[jax.Array, ""]
    infeasibility: Float[jax.Array, ""]


@runtime_checkable
class Optimizer(Protocol):
    """What is asked of an optimizer: an ``optax.GradientTransformation`` is one."""

    init: Any
    update: Any


@checked
def batch_pid(
    networks: Networks,
    x1: Float[Array, "n d1"],
    x2: Float[Array, "n d2"],
    *,
    unit: str = "nats",
    iterations: int = 50,
    where: Bool[Array, "n"] | None = None,
) -> BatchPID:
    r"""Decomposition of what paired rows say of a target, as trained networks see it.

    The informations are those of the posteriors: :math:`I_1` of the marginal of the first source
    in :func:`aligned_joint`, :math:`I_2` likewise, :math:`I_\cup` of the whole joint distribution
    and :math:`I_{12} = H(\bar p) - \overline{H(p(\cdot \mid x_1, x_2))}`.

    Args:
        networks: from :func:`fit_batch_pid`.
        x1: rows of the first source, best not those of the training: classifiers are too sure of
            these.
        x2: rows of the second source; ``x2[i]`` is paired with ``x1[i]``.
        unit: "nats" or "bits".
        iterations: of rescaling, see :func:`aligned_joint`.
        where: valid rows, all if None. An invalid row counts nowhere; its gradient is 0 even where
            it holds NaN.

    Returns:
        The estimate. All parts are 0 if no row is valid.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for another unit, if ``iterations`` is below 1, or if the networks are of other
            numbers of features.

    Source: Liang et al. 2023, arXiv:2302.12247, sec. 3.2.

    >>> from mmjax.information import init_batch_pid
    >>> networks = init_batch_pid(jax.random.key(0), sizes=(3, 4), classes=2)
    >>> parts = batch_pid(networks, jnp.zeros((5, 3)), jnp.zeros((5, 4)))  # nothing is said
    >>> print(f"{abs(parts.redundancy):.4f} {abs(parts.synergy):.4f}")
    0.0000 0.0000
    """
    logits, joint, wrong = _seen(networks, x1, x2, iterations=iterations, where=where)
    valid = jnp.ones(len(x1), bool) if where is None else jnp.asarray(where)
    count = jnp.maximum(jnp.sum(valid, dtype=joint.dtype), 1)
    both = jnp.where(valid[:, None], jax.nn.softmax(logits[2]) / count, 0)
    n = len(valid)
    first, second, union, together = (
        in_unit(_information(table), unit)
        for table in (
            jnp.sum(joint, axis=1),
            jnp.sum(joint, axis=0),
            joint.reshape(n * n, joint.shape[-1]),
            both,
        )
    )
    return BatchPID(
        redundancy=first + second - union,
        unique_1=union - second,
        unique_2=union - first,
        synergy=together - union,
        infeasibility=wrong,
    )


@checked
def batch_pid_loss(
    networks: Networks,
    x1: Float[Array, "n d1"],
    x2: Float[Array, "n d2"],
    labels: Integer[Array, "n"],
    *,
    iterations: int = 50,
    where: Bool[Array, "n"] | None = None,
) -> Float[jax.Array, ""]:
    r"""What the networks are trained on: three cross-entropies and the information of the joint.

    .. math:: \ell = \sum_{c \in \{1, 2, 12\}} \frac{1}{|V|} \sum_{i \in V} - \log p_c(y_i \mid x_i)
              + I_q(X_1, X_2; Y)

    Only the two networks whose outputs are matched have a gradient from the last term.

    Args:
        networks: parameters.
        x1: rows of the first source.
        x2: rows of the second source; ``x2[i]`` is paired with ``x1[i]``.
        labels: classes, from 0; a row with another label adds nothing to the cross-entropies.
        iterations: of rescaling, see :func:`aligned_joint`.
        where: valid rows :math:`V`, all if None. An invalid row counts nowhere; its gradient is 0
            even where it holds NaN.

    Returns:
        The loss of the batch, nats.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``iterations`` is below 1, or the networks are of other numbers of features.

    Source: Liang et al. 2023, arXiv:2302.12247, sec. 3.2, where the classifiers are trained first;
    as they get no gradient from the rest, it is the same.

    >>> from mmjax.information import init_batch_pid
    >>> networks = init_batch_pid(jax.random.key(0), sizes=(3, 4), classes=2)
    >>> x1, x2, labels = jnp.zeros((5, 3)), jnp.zeros((5, 4)), jnp.array([0, 1, 0, 1, 1])
    >>> print(f"{batch_pid_loss(networks, x1, x2, labels):.4f}")  # 3 log 2
    2.0794
    """
    logits, joint, _ = _seen(networks, x1, x2, iterations=iterations, where=where)
    valid = jnp.ones(len(x1), bool) if where is None else jnp.asarray(where)
    own = as_codes(labels)[:, None] == jnp.arange(joint.shape[-1], dtype=jnp.int32)[None]
    own &= valid[:, None]
    costs = [-jnp.sum(jax.nn.log_softmax(row), where=own) for row in logits]
    mean = jnp.sum(jnp.stack(costs)) / jnp.maximum(jnp.sum(valid, dtype=joint.dtype), 1)
    return mean + _information(joint.reshape(-1, joint.shape[-1]))


@checked
def fit_batch_pid(
    networks: Networks,
    x1: Float[Array, "n d1"],
    x2: Float[Array, "n d2"],
    labels: Integer[Array, "n"],
    *,
    key: jax.Array,
    optimizer: Optimizer,
    steps: int,
    batch_size: int = 256,
    iterations: int = 20,
) -> tuple[Networks, Float[jax.Array, "s"]]:
    r"""Train the networks on :func:`batch_pid_loss`, :math:`\theta \leftarrow \theta + u(\nabla)`.

    Args:
        networks: from :func:`init_batch_pid`.
        x1: rows of the first source, best standardised.
        x2: rows of the second source; ``x2[i]`` is paired with ``x1[i]``.
        labels: classes, from 0.
        key: random key, for the rows of each step (drawn with replacement).
        optimizer: such as ``optax.adam(1e-3)``.
        steps: how many.
        batch_size: rows of a step; it holds ``batch_size ** 2`` scores for each class.
        iterations: of rescaling in each step, see :func:`aligned_joint`.

    Returns:
        The trained networks, and the loss of each step, nats.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``steps`` or ``batch_size`` is below 1, there is no row, the networks are of
            other numbers of features, or, outside of jit, a label is no class.

    Source: Liang et al. 2023, arXiv:2302.12247, sec. 3.2.

    >>> import optax
    >>> from mmjax.information import init_batch_pid
    >>> networks = init_batch_pid(jax.random.key(0), sizes=(1, 1), classes=2, hidden=4)
    >>> x = jnp.array([[-1.0], [1.0]])
    >>> _, losses = fit_batch_pid(
    ...     networks, x, x, jnp.array([0, 1]),
    ...     key=jax.random.key(1), optimizer=optax.sgd(1e-2), steps=3, batch_size=4,
    ... )
    >>> losses.shape
    (3,)
    """
    if steps < 1 or batch_size < 1:
        raise ValueError(f"steps and batch_size must be positive, got {steps} and {batch_size}")
    if not len(x1):
        raise ValueError("there must be a row to train on, got none")
    _check_labels(labels, len(networks.both[-1][1]))
    x1, x2, labels = (jnp.asarray(x) for x in (x1, x2, labels))

    def step(state: tuple, key: jax.Array) -> tuple[tuple, jax.Array]:
        networks, memory = state
        rows = jax.random.randint(key, (batch_size,), 0, len(x1))
        loss, gradient = jax.value_and_grad(batch_pid_loss)(
            networks, x1[rows], x2[rows], labels[rows], iterations=iterations
        )
        updates, memory = optimizer.update(gradient, memory, networks)
        return (jax.tree.map(jnp.add, networks, updates), memory), loss

    @jax.jit
    def run(networks: Networks, keys: jax.Array) -> tuple[tuple, jax.Array]:
        return jax.lax.scan(step, (networks, optimizer.init(networks)), keys)

    (networks, _), losses = run(networks, jax.random.split(key, steps))
    return networks, losses


def _check_labels(labels: Array, classes: int) -> None:
    """Refuse labels that train nothing, where that can be seen."""
    if isinstance(labels, jax.core.Tracer):
        return
    given = np.asarray(labels)
    wrong = (given < 0) | (given >= classes)
    if wrong.any():
        raise ValueError(
            f"labels must be classes from 0 to {classes - 1}, got {given[wrong][0]}: "
            "init_batch_pid says how many there are"
        )


def _seen(
    networks: Networks, x1: Array, x2: Array, *, iterations: int, where: Array | None
) -> tuple[list[jax.Array], jax.Array, jax.Array]:
    """Logits of the three classifiers, and the aligned joint distribution with its error."""
    wanted = [len(layers[0][0]) for layers in (networks.first, networks.second)]
    if wanted != [x1.shape[1], x2.shape[1]]:
        raise ValueError(
            f"the networks are for {wanted[0]} and {wanted[1]} features, the rows have "
            f"{x1.shape[1]} and {x2.shape[1]}"
        )
    dtype = accumulation_dtype(x1, x2)
    x1, x2 = (jnp.asarray(x).astype(dtype) for x in (x1, x2))
    if where is not None:  # before any product
        x1, x2 = (jnp.where(jnp.asarray(where)[:, None], x, 0) for x in (x1, x2))
    inputs = (x1, x2, jnp.concatenate([x1, x2], axis=1))
    logits = [perceptron(z, layers) for z, layers in zip(inputs, networks[:3], strict=True)]
    classes = logits[0].shape[1]
    matched = [
        perceptron(z, layers).reshape(len(z), classes, -1)
        for z, layers in zip(inputs[:2], networks[3:], strict=True)
    ]
    scale = matched[0].shape[-1] ** -0.5
    scores = scale * jnp.einsum("nyh,myh->nmy", *matched, precision=jax.lax.Precision.HIGHEST)
    posteriors = (jax.lax.stop_gradient(jax.nn.log_softmax(rows)) for rows in logits[:2])
    joint, wrong = aligned_joint(
        scores, *posteriors, iterations=iterations, where_1=where, where_2=where
    )
    return logits, joint, jax.lax.stop_gradient(wrong)


def _information(joint: Float[jax.Array, "x y"]) -> Float[jax.Array, ""]:
    """Mutual information of a table, which need not sum to one exactly; nats."""

    def entropy(p: jax.Array) -> jax.Array:
        return -jnp.sum(p * jnp.log(jnp.where(p > 0, p, 1)))

    of_rows, of_columns = (entropy(jnp.sum(joint, axis=axis)) for axis in (1, 0))
    return of_rows + of_columns - entropy(joint)
