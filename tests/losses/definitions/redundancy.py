"""Redundancy reduction, from its definitions."""

import numpy as np
from definitions.case import Case, unit_rows

from mmjax.losses.redundancy import barlow_twins, vicreg


def vicreg_terms(x, y, *, invariance, variance, covariance):
    """Eqs. 1 to 6, with a mean over features for the first term and a mean of two for the next."""

    def hinge(z):
        return np.maximum(0, 1 - np.sqrt(z.var(axis=0, ddof=1) + 1e-4)).mean()

    def overlap(z):
        matrix = np.cov(z, rowvar=False)
        return (matrix**2).sum() / len(matrix) - (np.diag(matrix) ** 2).mean()

    return (
        invariance * ((x - y) ** 2).mean()
        + variance * (hinge(x) + hinge(y)) / 2
        + covariance * (overlap(x) + overlap(y))
    )


def barlow_twins_terms(x, y, *, redundancy):
    features = x.shape[1]
    matrix = np.corrcoef(x, y, rowvar=False)[:features, features:]
    own = ((1 - np.diag(matrix)) ** 2).sum()
    return own + redundancy * ((matrix**2).sum() - (np.diag(matrix) ** 2).sum())


# Deviations on both sides of the hinge of VICReg, and none near it.
SCALES = np.array([0.5, 1.0, 4.0, 6.0])
X = unit_rows(0) * SCALES
Y = 0.7 * X + 0.5 * unit_rows(1) * SCALES + 0.3

CASES = {
    "vicreg": Case(
        vicreg,
        vicreg_terms,
        rows={"x": X, "y": Y},
        scalars={"invariance": 25.0, "variance": 15.0, "covariance": 2.0},
        whole=True,
    ),
    "barlow_twins": Case(
        barlow_twins,
        barlow_twins_terms,
        rows={"x": X, "y": Y},
        scalars={"redundancy": 0.05},
        whole=True,
    ),
}
