r"""Upper bounds of mutual information from a matrix of scores.

``scores[i, j]`` is what is known of the pair :math:`(x_i, y_j)`; pairs on the diagonal are draws of
:math:`p(x, y)`, pairs off it of :math:`p(x)\,p(y)`. Each function returns one value per row, whose
mean (:func:`mmjax.reduction.masked_mean`) is the bound. CLUB with a Gaussian or a categorical needs
no matrix: :mod:`mmjax.information.log_ratio`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, checked
from mmjax.information.scores import log_mean_exp, read_scores


@checked
def leave_one_out_bound(
    log_density: Float[Array, "n n"],
    *,
    where: Bool[Array, "n"] | Bool[Array, "n n"] | None = None,
) -> Float[jax.Array, "n"]:
    r"""Leave-one-out: the marginal is replaced by the mixture of the other rows' conditionals.

    .. math:: I(X; Y) \le \mathbb E \Big[ \log p(y_i \mid x_i)
              - \log \frac{1}{K_i - 1} \sum_{j \ne i} p(y_i \mid x_j) \Big]

    An upper bound for the true conditional. For a model of it, or any other critic, it is none:
    the error of the model counts twice, with either sign. Without its own term the mixture cannot
    saturate at :math:`\log K`: with few rows it is far above the information.

    Args:
        log_density: ``log_density[i, j]`` is :math:`\log p(y_j \mid x_i)`, in nats, such as
            :func:`mmjax.information.gaussian_scores`.
        where: valid rows, or valid pairs, all if None. What is invalid counts nowhere; its gradient
            is 0 even where it holds NaN.

    Returns:
        One value for each :math:`y_i`, in nats; 0 for an invalid one and for one with nothing to be
        compared with.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Poole et al. 2019, arXiv:1905.06922, sec. 2.5. The mixture runs over the *other*
    conditionals of the same :math:`y`, a column of the matrix.

    >>> bound = leave_one_out_bound(jnp.log(jnp.array([[0.9, 0.1], [0.3, 0.7]])))
    >>> print(f"{bound[0]:.4f} {jnp.log(0.9 / 0.3):.4f}")
    1.0986 1.0986
    """
    pairs = where.T if where is not None and where.ndim == 2 else where
    read = read_scores(log_density.T, pairs)
    return jnp.where(read.usable, read.joint - log_mean_exp(read.all, read.apart), 0)


@checked
def nce_club(
    scores: Float[Array, "n m"],
    *,
    where: Bool[Array, "n"] | Bool[Array, "n m"] | None = None,
) -> Float[jax.Array, "n"]:
    r"""Contrastive log-ratio of a critic: its mean on the joint less that on the marginals.

    .. math:: I(X; Y) \le \mathbb E_{p(x, y)}[f^\star] - \mathbb E_{p(x) p(y)}[f^\star], \qquad
              f^\star = \log \frac{p(x, y)}{p(x) p(y)} + c(x)

    With the optimal critic of :func:`mmjax.information.info_nce_bound` this is
    :math:`\mathrm{KL}(p(x, y) \,\|\, p(x) p(y)) + \mathrm{KL}(p(x) p(y) \,\|\, p(x, y))`, an upper
    bound; the critic is maximised by InfoNCE and held fixed here. With a critic that is not yet
    optimal it is none. With ``scores[i, j]`` :math:`= \log q(y_j \mid x_i)` it is CLUB for any
    :math:`q`.

    Args:
        scores: of a critic trained with InfoNCE; the first n columns are the partners of the rows.
        where: as for :func:`mmjax.information.info_nce_bound`.

    Returns:
        One value per row, in nats; 0 for an invalid row and for one with nothing to be compared
        with.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if there are fewer columns than rows.

    Source: Liang et al. 2023 (FactorCL), arXiv:2306.05268, sec. 3, NCE-CLUB. In the released
    code the mean over the marginals has the joint pairs among them, which multiplies the bound by
    :math:`(n - 1) / n`.

    >>> print(nce_club(jnp.array([[3.0, 1.0], [2.0, 4.0]])))
    [2. 2.]
    """
    read = read_scores(scores, where)
    return jnp.where(read.usable, read.joint - read.mean_apart(read.all), 0)
