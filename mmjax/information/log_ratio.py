r"""CLUB: contrastive log-ratio upper bounds of mutual information, without a matrix of pairs.

.. math:: I(X; Y) \le \mathbb E_{p(x, y)}[\log p(y \mid x)]
                      - \mathbb E_{p(x) p(y)}[\log p(y \mid x)]

A model :math:`q(y \mid x)` stands for the conditional: fit it by its likelihood
(:func:`gaussian_log_density`, :func:`categorical_log_density`) on the same rows, with the encoders
held fixed, and minimise the bound with the model held fixed. The bound holds for the true
conditional, and for a model :math:`q(y \mid x)\, p(x)` that is no farther (in Kullback-Leibler
divergence) from the joint than from the product of marginals; one that fits badly gives values
below the information.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Integer

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.information.codes import as_codes, as_conditions


@checked
def club(
    mean: Float[Array, "n d"],
    log_variance: Float[Array, "n d"],
    y: Float[Array, "n d"],
    *,
    condition: Integer[Array, "n"] | None = None,
    where: Bool[Array, "n"] | None = None,
) -> Float[jax.Array, "n"]:
    r"""CLUB with a Gaussian model, in time and memory n x d.

    .. math:: v_i = \log q(y_i \mid x_i) - \frac{1}{K_i - 1} \sum_{j \ne i} \log q(y_j \mid x_i)
                  = \frac{K_i}{K_i - 1} \sum_d \frac{s_d^2 - (y_{id} - \bar y_d)
                    (y_{id} + \bar y_d - 2 \mu_{id})}{2 \sigma_{id}^2}

    with the mean :math:`\bar y` and the variance :math:`s^2` (that divides by :math:`K_i`) of the
    rows that row i is compared with, itself among them: only their first two moments are needed.
    An upper bound under the condition that :mod:`mmjax.information.log_ratio` states. There is no
    sampled form: a sample of the :math:`j` would only add variance.

    Args:
        mean: :math:`\mu(x_i)` of the model :math:`q(y \mid x_i)`.
        log_variance: :math:`\log \sigma^2(x_i)` of each feature.
        y: rows; ``y[i]`` is paired with the :math:`x_i` that ``mean[i]`` was made of.
        condition: a label for each row; only rows with the same one are compared, which bounds
            :math:`I(X; Y \mid C)` where the model has seen the label.
        where: valid rows, all if None. An invalid row counts nowhere; its gradient is 0 even where
            it holds NaN.

    Returns:
        One value per row, in nats; 0 for an invalid row and for one with nothing to be compared
        with. Reduce with :func:`mmjax.reduction.masked_mean`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Cheng et al. 2020, arXiv:2006.12013, sec. 3.2. One departure: the paper's mean over
    :math:`j` has :math:`j = i` in it, which is no draw of the product of marginals and multiplies
    the bound by :math:`(K - 1) / K`. Conditional as in Liang et al. 2023, arXiv:2306.05268, sec. 3.

    >>> y = jnp.array([[1.0], [-1.0]])
    >>> print(club(y, jnp.zeros((2, 1)), y))  # -0 / 2 + 4 / 2
    [2. 2.]
    """
    dtype = accumulation_dtype(mean, log_variance, y)
    valid = jnp.ones(len(y), bool) if where is None else jnp.asarray(where)
    mean, log_variance, y = (
        jnp.where(valid[:, None], jnp.asarray(z).astype(dtype), 0) for z in (mean, log_variance, y)
    )
    group = _groups(condition, len(y))
    # Moments about the mean of all, so that an offset costs no digits.
    middle = jnp.sum(y, axis=0, keepdims=True) / jnp.maximum(jnp.sum(valid, dtype=dtype), 1)
    y, mean = (jnp.where(valid[:, None], z - middle, 0) for z in (y, mean))
    count = _group_sums(valid.astype(dtype)[:, None], group)
    centre = _group_sums(y, group) / jnp.maximum(count, 1)
    y, mean = (jnp.where(valid[:, None], z - centre, 0) for z in (y, mean))
    variance = _group_sums(y**2, group) / jnp.maximum(count, 1)
    rows = jnp.sum(jnp.exp(-log_variance) * (variance - y * (y - 2 * mean)), axis=1) / 2
    count = count[:, 0]
    return jnp.where(valid & (count > 1), rows * count / jnp.maximum(count - 1, 1), 0)


@checked
def club_categorical(
    logits: Float[Array, "n c"],
    labels: Integer[Array, "n"],
    *,
    condition: Integer[Array, "n"] | None = None,
    where: Bool[Array, "n"] | None = None,
) -> Float[jax.Array, "n"]:
    r"""CLUB with a categorical model, in time and memory n x c.

    .. math:: v_i = \frac{K_i}{K_i - 1} \Big( \log q(y_i \mid x_i)
                    - \sum_c \frac{K_{ic}}{K_i} \log q(c \mid x_i) \Big)

    where :math:`K_{ic}` of the :math:`K_i` rows that row i is compared with, itself among them,
    have label c. An upper bound of :math:`I(X; Y)` for a discrete :math:`Y` under the condition
    that :mod:`mmjax.information.log_ratio` states.

    Args:
        logits: of the model :math:`q(y \mid x_i)`, before the softmax.
        labels: the class :math:`y_i`, in [0, c). A row with another label is as one that is
            invalid.
        condition: as for :func:`club`.
        where: as for :func:`club`.

    Returns:
        One value per row, in nats; 0 for an invalid row and for one with nothing to be compared
        with. Reduce with :func:`mmjax.reduction.masked_mean`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Cheng et al. 2020, arXiv:2006.12013, sec. 3.2, with a softmax for :math:`q`, and with
    the departure of :func:`club`.

    >>> logits = jnp.array([[2.0, 0.0], [0.0, 2.0]])
    >>> print(club_categorical(logits, jnp.array([0, 1])))
    [2. 2.]
    """
    log_q, own, valid = _log_classes(logits, labels, where)
    group = _groups(condition, len(labels))
    counts = _group_sums(own, group)
    total = jnp.sum(counts, axis=1)
    rows = jnp.sum(own * log_q, axis=1) * total - jnp.sum(counts * log_q, axis=1)
    return jnp.where(valid & (total > 1), rows / jnp.maximum(total - 1, 1), 0)


@checked
def gaussian_log_density(
    mean: Float[Array, "n d"],
    log_variance: Float[Array, "n d"],
    y: Float[Array, "n d"],
    *,
    where: Bool[Array, "n"] | None = None,
) -> Float[jax.Array, "n"]:
    r"""Log-likelihood of a Gaussian with independent features: what fits the model of a bound.

    .. math:: \log q(y_i \mid x_i) = -\tfrac12 \sum_d \Big( \frac{(y_{id} - \mu_{id})^2}
              {\sigma_{id}^2} + \log \sigma_{id}^2 + \log 2 \pi \Big)

    Args:
        mean: :math:`\mu(x_i)`.
        log_variance: :math:`\log \sigma^2(x_i)`.
        y: rows.
        where: valid rows, all if None. The value and gradient of an invalid row are 0 even where it
            holds NaN.

    Returns:
        One value per row, in nats. Its mean, maximised over the model, is the bound of Barber and
        Agakov: :math:`I(X; Y) \ge H(Y) + \mathbb E[\log q(y \mid x)]`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Cheng et al. 2020, arXiv:2006.12013, sec. 3.2; the constant, which the released code
    leaves out, makes it a density.

    >>> print(gaussian_log_density(jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.zeros((1, 2))))
    [-1.837877]
    """
    dtype = accumulation_dtype(mean, log_variance, y)
    valid = jnp.ones(len(y), bool) if where is None else jnp.asarray(where)
    mean, log_variance, y = (
        jnp.where(valid[:, None], jnp.asarray(z).astype(dtype), 0) for z in (mean, log_variance, y)
    )
    terms = (y - mean) ** 2 * jnp.exp(-log_variance) + log_variance + math.log(2 * math.pi)
    return jnp.where(valid, -jnp.sum(terms, axis=1) / 2, 0)


@checked
def gaussian_scores(
    mean: Float[Array, "n d"],
    log_variance: Float[Array, "n d"],
    y: Float[Array, "m d"],
    *,
    where_x: Bool[Array, "n"] | None = None,
    where_y: Bool[Array, "m"] | None = None,
) -> Float[jax.Array, "n m"]:
    r"""Log-density of every row under every conditional, :math:`\log q(y_j \mid x_i)`.

    The matrix that :func:`mmjax.information.leave_one_out_bound` needs; memory is n x m, never
    n x m x d, also that of the gradient: features are added up one after another.

    Args:
        mean: :math:`\mu(x_i)`.
        log_variance: :math:`\log \sigma^2(x_i)`.
        y: rows.
        where_x: valid conditionals, all if None. An invalid one counts as the standard normal; its
            gradient is 0 even where it holds NaN. Give the same masks to the bound.
        where_y: valid rows of ``y``, all if None. An invalid one counts as zeros, likewise.

    Returns:
        The log-densities in nats; on the diagonal those of :func:`gaussian_log_density`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Cheng et al. 2020, arXiv:2006.12013, sec. 3.2.

    >>> y = jnp.array([[0.0], [2.0]])
    >>> scores = gaussian_scores(y, jnp.zeros((2, 1)), y)
    >>> print(scores[0, 0] - scores[0, 1])
    2.0
    """
    dtype = accumulation_dtype(mean, log_variance, y)
    valid_x, valid_y = (
        jnp.ones(n, bool) if where is None else jnp.asarray(where)
        for n, where in ((len(mean), where_x), (len(y), where_y))
    )
    mean, log_variance, y = (
        jnp.where(valid[:, None], jnp.asarray(z).astype(dtype), 0)
        for z, valid in ((mean, valid_x), (log_variance, valid_x), (y, valid_y))
    )
    precision = jnp.exp(-log_variance)

    @jax.checkpoint  # or a gradient would keep the differences of all features
    def add(squares: jax.Array, feature: tuple) -> tuple[jax.Array, None]:
        # No square is multiplied out: beside a small variance its terms would be large, and cancel.
        centre, weight, value = feature
        return squares + weight[:, None] * (value[None] - centre[:, None]) ** 2, None

    start = jnp.zeros((len(mean), len(y)), dtype)
    squares, _ = jax.lax.scan(add, start, (mean.T, precision.T, y.T))
    rows = jnp.sum(log_variance + math.log(2 * math.pi), axis=1)
    return -(squares + rows[:, None]) / 2


@checked
def categorical_log_density(
    logits: Float[Array, "n c"],
    labels: Integer[Array, "n"],
    *,
    where: Bool[Array, "n"] | None = None,
) -> Float[jax.Array, "n"]:
    r"""Log-probability of the labels, :math:`\log q(y_i \mid x_i)`: what fits a categorical model.

    Args:
        logits: before the softmax.
        labels: classes in [0, c). A row with another label is as one that is invalid.
        where: valid rows, all if None. The value and gradient of an invalid row are 0 even where it
            holds NaN.

    Returns:
        One value per row, in nats.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Cheng et al. 2020, arXiv:2006.12013, sec. 3.2, with a softmax for :math:`q`.

    >>> print(categorical_log_density(jnp.zeros((1, 2)), jnp.array([1])))
    [-0.6931472]
    """
    log_q, own, _ = _log_classes(logits, labels, where)
    return jnp.sum(own * log_q, axis=1)


def _log_classes(
    logits: Array, labels: Array, where: Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-probabilities, one-hot labels (zeros for invalid rows), and the valid rows."""
    logits = jnp.asarray(logits).astype(accumulation_dtype(logits))
    own = as_codes(labels)[:, None] == jnp.arange(logits.shape[1], dtype=jnp.int32)[None]
    valid = jnp.any(own, axis=1)
    valid &= True if where is None else jnp.asarray(where)
    log_q = jax.nn.log_softmax(jnp.where(valid[:, None], logits, 0), axis=1)
    return log_q, (own & valid[:, None]).astype(log_q.dtype), valid


def _groups(condition: Array | None, n: int) -> Int[jax.Array, "n"] | None:
    """A number below n for each row, the same for the same condition; None for one group."""
    if condition is None:
        return None
    _, group = jnp.unique(as_conditions(condition), return_inverse=True, size=n)
    return group


def _group_sums(
    values: Float[jax.Array, "n d"], group: Int[jax.Array, "n"] | None
) -> Float[jax.Array, "n d"]:
    """For each row, the sum over the rows of its group."""
    if group is None:
        return jnp.broadcast_to(jnp.sum(values, axis=0, keepdims=True), values.shape)
    return jax.ops.segment_sum(values, group, num_segments=len(values))[group]
