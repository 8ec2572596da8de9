"""One network for all architectures of a search, which choose by their integers what it does."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.fusion.blocks import LayerNorm, check_at_least, dense, square
from mmjax.fusion.modalities import Modalities
from mmjax.fusion.search import OPERATORS, Architecture, Space
from mmjax.modalities import Masks, Rows, check_names


@checked
def combine(
    values: Float[Array, "k n d"],
    scores: Float[Array, "k n"],
    where: Bool[Array, "k n"],
    operator: Int[Array, ""] | np.integer | int,
) -> Float[jax.Array, "n d"]:
    r"""Combine the values that an example has by one of four operators.

    .. math:: \sum_{i \in V} v_i, \qquad \prod_{i \in V} v_i, \qquad \max_{i \in V} v_i, \qquad
              \sum_{i \in V} \frac{e^{s_i}}{\sum_{j \in V} e^{s_j}} v_i

    Args:
        values: k rows of d features per example.
        scores: one number per value, which attention reads, in nats.
        where: the values :math:`V` that an example has.
        operator: a place in :data:`mmjax.fusion.search.OPERATORS`; it may be traced, which is how
            candidates with different operators run as one program.

    Returns:
        One row per example, in the dtype of ``values``; 0 where there is no value.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.
        ValueError: if a Python or NumPy ``operator`` is not the place of one.

    Source: the mixtures of Xu et al. 2021, arXiv:2102.02340, with operators of this room.

    >>> values, both = jnp.array([[[2.0]], [[5.0]]]), jnp.ones((2, 1), bool)
    >>> [combine(values, jnp.zeros((2, 1)), both, i).item() for i in range(4)]
    [7.0, 10.0, 5.0, 3.5]
    """
    if not isinstance(operator, jax.Array) and not 0 <= operator < len(OPERATORS):
        raise ValueError(f"operator must be between 0 and {len(OPERATORS) - 1}, got {operator}")
    wide = accumulation_dtype(values)
    there, x, lowest = where[:, :, None], values.astype(wide), jnp.finfo(wide).min
    # Finite floors, not -inf: an example that has nothing then has no NaN in its gradient.
    weights = jax.nn.softmax(jnp.where(where, scores.astype(wide), lowest), axis=0)
    # A product that nobody asked for could overflow, and infinity times a gradient of 0 is NaN.
    multiplied = there & (operator == OPERATORS.index("product"))
    results = [
        jnp.sum(jnp.where(there, x, 0), axis=0),
        jnp.prod(jnp.where(multiplied, x, 1), axis=0),
        jnp.max(jnp.where(there, x, lowest), axis=0),
        jnp.sum(weights[:, :, None] * jnp.where(there, x, 0), axis=0),
    ]
    chosen = jnp.stack(results)[operator]
    return jnp.where(jnp.any(where, axis=0)[:, None], chosen, 0).astype(values.dtype)


class Supernet(nn.Module):
    r"""Every architecture of a space, as one program with one set of parameters.

    Modality :math:`m` passes layers of the kinds that the architecture says, and each cell reads it
    after as many of them as it says, or not at all, and perhaps an earlier cell:

    .. math::
        h_m^{(0)} &= A_m x_m, \qquad h_m^{(i+1)} = \mathrm{layer}_{m,i}(h_m^{(i)}) \\
        z_c &= \mathrm{operator}_c\big(\{W_{cm} \mathrm{LN}(h_m^{(p_{cm})})\}_m
               \cup \{W_c \mathrm{LN}(z_{e_c})\}\big), \qquad
        h = \sum_c U_c z_c

    where a layer is :math:`h`, :math:`h + \mathrm{gelu}(W \mathrm{LN}(h))` or :math:`h +
    W \mathrm{LN}(h) \cdot \sigma(V \mathrm{LN}(h))`. All kinds and operators are computed and one
    is taken: candidates with different architectures run under one ``vmap``.

    A missing modality is read by no cell, and a cell that reads nothing adds nothing.

    Attributes:
        features: of all states and of the result.
        space: of the architectures.

    Raises:
        ValueError: while being built, if ``features`` is below 1.

    Source: Xu et al. 2021, arXiv:2102.02340, sec. 3, with the departures of :class:`Space`; there
    each candidate is built and trained by itself.

    >>> space = Space(("image", "text"), depth=1, cells=2)
    >>> rows = {"text": jnp.ones((3, 5)), "image": jnp.ones((3, 7))}
    >>> first = Architecture(*(0 * choices for choices in space.choices()))
    >>> fusion = Supernet(features=8, space=space)
    >>> jax.eval_shape(fusion.init_with_output, jax.random.key(0), rows, first)[0].shape
    (3, 8)
    """

    features: int
    space: Space

    def __post_init__(self):
        check_at_least(1, features=self.features)
        super().__post_init__()

    @nn.compact
    @checked
    def __call__(
        self, inputs: Rows, architecture: Architecture, *, where: Masks | None = None
    ) -> Float[jax.Array, "n {self.features}"]:
        """Fuse the modalities of each example.

        Args:
            inputs: per modality of the space, one row of features per example.
            architecture: one candidate; a gene beyond its choices counts as its last one.
            where: per modality, the examples that have it; all if None.

        Returns:
            One row per example; 0 for an example of which no cell reads anything.

        Raises:
            ValueError: for other modalities than those of the space, or an architecture whose
                arrays have other shapes than its.
        """
        given = Modalities.of(inputs, where)
        check_names("inputs", given.arrays, "space", self.space.modalities)
        _check_architecture(architecture, self.space)
        architecture = jax.tree.map(jnp.asarray, architecture)  # a search gives NumPy's
        states = [
            self._layers(name, x, kinds)
            for (name, x, _), kinds in zip(given, architecture.layers, strict=True)
        ]
        cells: list[jax.Array] = []
        filled: list[jax.Array] = []
        for c in range(self.space.cells):
            points, earlier = architecture.points[c], architecture.earlier[c]
            read = [h[jnp.minimum(p, len(h) - 1)] for h, p in zip(states, points, strict=True)]
            there = [
                valid & (point <= self.space.depth)
                for valid, point in zip(given.valid.values(), points, strict=True)
            ]
            if cells:
                read.append(jnp.stack(cells)[jnp.minimum(earlier, c - 1)])
                there.append(jnp.stack(filled)[jnp.minimum(earlier, c - 1)] & (earlier < c))
            cells.append(self._cell(c, read, jnp.stack(there), architecture.operators[c]))
            filled.append(functools.reduce(jnp.logical_or, there))
        out = [square(f"cell_{c}_out", z) for c, z in enumerate(cells)]
        return given.fused(functools.reduce(jnp.add, out))

    def _layers(self, name: str, x: jax.Array, kinds: Array) -> jax.Array:
        """States ``[l + 1, n, d]`` of a modality: after no layer, after one, and so on."""
        states = [dense(self.features, f"{name}_in", x, axes=(None, "embed"))(x)]
        for i in range(self.space.depth):
            h = states[-1]
            y = LayerNorm(name=f"{name}_{i}_norm")(h)
            maps = {
                role: dense(self.features, f"{name}_{i}_{role}", y, axes=(None, "embed"))(y)
                for role in ("dense", "value", "gate")
            }
            gated = h + maps["value"] * nn.sigmoid(maps["gate"])
            states.append(jnp.stack([h, h + nn.gelu(maps["dense"]), gated])[kinds[i]])
        return jnp.stack(states)

    def _cell(self, c: int, read: list[jax.Array], there: jax.Array, operator: Array) -> jax.Array:
        roles = [*(f"from_{name}" for name in sorted(self.space.modalities)), "earlier"]
        values = jnp.stack(
            [
                square(f"cell_{c}_{role}", LayerNorm(name=f"cell_{c}_{role}_norm")(x))
                for role, x in zip(roles, read, strict=False)  # the first cell has no earlier one
            ]
        )
        # Scores are read off the values, so that attention is a function of the example.
        scores = dense(1, f"cell_{c}_score", values, axes=("embed", None), use_bias=False)(values)
        return combine(values, scores[:, :, 0], there, operator)


def _check_architecture(architecture: Architecture, space: Space) -> None:
    expected = space.choices()._asdict()
    for name, gene in architecture._asdict().items():
        if jnp.shape(gene) != expected[name].shape:
            raise ValueError(
                f"{name} must have shape {expected[name].shape}, got {jnp.shape(gene)};"
                " a population goes through jax.vmap"
            )
