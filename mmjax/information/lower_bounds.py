r"""Lower bounds of mutual information from a matrix of scores.

``scores[i, j]`` is what a critic :math:`f(x_i, y_j)` says; pairs on the diagonal are draws of
:math:`p(x, y)`, pairs off it of :math:`p(x)\,p(y)`. Each function returns one value per row, whose
mean (:func:`mmjax.reduction.masked_mean`) is the bound: maximise it to train the critic. No
estimate that bounds from below with high confidence, whatever the distribution, exceeds
:math:`O(\log n)` (McAllester and Stratos 2018, arXiv:1811.04251): what goes beyond has a variance
that grows with :math:`e^I`.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, Scalar, as_scalar, checked
from mmjax.information.scores import Scores, log_mean_exp, read_scores


@checked
def info_nce_bound(
    scores: Float[Array, "n m"],
    *,
    where: Bool[Array, "n"] | Bool[Array, "n m"] | None = None,
) -> Float[jax.Array, "n"]:
    r"""InfoNCE: how much likelier than chance each row's own column is named.

    .. math:: I(X; Y) \ge \mathbb E \Big[ f_{ii} - \log \frac{1}{K_i} \sum_{j \in V_i} e^{f_{ij}}
              \Big], \qquad K_i = |V_i| \le m

    A lower bound with little variance, and never more than :math:`\log K_i`: with less than
    :math:`e^I` columns it saturates.

    Args:
        scores: of any critic; the first n columns are the partners of the rows.
        where: valid rows, or valid pairs :math:`(i, j \in V_i)`, all if None. What is invalid
            counts nowhere; its gradient is 0 even where it holds NaN.

    Returns:
        One value per row, in nats; 0 for an invalid row and for one with nothing to be compared
        with. It is :math:`\log K_i` less the loss :func:`mmjax.losses.info_nce`, which needs no
        matrix.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if there are fewer columns than rows.

    Source: van den Oord et al. 2018, arXiv:1807.03748, sec. 2.3; Poole et al. 2019,
    arXiv:1905.06922, sec. 2.3.

    >>> print(f"{info_nce_bound(50 * jnp.eye(4)).mean():.4f} {jnp.log(4.0):.4f}")
    1.3863 1.3863
    """
    read = read_scores(scores, where)
    return read.joint - log_mean_exp(read.all, read.own | read.apart)


@checked
def nwj_bound(
    scores: Float[Array, "n m"],
    *,
    where: Bool[Array, "n"] | Bool[Array, "n m"] | None = None,
) -> Float[jax.Array, "n"]:
    r"""Nguyen-Wainwright-Jordan, also known as f-GAN KL or MINE-f: unbiased, of high variance.

    .. math:: I(X; Y) \ge \mathbb E_{p(x, y)}[f] - e^{-1}\, \mathbb E_{p(x) p(y)}[e^f]

    A lower bound, whose estimate from a batch is unbiased, without a ceiling. It is tight for
    :math:`f = 1 + \log \frac{p(x, y)}{p(x) p(y)}`; for a critic that is a log-ratio itself, see
    :func:`nwj_of_log_ratio`.

    Args:
        scores: of any critic; the first n columns are the partners of the rows. In float32 a score
            above 88 off the diagonal overflows: the bound is then :math:`-\infty`, as it almost is.
        where: as for :func:`info_nce_bound`.

    Returns:
        One value per row, in nats; 0 for an invalid row and for one with nothing to be compared
        with.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if there are fewer columns than rows.

    Source: Nguyen et al. 2010, arXiv:0809.0853; Poole et al. 2019, arXiv:1905.06922, sec. 2.2.

    >>> print(nwj_bound(jnp.ones((3, 3))))  # X and Y are independent: f = 1
    [0. 0. 0.]
    """
    return _nwj(read_scores(scores, where))


@checked
def nwj_of_log_ratio(
    scores: Float[Array, "n m"],
    *,
    where: Bool[Array, "n"] | Bool[Array, "n m"] | None = None,
) -> Float[jax.Array, "n"]:
    r"""Nguyen-Wainwright-Jordan read off a critic that is a log-ratio of densities.

    .. math:: I(X; Y) \ge 1 + \mathbb E_{p(x, y)}[f] - \mathbb E_{p(x) p(y)}[e^f]

    A lower bound, unbiased, without a ceiling; train the critic with
    :func:`jensen_shannon_bound`, whose gradient is steadier, and read the information off here.

    Args:
        scores: estimates of :math:`\log \frac{p(x, y)}{p(x) p(y)}`.
        where: as for :func:`info_nce_bound`.

    Returns:
        One value per row, in nats; 0 for an invalid row and for one with nothing to be compared
        with.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if there are fewer columns than rows.

    Source: Poole et al. 2019, arXiv:1905.06922, who call it :math:`I_{JS}`: :func:`nwj_bound` of
    :math:`f + 1`.

    >>> print(nwj_of_log_ratio(jnp.zeros((3, 3))))  # X and Y are independent: f = 0
    [0. 0. 0.]
    """
    read = read_scores(scores, where)
    return _nwj(read._replace(joint=read.joint + 1, all=read.all + 1))


@checked
def donsker_varadhan_bound(
    scores: Float[Array, "n m"],
    *,
    where: Bool[Array, "n"] | Bool[Array, "n m"] | None = None,
) -> Float[jax.Array, "n"]:
    r"""Donsker-Varadhan: what MINE maximises.

    .. math:: I(X; Y) \ge \mathbb E_{p(x, y)}[f] - \log \mathbb E_{p(x) p(y)}[e^f]

    The tightest lower bound for a given critic, without a ceiling. Its estimate from a batch is no
    bound: the logarithm of a batch's mean is too low on average, the estimate too high. The
    gradient is biased likewise; :func:`mmjax.information.mine` corrects it.

    Args:
        scores: of any critic; the first n columns are the partners of the rows.
        where: as for :func:`info_nce_bound`.

    Returns:
        One value per row, in nats: the estimate is their mean, and each by itself estimates the
        log-ratio of densities at its pair. 0 for an invalid row and for one with nothing to be
        compared with.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if there are fewer columns than rows.

    Source: Donsker and Varadhan 1983; Belghazi et al. 2018, arXiv:1801.04062, sec. 3.1.

    >>> print(donsker_varadhan_bound(jnp.full((3, 3), 7.0)))
    [0. 0. 0.]
    """
    read = read_scores(scores, where)
    return jnp.where(read.usable, read.joint - log_partition(read), 0)


@checked
def jensen_shannon_bound(
    scores: Float[Array, "n m"],
    *,
    where: Bool[Array, "n"] | Bool[Array, "n m"] | None = None,
) -> Float[jax.Array, "n"]:
    r"""Lower bound of the Jensen-Shannon divergence between joint and product of marginals.

    .. math:: \mathrm{JS} \ge \log 2 - \tfrac12 \mathbb E_{p(x, y)}[\log(1 + e^{-f})]
                                     - \tfrac12 \mathbb E_{p(x) p(y)}[\log(1 + e^{f})]

    Not the mutual information: never more than :math:`\log 2`. It is tight for the log-ratio of
    densities, whose information :func:`nwj_of_log_ratio` and :func:`smile` estimate.

    Args:
        scores: of any critic; the first n columns are the partners of the rows.
        where: as for :func:`info_nce_bound`.

    Returns:
        One value per row, in nats; 0 for an invalid row and for one with nothing to be compared
        with.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if there are fewer columns than rows.

    Source: Nowozin et al. 2016, arXiv:1606.00709; Hjelm et al. 2018, arXiv:1808.06670,
    eq. 4, which is twice this without the constant.

    >>> print(jensen_shannon_bound(jnp.zeros((3, 3))))
    [0. 0. 0.]
    """
    read = read_scores(scores, where)
    joint = jax.nn.softplus(-read.joint)
    rows = math.log(2) - (joint + read.mean_apart(jax.nn.softplus(read.all))) / 2
    return jnp.where(read.usable, rows, 0)


@checked
def smile(
    scores: Float[Array, "n m"],
    *,
    clip: Scalar = 5.0,
    where: Bool[Array, "n"] | Bool[Array, "n m"] | None = None,
) -> Float[jax.Array, "n"]:
    r"""Donsker-Varadhan with clipped density ratios: less variance for some bias.

    .. math:: I \approx \mathbb E_{p(x, y)}[f] - \log \mathbb E_{p(x) p(y)}
              \big[\min(\max(e^f, e^{-\tau}), e^\tau)\big]

    No bound: clipping leaves out what is likeliest, so that the estimate may lie above the
    information; it tends to Donsker-Varadhan's as :math:`\tau \to \infty`. Its authors train the
    critic with :func:`jensen_shannon_bound` and only evaluate with this.

    Args:
        scores: estimates of :math:`\log \frac{p(x, y)}{p(x) p(y)}`.
        clip: :math:`\tau > 0`, in nats. The variance is at most about :math:`e^{2 \tau} / n`.
        where: as for :func:`info_nce_bound`.

    Returns:
        One value per row, in nats; 0 for an invalid row and for one with nothing to be compared
        with. A clipped score has a gradient of 0.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if there are fewer columns than rows, or a Python or NumPy ``clip`` is not
            positive and finite.

    Source: Song and Ermon 2020, arXiv:1910.06222, sec. 4.

    >>> scores = jnp.array([[2.0, -90.0], [-90.0, 2.0]])
    >>> print(smile(scores, clip=5.0))
    [7. 7.]
    """
    read = read_scores(scores, where)
    bound = as_scalar("clip", clip, dtype=read.all.dtype, positive=True)
    clipped = read._replace(all=jnp.clip(read.all, -bound, bound))
    return jnp.where(read.usable, read.joint - log_partition(clipped), 0)


def log_partition(read: Scores) -> Float[jax.Array, ""]:
    r"""Logarithm of the mean ratio over the product of marginals, each row with equal weight.

    .. math:: \log \frac{1}{|V|} \sum_{i \in V} \frac{1}{|V_i|} \sum_{j \in V_i} e^{f_{ij}}

    Args:
        read: scores; :math:`V_i` are the columns apart from row i, :math:`V` the rows with any.

    Returns:
        One value for the matrix, in nats; 0 if nothing is apart.

    Source: Belghazi et al. 2018, arXiv:1801.04062, sec. 3.1.

    >>> print(log_partition(read_scores(jnp.full((3, 3), 7.0), None)))
    7.0
    """
    return log_mean_exp(log_mean_exp(read.all, read.apart), read.usable)


def _nwj(read: Scores) -> Float[jax.Array, "n"]:
    # The diagonal is no draw of the product of marginals, and must not overflow.
    ratios = jnp.exp(jnp.where(read.apart, read.all - 1, 0))
    return jnp.where(read.usable, read.joint - read.mean_apart(ratios), 0)
