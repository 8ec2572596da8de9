"""Late fusion: each modality decides by itself, and the posteriors of all are combined.

A probability of 0 has a finite logarithm here, far below that of any other float32: infinity is
never taken from infinity, neither in a value nor in a gradient. It is too low for float16, where
minus infinity comes out instead.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.fusion.modalities import Modalities, linear, plus_bias
from mmjax.fusion.parameters import make_biases, make_kernels
from mmjax.modalities import Masks, Rows


@checked
def mean_of_posteriors(logits: Rows, *, where: Masks | None = None) -> Float[jax.Array, "n k"]:
    r"""Posterior of an ensemble of which every modality is one member.

    .. math:: \log p(c) = \log \frac{1}{|V|} \sum_{m \in V} p_m(c),
              \qquad p_m = \mathrm{softmax}(z_m)

    Args:
        logits: per modality, :math:`z_m`, one number per example and class.
        where: per modality, the examples that have it, :math:`V`; all if None. A missing one has no
            say, and its gradient is 0 even where it holds NaN.

    Returns:
        Log-probabilities of the k classes, in nats, in the dtype of ``logits``; for an example that
        has no modality those of the uniform distribution.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if the mappings name different modalities, or not all have as many classes.

    Source: Kittler et al. 1998 (On combining classifiers), IEEE TPAMI 20(3), the sum rule with
    equal priors.

    >>> posteriors = {"image": jnp.array([[0.8, 0.2]]), "text": jnp.array([[0.4, 0.6]])}
    >>> fused = mean_of_posteriors(jax.tree.map(jnp.log, posteriors))
    >>> [f"{p:.2f}" for p in jnp.exp(fused)[0]]
    ['0.60', '0.40']
    """
    modalities, log_p, valid = _posteriors(logits, where)
    count = jnp.sum(valid, axis=0, dtype=log_p.dtype)
    total = jax.nn.logsumexp(log_p, axis=0, where=jnp.broadcast_to(valid, log_p.shape))
    return (total - jnp.log(count)).astype(modalities.dtype)


@checked
def max_of_posteriors(logits: Rows, *, where: Masks | None = None) -> Float[jax.Array, "n k"]:
    r"""Each class by the modality that believes in it most.

    .. math:: p(c) \propto \max_{m \in V} p_m(c), \qquad p_m = \mathrm{softmax}(z_m)

    Args:
        logits: per modality, :math:`z_m`, one number per example and class.
        where: per modality, the examples that have it, :math:`V`; all if None. A missing one has no
            say, and its gradient is 0 even where it holds NaN.

    Returns:
        Log-probabilities of the k classes, in nats, in the dtype of ``logits``; for an example that
        has no modality those of the uniform distribution.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if the mappings name different modalities, or not all have as many classes.

    Source: Kittler et al. 1998 (On combining classifiers), IEEE TPAMI 20(3), the max rule with
    equal priors; normalised, which does not change the decision.

    >>> posteriors = {"image": jnp.array([[0.75, 0.25]]), "text": jnp.array([[0.25, 0.75]])}
    >>> fused = max_of_posteriors(jax.tree.map(jnp.log, posteriors))
    >>> [f"{p:.2f}" for p in jnp.exp(fused)[0]]
    ['0.50', '0.50']
    """
    modalities, log_p, valid = _posteriors(logits, where)
    largest = jnp.max(jnp.where(valid, log_p, jnp.finfo(log_p.dtype).min), axis=0)
    return jax.nn.log_softmax(largest, axis=1).astype(modalities.dtype)


@checked
def product_of_posteriors(
    logits: Rows, *, log_prior: Float[Array, "k"] | None = None, where: Masks | None = None
) -> Float[jax.Array, "n k"]:
    r"""Bayes' rule for modalities that are independent of each other given the class.

    .. math:: p(c) \propto \pi(c)^{1 - |V|} \prod_{m \in V} p_m(c),
              \qquad p_m = \mathrm{softmax}(z_m)

    Args:
        logits: per modality, :math:`z_m`, one number per example and class.
        log_prior: :math:`\log \pi`, in nats, of the classes where the posteriors were learned; it
            may lack its normalising constant. Uniform if None.
        where: per modality, the examples that have it, :math:`V`; all if None. A missing one has no
            say, and its gradient is 0 even where it holds NaN.

    Returns:
        Log-probabilities of the k classes, in nats, in the dtype of ``logits``; for an example that
        has no modality those of the prior. A probability of 0 counts as a tiny one, the same for
        all, next to which no other tells: if every class is excluded by some modality, those that
        the fewest exclude share evenly.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if the mappings name different modalities, or not all have as many classes.

    Source: Kittler et al. 1998 (On combining classifiers), IEEE TPAMI 20(3), the product rule.

    >>> posteriors = {"image": jnp.array([[0.8, 0.2]]), "text": jnp.array([[0.8, 0.2]])}
    >>> fused = product_of_posteriors(jax.tree.map(jnp.log, posteriors))
    >>> [f"{p:.2f}" for p in jnp.exp(fused)[0]]
    ['0.94', '0.06']
    """
    modalities, log_p, valid = _posteriors(logits, where)
    total = jnp.sum(jnp.where(valid, log_p, 0), axis=0)
    if log_prior is not None:
        others = jnp.sum(jnp.stack(list(modalities.valid.values())), axis=0, dtype=total.dtype) - 1
        log_prior = jnp.asarray(log_prior).astype(total.dtype)
        total = total - others[:, None] * jnp.maximum(log_prior, _floor(log_p))[None]
    return jax.nn.log_softmax(total, axis=1).astype(modalities.dtype)


#: What :class:`LateFusion` may do with the posteriors.
RULES = {
    "mean": mean_of_posteriors,
    "max": max_of_posteriors,
    "product": product_of_posteriors,
}


class LateFusion(nn.Module):
    """Owns one linear classifier per modality, whose posteriors one of :data:`RULES` combines.

    Attributes:
        features: number of classes; what comes out is their log-probabilities.
        rule: "mean", "max" or "product", the latter with a uniform prior.

    Raises:
        ValueError: while being built, if there is no such rule.
    """

    features: int
    rule: str = "mean"

    def __post_init__(self):
        if self.rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, got {self.rule!r}")
        super().__post_init__()

    @nn.compact
    @checked
    def __call__(
        self, inputs: Rows, *, where: Masks | None = None
    ) -> Float[jax.Array, "n {self.features}"]:
        """Classify each example by the modalities that it has."""
        modalities = Modalities.of(inputs, where)
        kernels = make_kernels(self, "kernel", inputs, self.features)
        biases = make_biases(self, "bias", inputs, self.features)
        logits = {
            name: plus_bias(linear(x, kernels[name]), biases[name]).astype(x.dtype)
            for name, x, _ in modalities
        }
        return RULES[self.rule](logits, where=where)


def _posteriors(
    logits: Rows, where: Masks | None
) -> tuple[Modalities, Float[jax.Array, "m n k"], jax.Array]:
    """Blanked logits, their log-posteriors, and whose of them count, ``[m, n, 1]``."""
    modalities = Modalities.of(logits, where)
    classes = {name: x.shape[1] for name, x, _ in modalities}
    if len(set(classes.values())) > 1:
        told = ", ".join(f"{name} {k}" for name, k in classes.items())
        raise ValueError(f"logits must be of the same classes for every modality, got {told}")
    stack = jnp.stack([x for _, x, _ in modalities])
    log_p = jax.nn.log_softmax(stack.astype(accumulation_dtype(stack)), axis=2)
    log_p = jnp.maximum(log_p, _floor(log_p))
    # What is blanked is the uniform posterior. Where nothing counts all may: no log of 0 is taken.
    valid = jnp.stack([valid | ~modalities.there for _, _, valid in modalities])
    return modalities, log_p, valid[..., None]


def _floor(log_p: Float[jax.Array, "m n k"]) -> float:
    """What stands for the logarithm of 0; a sum over modalities, or two, of it stays finite."""
    return float(jnp.finfo(log_p.dtype).min) / (2 * len(log_p))
