"""Ours against other libraries: the same number and the same gradients, in float64.

A table as a test. The cases are in ``tests/losses/parity/``; what one has to know of a peer to get
the right number out of it stands there beside the case or, for the peers that are also timed, in
``experiments/benchmarks/peers.py``. A case whose peer is not installed is skipped with the reason.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import agreement, softmax, triplets
from parity.case import unit

from experiments.benchmarks.peers import peer_module
from mmjax.losses import clip_loss, info_nce, nt_xent

CASES = softmax.CASES | agreement.CASES | triplets.CASES


def module_of(name):
    try:
        return peer_module(name)
    except ImportError as error:
        pytest.skip(str(error))


@functools.cache
def with_gradients(name, side):
    """Value and gradients of one side of a case in JAX, compiled once for all seeds."""
    case = CASES[name]

    def value(rows, scalars):
        constants = {
            key: jnp.asarray(constant) if np.ndim(constant) else constant
            for key, constant in case.constants.items()
        }
        return jnp.mean(getattr(case, side)(*rows, **scalars, **constants))

    return jax.jit(jax.value_and_grad(value, (0, 1)))


def torch_with_gradients(case, rows, scalars):
    torch = module_of("torch")
    rows = [torch.tensor(x, requires_grad=True) for x in rows]
    scalars = {
        key: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for key, value in scalars.items()
    }
    constants = {
        key: torch.tensor(constant) if np.ndim(constant) else constant
        for key, constant in case.constants.items()
    }
    value = case.theirs(*rows, **scalars, **constants)
    wanted = [*rows, *scalars.values()]
    gradients = [
        torch.zeros_like(x) if gradient is None else gradient
        for x, gradient in zip(
            wanted, torch.autograd.grad(value, wanted, allow_unused=True), strict=True
        )
    ]
    of_rows, of_scalars = gradients[: len(rows)], gradients[len(rows) :]
    return value.detach(), (tuple(of_rows), dict(zip(scalars, of_scalars, strict=True)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_value_and_every_gradient_equal_the_peers(name, seed):
    case = CASES[name]
    module_of(case.module)
    rng = np.random.default_rng(seed)
    rows = tuple(rng.normal(size=shape) for shape in case.rows)
    with jax.enable_x64(True):
        arguments = rows, {key: np.float64(value) for key, value in case.scalars.items()}
        ours = with_gradients(name, "ours")(*arguments)
        if case.framework == "jax":
            theirs = with_gradients(name, "theirs")(*arguments)
        else:
            theirs = torch_with_gradients(case, *arguments)
        assert ours[0].dtype == jnp.float64
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for got, wanted in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(got, np.asarray(wanted), rtol=1e-6, atol=1e-9)
    # A comparison of zeros would say nothing.
    assert all(np.any(np.asarray(gradient)) for gradient in jax.tree.leaves(theirs))


# What the test suites of peers print, to the digits that they print.

OPTAX = np.array([[-1.9540, 1.0780], [0.2380, -0.5703], [1.8745, -0.0195], [-0.6719, -1.9210]])


@functools.partial(jax.jit, static_argnames=("loss", "options"))
def mean_of(loss, *rows, options=(), **scalars):
    return jnp.mean(loss(*rows, **scalars, **dict(options)))


@pytest.mark.parametrize(("first", "printed"), [(OPTAX[0], 14.01032), (0, 9.2889)])
def test_optax_two_pairs(first, printed):
    rows = np.array(OPTAX, np.float32)  # labels 0 0 1 1
    rows[0] = first
    rows = np.asarray(unit(rows))
    assert mean_of(nt_xent, rows[::2], rows[1::2], temperature=0.07) == pytest.approx(
        printed, abs=1e-4
    )


def test_optax_three_rows_of_a_class_and_one_of_another():
    """Labels 0 0 0 1: each ordered pair of the class competes with the row of the other class."""
    rows = np.asarray(unit(np.float32(OPTAX)))
    query, key = rows[[[0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1]]]
    value = mean_of(
        info_nce, query, key, temperature=0.07, negatives=rows[3:], weights=np.eye(6, dtype="f")
    )
    assert value == pytest.approx(8.968544, abs=1e-4)


@pytest.mark.parametrize(("label_smoothing", "printed"), [(0.0, 9.8753), (0.1, 10.2524)])
def test_torchmultimodal_at_its_first_temperature(label_smoothing, printed):
    torch = module_of("torch")  # for its random numbers
    generator = torch.Generator().manual_seed(1234)
    x, y = (torch.randn(3, 5, generator=generator).numpy() for _ in range(2))
    options = (("label_smoothing", label_smoothing),)
    value = mean_of(clip_loss, x, y, logit_scale=1 / 0.07, options=options)
    assert value == pytest.approx(printed, abs=1e-3)
