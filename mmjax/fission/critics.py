"""Critics that own their parameters: they score every pair, and can be held still meanwhile.

A bound that is lowered by the embeddings has to have a critic that raises a bound: the embeddings
see it ``frozen``, and it sees them through ``jax.lax.stop_gradient``.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import Array, checked
from mmjax.fission.perceptron import Perceptron, declare_layers
from mmjax.information.critics import (
    CHUNK_SIZE,
    bilinear_scores,
    concatenated_scores,
    separable_scores,
)


class SeparableCritic(nn.Module):
    r"""Owns two perceptrons, whose outputs :func:`separable_scores` multiplies.

    .. math:: f(x_i, y_j) = g(x_i) \cdot h(y_j) / \sqrt{d}

    The root of the number of features keeps the scores, and so the first steps, small.

    Attributes:
        hidden: features of the hidden layers of both.
        features: of what is multiplied.

    >>> critic, x, y = SeparableCritic((8,), features=4), jnp.ones((3, 5)), jnp.ones((2, 6))
    >>> critic.init_with_output(jax.random.key(0), x, y)[0].shape
    (3, 2)
    """

    hidden: tuple[int, ...] = (512,)
    features: int = 128

    @nn.compact
    @checked
    def __call__(
        self, x: Float[Array, "n d"], y: Float[Array, "m e"], *, frozen: bool = False
    ) -> Float[jax.Array, "n m"]:
        """Score every pair; ``frozen`` parameters receive no gradient."""
        first = Perceptron(self.hidden, self.features, name="x")(x, frozen=frozen)
        second = Perceptron(self.hidden, self.features, name="y")(y, frozen=frozen)
        return separable_scores(first * self.features**-0.5, second)


class BilinearCritic(nn.Module):
    """Owns the matrix of :func:`bilinear_scores`.

    >>> critic, x, y = BilinearCritic(), jnp.ones((3, 5)), jnp.ones((2, 6))
    >>> critic.init_with_output(jax.random.key(0), x, y)[0].shape
    (3, 2)
    """

    @nn.compact
    @checked
    def __call__(
        self, x: Float[Array, "n d"], y: Float[Array, "m e"], *, frozen: bool = False
    ) -> Float[jax.Array, "n m"]:
        """Score every pair; ``frozen`` parameters receive no gradient."""
        init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), (None, "embed"))
        shape = (x.shape[1], y.shape[1])
        weight = jnp.asarray(nn.unbox(self.param("weight", init, shape, jnp.float32)))
        return bilinear_scores(x, y, jax.lax.stop_gradient(weight) if frozen else weight)


class ConcatenatedCritic(nn.Module):
    """Owns the perceptron that :func:`concatenated_scores` runs on every pair.

    Attributes:
        hidden: features of its hidden layers.
        chunk_size: rows whose pairs are in memory together.

    >>> critic, x, y = ConcatenatedCritic((8,)), jnp.ones((3, 5)), jnp.ones((2, 6))
    >>> critic.init_with_output(jax.random.key(0), x, y)[0].shape
    (3, 2)
    """

    hidden: tuple[int, ...] = (512, 512)
    chunk_size: int = CHUNK_SIZE

    @nn.compact
    @checked
    def __call__(
        self, x: Float[Array, "n d"], y: Float[Array, "m e"], *, frozen: bool = False
    ) -> Float[jax.Array, "n m"]:
        """Score every pair; ``frozen`` parameters receive no gradient."""
        layers = declare_layers(self, x.shape[1] + y.shape[1], (*self.hidden, 1), frozen)
        return concatenated_scores(x, y, layers, chunk_size=self.chunk_size)
