"""Dependence of paired samples, from its definitions: matrices of all pairs, traces, loops."""

import functools

import numpy as np
from definitions.case import Case, unit_rows

from mmjax.losses.dependence import cka, hsic, orthogonality
from mmjax.losses.kernels import polynomial_kernel, rbf_kernel

CHUNK = 5  # divides neither the rows nor a mask


def kernels(bandwidth, offset):
    return {
        "kernel_x": functools.partial(rbf_kernel, bandwidth=bandwidth),
        "kernel_y": functools.partial(polynomial_kernel, degree=2, offset=offset),
    }


def mixed_hsic(x, y, *, bandwidth, offset, **options):
    return hsic(x, y, **kernels(bandwidth, offset), chunk_size=CHUNK, **options)


def mixed_cka(x, y, *, bandwidth, offset, **options):
    return cka(x, y, **kernels(bandwidth, offset), chunk_size=CHUNK, **options)


def gram_matrices(x, y, bandwidth, offset):
    squares = ((x[:, None] - x[None]) ** 2).sum(axis=-1)
    return np.exp(-squares / (2 * bandwidth**2)), (y @ y.T + offset) ** 2


def hsic_of(k, m, unbiased):
    n = len(k)
    if not unbiased:
        centring = np.eye(n) - 1 / n
        return np.trace(k @ centring @ m @ centring) / (n - 1) ** 2
    k, m, ones = k - np.diag(np.diag(k)), m - np.diag(np.diag(m)), np.ones(n)
    terms = (
        np.trace(k @ m),
        (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2)),
        -2 / (n - 2) * (ones @ k @ m @ ones),
    )
    return sum(terms) / (n * (n - 3))


def cka_of(k, m, unbiased):
    sides = hsic_of(k, k, unbiased) * hsic_of(m, m, unbiased)
    return hsic_of(k, m, unbiased) / np.sqrt(sides)


def mixed_hsic_definition(x, y, *, bandwidth, offset, unbiased=False):
    return hsic_of(*gram_matrices(x, y, bandwidth, offset), unbiased)


def mixed_cka_definition(x, y, *, bandwidth, offset, unbiased=False):
    return cka_of(*gram_matrices(x, y, bandwidth, offset), unbiased)


def linear_cka_definition(x, y, *, unbiased=False):
    return cka_of(x @ x.T, y @ y.T, unbiased)


def orthogonality_definition(x, y):
    x, y = (z - z.mean(axis=0) for z in (x, y))
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    return np.linalg.norm(x.T @ y, "fro") ** 2 / len(x) ** 2


X = unit_rows(0)
Y = 0.8 * X + 0.4 * unit_rows(1) + 0.3
ROWS = {"x": X, "y": Y}
SCALARS = {"bandwidth": 0.7, "offset": 0.5}
EXTREME = {"bandwidth": 0.01, "offset": 10.0}
UNBIASED = {"unbiased": True}

CASES = {
    "hsic": Case(mixed_hsic, mixed_hsic_definition, ROWS, SCALARS, EXTREME, whole=True),
    "hsic/unbiased": Case(
        mixed_hsic, mixed_hsic_definition, ROWS, SCALARS, options=UNBIASED, whole=True
    ),
    "cka": Case(cka, linear_cka_definition, ROWS, whole=True),
    "cka/unbiased": Case(cka, linear_cka_definition, ROWS, options=UNBIASED, whole=True),
    "cka/kernels": Case(mixed_cka, mixed_cka_definition, ROWS, SCALARS, EXTREME, whole=True),
    "orthogonality": Case(orthogonality, orthogonality_definition, ROWS, whole=True),
}
