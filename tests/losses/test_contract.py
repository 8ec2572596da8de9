"""What holds for every public loss: add its definition to a list of cases and all of it is tested.

The definitions are NumPy in float64, with invalid rows deleted; gradients are central differences
of them. Invalid rows hold NaN on their way in.
"""

import functools
import importlib
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from definitions.case import SHARDS, N
from definitions.contexts import (
    DATA,
    LAYOUTS,
    WEIGHTS,
    compiled,
    mesh,
    objective,
    parallel,
    runs,
    specs,
    split,
)
from jax.sharding import PartitionSpec as P
from jaxtyping import TypeCheckError

import mmjax.losses

FAMILIES = sorted(
    path.stem
    for path in (pathlib.Path(__file__).parent / "definitions").glob("*.py")
    if path.stem not in ("case", "contexts")
)
CASES = {}
for family in FAMILIES:
    CASES |= importlib.import_module(f"definitions.{family}").CASES
every_case = pytest.mark.parametrize("name", CASES)
every_run = pytest.mark.parametrize(("name", "context", "layout", "dtype"), list(runs(CASES)))

TESTS = itertools.count(1)


@pytest.fixture(autouse=True)
def forget_programs():
    """All programs of this file together would be more mappings of memory than Linux allows."""
    yield
    if next(TESTS) % 50 == 0:
        compiled.cache_clear()
        parallel.cache_clear()
        jax.clear_caches()


RAGGED = np.random.default_rng(1).uniform(size=N) < 0.5
MASKS = {"full": np.ones(N, bool), "ragged": RAGGED, "empty": np.zeros(N, bool)}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def moving(case):
    """Names of the arguments that are differentiated."""
    rows = [name for name, x in case.rows.items() if x.dtype.kind == "f"]
    return [*rows, *case.others, *case.scalars]


def rounded(case, dtype):
    """The arrays as ``dtype`` holds them: the definition sees exactly what the loss sees."""
    arrays = {**case.rows, **case.pairs, **case.others}
    floats = {name for name, x in arrays.items() if x.dtype.kind == "f"}
    return {
        name: np.asarray(x.astype(dtype if name not in case.pairs else np.float32))
        if name in floats
        else x
        for name, x in arrays.items()
    }


def by_definition(case, inputs, where):
    """Rows, 0 where invalid, or the one value of the batch; of valid rows only."""
    if not where.any():
        return np.float64(0) if case.whole else np.zeros(N)
    arguments = {name: x[where] if name in case.rows else x for name, x in inputs.items()}
    for name in case.pairs:
        arguments[name] = arguments[name][where][:, where]
    found = case.definition(**arguments, **case.options)
    if case.whole:
        return np.float64(found)
    rows = np.zeros(N)
    rows[where] = found
    return rows


@functools.cache
def wanted(name, mask, dtype):
    """Rows and gradients, by definition, of the weighted mean over valid rows."""
    case, where = CASES[name], MASKS[mask]
    inputs = {
        k: np.float64(x) if x.dtype.kind not in "ib" else x for k, x in rounded(case, dtype).items()
    }
    inputs |= case.scalars

    def value(inputs):
        found = by_definition(case, inputs, where)
        return found if case.whole else (found * WEIGHTS).sum() / max(where.sum(), 1)

    def central_difference(key, index, step=1e-5):
        ends = []
        for sign in (1, -1):
            moved = np.array(inputs[key], np.float64)
            moved[index] += sign * step
            ends.append(value({**inputs, key: moved}))
        return (ends[0] - ends[1]) / (2 * step)

    gradients = {key: np.zeros(np.shape(inputs[key])) for key in moving(case)}
    for key, gradient in gradients.items():
        for index in np.ndindex(gradient.shape if key not in case.constant else 0):
            gradient[index] = central_difference(key, index)
    return by_definition(case, inputs, where), value(inputs), gradients


def arguments(case, mask, dtype=jnp.float32, scalars=None):
    """Arguments with NaN in every invalid row."""
    where, inputs = MASKS[mask], rounded(case, dtype)
    for name in case.rows:
        x = inputs[name]
        if x.dtype.kind not in "ib":
            keep = where.reshape(-1, *[1] * (x.ndim - 1))
            inputs[name] = np.where(keep, x, np.array(np.nan, x.dtype))
    scalars = case.scalars if scalars is None else scalars
    return {**inputs, **{k: jnp.float32(v) for k, v in scalars.items()}}, where


def call(name, context, layout, mask, dtype=jnp.float32):
    case = CASES[name]
    inputs, where = arguments(case, mask, dtype)
    return compiled(case, context, layout)(inputs, where, WEIGHTS)


