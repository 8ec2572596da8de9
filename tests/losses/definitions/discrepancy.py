"""Discrepancy of two samples, from its definitions: means over all pairs, moment by moment."""

import functools

import numpy as np
from definitions.case import Case, unit_rows
from jaxtyping import Float

from mmjax.arrays import Array, checked
from mmjax.losses.discrepancy import cmd, mmd
from mmjax.losses.kernels import polynomial_kernel, rbf_kernel

CHUNK = 5  # divides neither the rows nor a mask


@checked
def with_one_mask(function, x: Float[Array, "n d"], y: Float[Array, "n d"], where, options):
    """The samples need not be paired; the contract pairs them, with one mask for both."""
    return function(x, y, where_x=where, where_y=where, **options)


def gaussian_mmd(x, y, *, bandwidth, where=None, **options):
    kernel = functools.partial(rbf_kernel, bandwidth=bandwidth)
    return with_one_mask(mmd, x, y, where, {"kernel": kernel, "chunk_size": CHUNK, **options})


def polynomial_mmd(x, y, *, scale, offset, where=None, **options):
    kernel = functools.partial(polynomial_kernel, degree=3, scale=scale, offset=offset)
    return with_one_mask(mmd, x, y, where, {"kernel": kernel, "chunk_size": CHUNK, **options})


def paired_cmd(x, y, *, where=None, **options):
    return with_one_mask(cmd, x, y, where, options)


def mmd_of(kernel, x, y, unbiased):
    def within(k):
        if not unbiased:
            return k.mean()
        return k[~np.eye(len(k), dtype=bool)].mean()

    return within(kernel(x, x)) + within(kernel(y, y)) - 2 * kernel(x, y).mean()


def gaussian_mmd_definition(x, y, *, bandwidth, unbiased=False):
    def kernel(x, y):
        return np.exp(-((x[:, None] - y[None]) ** 2).sum(axis=-1) / (2 * bandwidth**2))

    return mmd_of(kernel, x, y, unbiased)


def polynomial_mmd_definition(x, y, *, scale, offset, unbiased=False):
    return mmd_of(lambda x, y: (scale * (x @ y.T) + offset) ** 3, x, y, unbiased)


def cmd_definition(x, y, *, interval, moments=5):
    width = interval[1] - interval[0]
    total = np.linalg.norm(x.mean(axis=0) - y.mean(axis=0)) / width
    for k in range(2, moments + 1):
        central = [((z - z.mean(axis=0)) ** k).mean(axis=0) for z in (x, y)]
        total += np.linalg.norm(central[0] - central[1]) / width**k
    return total


ROWS = {"x": unit_rows(0), "y": 0.5 * unit_rows(1) + 0.3}
BANDWIDTH = {"bandwidth": 0.7}
MONOMIALS = {"scale": 0.8, "offset": 0.5}
UNBIASED = {"unbiased": True}

CASES = {
    "mmd": Case(
        gaussian_mmd, gaussian_mmd_definition, ROWS, BANDWIDTH, {"bandwidth": 0.01}, whole=True
    ),
    "mmd/polynomial-unbiased": Case(
        polynomial_mmd, polynomial_mmd_definition, ROWS, MONOMIALS, options=UNBIASED, whole=True
    ),
    "cmd": Case(paired_cmd, cmd_definition, ROWS, options={"interval": (-1.0, 1.0)}, whole=True),
}
