"""The contrastive losses as a textbook writes them: all scores at once, differentiated by JAX.

What a bounded loss has to be no slower than. One loss for the batch, no masks, no shards: over
several devices ``jit`` places the rows and XLA does the rest.
"""

import jax
import jax.numpy as jnp

# A float32 product may otherwise lose 2**-10 (TF32) or 2**-8 of itself on an accelerator, and ours
# do not: the comparison is between equals.
_PRECISION = {"float32": jax.lax.Precision.HIGHEST, "bfloat16": jax.lax.Precision.DEFAULT}


def scores(x: jax.Array, y: jax.Array) -> jax.Array:
    """Inner products of all rows with all rows, in float32."""
    precision = _PRECISION[x.dtype.name]
    return jnp.einsum("nd,md->nm", x, y, precision=precision, preferred_element_type=jnp.float32)


def cross_entropy(logits: jax.Array) -> jax.Array:
    """Mean cost of naming the diagonal in each row."""
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - jnp.diag(logits))


def clip_loss(x: jax.Array, y: jax.Array, *, logit_scale: jax.Array) -> jax.Array:
    """Radford et al. 2021, fig. 3."""
    logits = logit_scale * scores(x, y)
    return (cross_entropy(logits) + cross_entropy(logits.T)) / 2


def siglip_loss(
    x: jax.Array, y: jax.Array, *, logit_scale: jax.Array, logit_bias: jax.Array
) -> jax.Array:
    """Zhai et al. 2023, algorithm 1."""
    logits = logit_scale * scores(x, y) + logit_bias
    labels = 2 * jnp.eye(len(x)) - 1
    return -jnp.sum(jax.nn.log_sigmoid(labels * logits)) / len(x)


def info_nce(query: jax.Array, key: jax.Array, *, temperature: float) -> jax.Array:
    """Van den Oord et al. 2018, eq. 4."""
    return cross_entropy(scores(query, key) / temperature)


def nt_xent(x: jax.Array, y: jax.Array, *, temperature: float) -> jax.Array:
    """Chen et al. 2020, eq. 1 and algorithm 1."""
    n, rows = len(x), jnp.concatenate([x, y])
    logits = jnp.where(jnp.eye(2 * n, dtype=bool), -jnp.inf, scores(rows, rows) / temperature)
    partner = (jnp.arange(2 * n) + n) % (2 * n)
    own = jnp.take_along_axis(logits, partner[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - own)


def supervised_contrastive(x: jax.Array, *, labels: jax.Array, temperature: float) -> jax.Array:
    """Khosla et al. 2020, eq. 2."""
    n = len(x)
    itself = jnp.eye(n, dtype=bool)
    logits = jnp.where(itself, -jnp.inf, scores(x, x) / temperature)
    positive = (labels[:, None] == labels[None]) & ~itself
    log_share = logits - jax.nn.logsumexp(logits, axis=1, keepdims=True)
    count = jnp.maximum(jnp.sum(positive, axis=1, dtype=jnp.float32), 1)
    return -jnp.mean(jnp.sum(log_share, axis=1, where=positive) / count)