@every_run
def test_value_and_every_gradient_equal_the_definition(name, context, layout, dtype):
    case, dtype = CASES[name], DTYPES[dtype]
    for mask, where in MASKS.items():
        (value, rows), gradients = call(name, context, layout, mask, dtype)
        wanted_rows, wanted_value, wanted_gradients = wanted(name, mask, dtype)
        # bfloat16 rows are products and sums in float32, so the rows are as exact as float32 ones.
        assert rows.dtype == value.dtype == jnp.float32
        np.testing.assert_allclose(rows, wanted_rows, rtol=2e-5, atol=2e-6, err_msg=mask)
        np.testing.assert_allclose(value, wanted_value, rtol=2e-5, atol=2e-6, err_msg=mask)
        assert set(gradients) >= set(wanted_gradients)
        for key, wanted_gradient in wanted_gradients.items():
            gradient = np.float32(gradients[key])
            # Summed in float32, over shards too, and rounded once: half a unit in the last place.
            tolerance = 2**-8 if gradients[key].dtype == jnp.bfloat16 else 2e-5
            np.testing.assert_allclose(
                gradient, wanted_gradient, rtol=tolerance, atol=2e-6, err_msg=f"{mask} {key}"
            )
            if key in case.rows:
                assert not np.any(gradient[~where])
        if not case.whole:
            assert not np.any(rows[~where])


@pytest.mark.parametrize("layout", ["dense", "ring-chunked"])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.streamed])
def test_rows_sharded_over_two_mesh_axes_keep_their_own_positives(name, layout):
    case, rows = CASES[name], P(("slice", "chip"))
    axes = ("slice", "chip")
    inputs, where = arguments(case, "ragged")
    placed = tuple(specs(case, part, rows) for part in split(inputs))
    sharded = jax.jit(
        jax.shard_map(
            functools.partial(objective, case, layout, axes),
            mesh=mesh(slice=2, chip=4),
            in_specs=(*placed, rows, rows),
            out_specs=(P(), rows),
        )
    )
    value, got = sharded(*split(inputs), where, WEIGHTS)
    wanted_rows, wanted_value, _ = wanted(name, "ragged", jnp.float32)
    np.testing.assert_allclose(got, wanted_rows, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(value, wanted_value, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_unchecked_shards_need_the_mean_of_their_gradients(layout):
    """The docstrings say so; were it no longer true, they would be wrong."""
    case = CASES["siglip_loss"]
    inputs, where = arguments(case, "ragged")

    def local(x, y, where, weights):
        def replicated(scalars):
            return objective(case, layout, "data", {"x": x, "y": y} | scalars, {}, where, weights)[
                0
            ]

        raw = jax.grad(replicated)({name: inputs[name] for name in case.scalars})
        both = {"raw": raw, "averaged": jax.lax.pmean(raw, "data")}
        return jax.tree.map(lambda gradient: gradient[None], both)

    sharded = jax.shard_map(
        local, mesh=mesh(data=SHARDS), in_specs=DATA, out_specs=DATA, check_vma=False
    )
    gradients = jax.jit(sharded)(inputs["x"], inputs["y"], where, WEIGHTS)
    for key in case.scalars:
        exact = wanted("siglip_loss", "ragged", jnp.float32)[2][key]
        averaged, raw = (np.ravel(gradients[kind][key]) for kind in ("averaged", "raw"))
        np.testing.assert_allclose(averaged, np.full(SHARDS, exact), rtol=2e-5, atol=1e-6)
        assert np.abs(raw - exact).max() > 0.1 * abs(exact)


@every_case
def test_no_mask_is_a_full_mask_and_numpy_rows_are_welcome(name):
    case = CASES[name]
    found = case.function(**rounded(case, jnp.float32), **case.scalars, **case.options)
    exact = wanted(name, "full", jnp.float32)[0]
    np.testing.assert_allclose(found, exact, rtol=2e-5, atol=2e-6)


@every_case
def test_permuting_the_rows_permutes_the_losses(name):
    case, order = CASES[name], np.random.default_rng(2).permutation(N)
    inputs, where = arguments(case, "ragged")
    permuted = {key: x[order] if key in case.rows else x for key, x in inputs.items()}
    permuted |= {key: inputs[key][order][:, order] for key in case.pairs}
    run = compiled(case, "unsharded", "dense")
    (_, before), _ = run(inputs, where, WEIGHTS)
    (_, after), _ = run(permuted, where[order], WEIGHTS)
    np.testing.assert_allclose(after, before if case.whole else before[order], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("rows", ["at-random", "solved", "opposed"])
@pytest.mark.parametrize("layout", ["dense", "chunked"])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.extreme])
def test_extreme_scales_do_not_overflow(name, layout, rows):
    case = CASES[name]
    if layout == "chunked" and not case.streamed:
        pytest.skip("has no blocks")
    inputs, where = arguments(case, "full", scalars=case.extreme)
    first, second = [*(key for key in case.rows if np.shape(inputs[key]) == (N, 4)), None, None][:2]
    if second is None and rows != "at-random":
        pytest.skip("has no second side to solve or to oppose")
    if rows != "at-random":
        inputs[second] = inputs[first] if rows == "solved" else -inputs[first]
    (_, got), gradients = compiled(case, "unsharded", layout)(inputs, where, WEIGHTS)
    exact = {k: np.float64(x) if x.dtype.kind == "f" else x for k, x in inputs.items()}
    definition = by_definition(case, {**exact, **case.extreme}, where)
    np.testing.assert_allclose(got, definition, rtol=2e-5, atol=5e-3)  # float32 is 1e-3 at 1e4
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradients))


