"""Agreement of paired rows, from its definitions."""

import functools

import numpy as np
from definitions.case import Case, unit_rows

from mmjax.losses.agreement import cosine_alignment, kernel_alignment, mean_squared_alignment
from mmjax.losses.kernels import polynomial_kernel, rbf_kernel


def gaussian_alignment(x, y, *, bandwidth, where=None):
    kernel = functools.partial(rbf_kernel, bandwidth=bandwidth)
    return kernel_alignment(x, y, kernel=kernel, where=where)


def polynomial_alignment(x, y, *, scale, offset, where=None):
    kernel = functools.partial(polynomial_kernel, degree=2, scale=scale, offset=offset)
    return kernel_alignment(x, y, kernel=kernel, where=where)


def one_minus_cosine(x, y):
    return 1 - (x * y).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)


def mean_square(x, y):
    return ((x - y) ** 2).mean(axis=1)


def gaussian_distance(x, y, *, bandwidth):
    return 2 - 2 * np.exp(-((x - y) ** 2).sum(axis=1) / (2 * bandwidth**2))


def quadratic_distance(x, y, *, scale, offset):
    """The feature space by itself: scaled products of pairs, scaled features, and a constant."""

    def features(z):
        pairs = scale * (z[:, :, None] * z[:, None, :]).reshape(len(z), -1)
        return np.concatenate([pairs, np.sqrt(2 * scale * offset) * z], axis=1)

    return ((features(x) - features(y)) ** 2).sum(axis=1)


X, Y = unit_rows(0), unit_rows(1)
LENGTHS = np.linspace(0.2, 5.0, len(X))[:, None]

CASES = {
    "cosine_alignment": Case(
        cosine_alignment, one_minus_cosine, rows={"x": X * LENGTHS, "y": Y / LENGTHS}
    ),
    "mean_squared_alignment": Case(mean_squared_alignment, mean_square, rows={"x": X, "y": Y}),
    "kernel_alignment": Case(
        gaussian_alignment,
        gaussian_distance,
        rows={"x": X, "y": Y},
        scalars={"bandwidth": 0.7},
        extreme={"bandwidth": 1e-4},
    ),
    "kernel_alignment/polynomial": Case(
        polynomial_alignment,
        quadratic_distance,
        rows={"x": X, "y": Y},
        scalars={"scale": 0.8, "offset": 0.5},
    ),
}