@every_case
def test_no_nan_is_made_on_the_way_even_where_all_rows_are_invalid(name):
    """A user who hunts for a NaN with jax_debug_nans must not be sent here."""
    case = CASES[name]
    inputs = rounded(case, jnp.float32) | {k: jnp.float32(v) for k, v in case.scalars.items()}
    with jax.debug_nans(True), jax.debug_infs(True):
        (value, _), gradients = compiled(case, "unsharded", "dense")(
            inputs, MASKS["empty"], WEIGHTS
        )
    assert value == 0
    assert not any(np.any(gradient) for gradient in jax.tree.leaves(gradients))


@every_case
def test_float64_rows_are_computed_in_float64(name):
    case = CASES[name]
    arrays = {**case.rows, **case.pairs, **case.others}
    with jax.enable_x64(True):
        found = case.function(**arrays, **case.scalars, **case.options)
        assert found.dtype == jnp.float64
        exact = by_definition(case, {**arrays, **case.scalars}, MASKS["full"])
        np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "name",
    [name for name, case in CASES.items() if "/" not in name and {"x", "y"} <= set(case.rows)],
)
def test_towers_of_different_precision_are_compared_in_float32(name):
    case = CASES[name]
    mixed = rounded(case, jnp.float32) | {"x": rounded(case, jnp.bfloat16)["x"]}
    found = case.function(**mixed, **case.scalars, **case.options)
    exact = {k: np.float64(v) if v.dtype.kind not in "ib" else v for k, v in mixed.items()}
    definition = by_definition(case, {**exact, **case.scalars}, MASKS["full"])
    np.testing.assert_allclose(found, definition, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("bad", [0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.streamed])
def test_a_scale_that_cannot_be_is_refused_while_tracing(name, bad):
    case = CASES[name]
    scale = next(iter(case.scalars))
    run = functools.partial(case.function, **{**case.scalars, scale: bad}, **case.options)
    with pytest.raises(ValueError, match=f"{scale} must be positive and finite, got {bad}"):
        jax.eval_shape(lambda arrays: run(**arrays), rounded(case, jnp.float32))


@pytest.mark.parametrize("wrong", ["rows", "features", "dtype", "mask-rows", "mask-dtype"])
# The case of pairwise calls it with masks of its own: test_modalities.py has its errors.
@pytest.mark.parametrize("name", [n for n in CASES if "/" not in n and n != "pairwise"])
def test_wrong_shapes_and_dtypes_are_refused(name, wrong):
    case = CASES[name]
    inputs, where = rounded(case, jnp.float32), MASKS["full"]
    first = next(iter(case.rows))
    second = [*case.rows][min(1, len(case.rows) - 1)]
    if wrong == "rows":
        inputs[second] = inputs[second][:-1]
    elif wrong == "features":
        inputs[second] = inputs[second][..., None]
    elif wrong == "dtype":
        inputs[first] = inputs[first].astype(np.complex64)
    else:
        where = where[:-1] if wrong == "mask-rows" else where.astype(np.float32)
    with pytest.raises(TypeCheckError):
        case.function(**inputs, **case.scalars, **case.options, where=where)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"chunk_size": 0}, "chunk_size must be at least 1, got 0; None is one single block"),
        ({"ring": True}, "ring=True needs the axis_name"),
    ],
)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.streamed])
def test_a_layout_that_cannot_be_is_refused(name, layout, message):
    case = CASES[name]
    arrays = rounded(case, jnp.float32)
    with pytest.raises(ValueError, match=message):
        case.function(**arrays, **case.scalars, **case.options, **layout)


def test_every_public_loss_is_under_this_contract():
    beside = {  # public, and no losses
        *("Kernel", "linear_kernel", "polynomial_kernel", "rbf_kernel", "median_bandwidth"),
        *("Queue", "empty_queue", "enqueue", "hard_negative_indices", "has_pair"),
        "siglip_bias_init",
    }
    assert set(mmjax.losses.__all__) - beside == {name.split("/")[0] for name in CASES}
