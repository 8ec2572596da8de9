"""What holds for every operator on rows: add its definition to CASES and all of it is tested.

A definition is of one example, in float64, and is handed only the modalities that the example has:
that masking equals deleting is not checked beside the values, it is what the values have to be.
"""

import functools
import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mmjax.fusion import FUSIONS

SIZES = {"image": 3, "sound": 2, "text": 4}
FEATURES = 4


def kernel_sum(p, x, name="kernel"):
    return sum(x[m] @ p[f"{name}_{m}"] for m in x)


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def additive(p, x):
    return kernel_sum(p, x) + p["bias"]


def concatenation(p, x):
    row = np.concatenate([x[m] for m in x])
    kernel = np.concatenate([p[f"kernel_{m}"] for m in x])
    return gelu(row @ kernel + p["bias"]) @ p["out_kernel"] + p["out_bias"]


def late(p, x, rule):
    posteriors = [softmax(x[m] @ p[f"kernel_{m}"] + p[f"bias_{m}"]) for m in x]
    combined = rule(posteriors, axis=0)
    return np.log(combined / combined.sum())


def bilinear(p, x):
    pairs = itertools.combinations(sorted(x), 2)
    forms = (np.einsum("i,ijk,j->k", x[a], p[f"kernel_{a}_and_{b}"], x[b]) for a, b in pairs)
    return p["bias"] + sum(forms)


def multiplicative(p, x):
    return bilinear(p, x) + kernel_sum(p, x)


def mlb(p, x):
    product = math.prod(np.tanh(x[m] @ p[f"kernel_{m}"] + p[f"bias_{m}"]) for m in x)
    return product @ p["out_kernel"] + p["out_bias"]


def mutan(p, x):
    projected = {m: np.tanh(x[m] @ p[f"kernel_{m}"] + p[f"bias_{m}"]) for m in x}
    rank = p["factor_text"].shape[1]
    core = sum(math.prod(projected[m] @ p[f"factor_{m}"][:, r] for m in x) for r in range(rank))
    return core @ p["out_kernel"] + p["out_bias"]


def tensor(p, x):
    core = p["core"]
    for m in sorted(SIZES):  # the first axis goes with each
        core = np.tensordot([1, *x[m]], core, axes=1) if m in x else core[0]
    return core


def low_rank(p, x):
    rank = p["factor_text"].shape[1]
    return sum(math.prod([1, *x[m]] @ p[f"factor_{m}"][:, r] for m in x) for r in range(rank))


def polynomial(p, x, order):
    row = np.concatenate([[0.5], *x.values()])
    kernel = np.concatenate([p["constant"][None], *(p[f"kernel_{m}"] for m in x)])
    value = sum((row @ kernel[:, r]) ** order for r in range(kernel.shape[1]))
    root = np.sign(value) * np.abs(value) ** (1 / order)
    return root / np.linalg.norm(root)


def gated(p, x, content):
    gate = {m: sigmoid(x[m] @ p[f"gate_{m}"] + p[f"gate_bias_{m}"]) for m in x if f"gate_{m}" in p}
    return sum(
        (
            x[m] @ p[f"value_{m}"] * math.prod(gate[other] for other in gate if other != m)
            for m in content
            if m in x
        ),
        start=np.zeros(FEATURES),
    )


def film(p, x):
    others = {m: x[m] for m in x if m != "text"}
    value = x["text"] @ p["value"] if "text" in x else 0
    scale, shift = (kernel_sum(p, others, name) for name in ("scale", "shift"))
    return (1 + scale) * value + shift + p["bias"]


def nl_gate(p, x):
    shape = p["query"].shape[1:]
    query = np.einsum("d,dqk->qk", x["text"], p["query"]) if "text" in x else np.zeros(shape)
    others = [m for m in x if m != "text"]
    if others:
        key, value = (
            np.concatenate([np.einsum("d,dtk->tk", x[m], p[f"{name}_{m}"]) for m in others])
            for name in ("key", "value")
        )
        query = query + softmax(query @ key.T) @ value
    return query.ravel()


def attention(p, x):
    hidden = {m: np.tanh(x[m] @ p[f"score_{m}"] + p[f"score_bias_{m}"]) for m in x}
    weights = softmax(np.array([hidden[m] @ p["score"] for m in x]))
    return weights @ np.array([x[m] @ p[f"value_{m}"] + p[f"value_bias_{m}"] for m in x])


# By the name in FUSIONS, and what sets it apart: its fields, and its definition.
CASES = {
    "additive": ({}, additive),
    "concatenation": ({"hidden": 5}, concatenation),
    "late, mean": ({}, functools.partial(late, rule=np.mean)),
    "late, max": ({"rule": "max"}, functools.partial(late, rule=np.max)),
    "late, product": ({"rule": "product"}, functools.partial(late, rule=np.prod)),
    "multiplicative": ({}, multiplicative),
    "bilinear": ({}, bilinear),
    "mlb": ({"rank": 5}, mlb),
    "mutan": ({"width": 5, "rank": 2}, mutan),
    "tensor": ({}, tensor),
    "low_rank": ({"rank": 2}, low_rank),
    "polynomial": ({"rank": 2}, functools.partial(polynomial, order=3)),
    "polynomial, even": ({"order": 2, "rank": 3}, functools.partial(polynomial, order=2)),
    "gated": ({}, functools.partial(gated, content=tuple(SIZES))),
    "gated, one": ({"content": ("text",)}, functools.partial(gated, content=("text",))),
    "film": ({"content": "text"}, film),
    "nl_gate": ({"content": "text", "tokens": 2}, nl_gate),
    "attention": ({"hidden": 5}, attention),
}
every_case = pytest.mark.parametrize("case", CASES)
# What an option does is seen by values and gradients; the rest is of the operator, in one case.
ONE_OF_EACH = [next(case for case in CASES if case.split(",")[0] == name) for name in FUSIONS]
every_operator = pytest.mark.parametrize("case", ONE_OF_EACH)

# Every combination of modalities once, the empty one too.
HAVE = np.array(list(itertools.product([True, False], repeat=len(SIZES))))
WHERE = {name: HAVE[:, i] for i, name in enumerate(SIZES)}
N = len(HAVE)
X = {m: np.random.default_rng(i).normal(size=(N, d)) for i, (m, d) in enumerate(SIZES.items())}
HOLED = {m: np.where(WHERE[m][:, None], X[m], np.nan) for m in X}
WEIGHTS = np.random.default_rng(9).normal(size=(N, FEATURES))
QUICK = {"xla_backend_optimization_level": 0}  # half the time to compile, the same arithmetic
close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)


def build(case):
    fields, _ = CASES[case]
    return FUSIONS[case.split(",")[0]](features=FEATURES, **fields)


def declared(module, x):
    return jax.eval_shape(module.init, jax.random.key(0), x)["params"]


@functools.cache
def parameters(case):
    """Random everywhere, also where ``init`` gives 0: what is ignored or added twice shows."""
    rng = np.random.default_rng(1)
    shapes = nn.unbox(declared(build(case), X))
    return jax.tree.map(lambda leaf: 0.2 + 0.5 * rng.normal(size=leaf.shape), shapes)


def definition(case, params, x, where=WHERE):
    """Example by example, of the modalities that it has; of one that has none, what is stated."""
    out = np.full((N, FEATURES), -np.log(FEATURES) if "late" in case else 0.0)
    for n in range(N):
        kept = {m: x[m][n] for m in sorted(x) if where[m][n]}
        if kept:
            out[n] = CASES[case][1](params, kept)
    return out


def batches(arrays):
    """Two batches, to go through ``vmap``."""
    return jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), arrays)


@functools.cache
def gradients(case):
    """Of a weighted sum, by parameters and inputs, with the fused rows: both batches at once."""
    module = build(case)

    def weighted(params, x, where):
        fused = jax.vmap(functools.partial(module.apply, {"params": params}))(x, where=where)
        return jnp.sum(fused * batches(WEIGHTS).astype(fused.dtype)), fused

    return jax.jit(jax.grad(weighted, (0, 1), has_aux=True), compiler_options=QUICK)


def outcome_of(case, params, x, where):
    """In float64: the fused rows, and the gradients by parameters and inputs."""
    with jax.enable_x64(True), jax.debug_nans(True), jax.debug_infs(True):
        (by_params, by_x), fused = gradients(case)(params, batches(x), batches(where))
    by_params, *by_row = jax.tree.map(np.asarray, (by_params, by_x, fused))
    by_x, fused = jax.tree.map(lambda rows: rows.reshape(N, -1), by_row)
    return fused, by_params, by_x


@functools.cache
def outcome(case):
    """With NaN wherever a modality is missing."""
    return outcome_of(case, parameters(case), HOLED, WHERE)


def test_every_operator_is_a_case():
    assert {case.split(",")[0] for case in CASES} == set(FUSIONS)


@every_case
def test_value_is_that_of_the_definition_without_what_is_missing(case):
    fused, _, _ = outcome(case)
    assert fused.dtype == np.float64
    close(fused, definition(case, parameters(case), X))


@every_case
def test_every_gradient_is_a_difference_of_the_definition(case):
    _, *slopes = outcome(case)
    point, rng = (parameters(case), X), np.random.default_rng(2)
    leaves = [(0, name) for name in point[0]] + [(1, name) for name in point[1]]
    for part, name in leaves * 2:
        direction = rng.normal(size=point[part][name].shape)
        ends = []
        for step in (1e-6, -1e-6):
            moved = [dict(arrays) for arrays in point]
            moved[part][name] = moved[part][name] + step * direction
            ends.append((definition(case, *moved) * WEIGHTS).sum())
        slope = (slopes[part][name] * direction).sum()
        difference = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(slope, difference, rtol=1e-6, atol=1e-7, err_msg=name)


@every_case
def test_a_gradient_reaches_every_parameter_and_nothing_that_is_missing(case):
    _, by_params, by_inputs = outcome(case)
    for name, slope in by_params.items():
        assert np.abs(slope).max() > 1e-3, name
    for name, slope in by_inputs.items():
        assert not np.any(slope[~WHERE[name]]), name
        assert np.abs(slope[WHERE[name]]).max() > 1e-3, name


@every_operator
def test_masking_a_modality_equals_deleting_it(case):
    """Ours against ours, with parameters that nothing asks for any more."""
    lacks = WHERE | {"image": np.zeros(N, bool)}
    less = {m: HOLED[m] for m in HOLED if m != "image"}
    params = parameters(case)
    fewer = params | ({"core": params["core"][0]} if case == "tensor" else {})
    masked, masked_params, masked_x = outcome_of(case, params, HOLED, lacks)
    deleted, *of_deleted = outcome_of(case, fewer, less, {m: WHERE[m] for m in less})
    if case == "tensor":
        masked_params = {"core": masked_params["core"][0]}
    assert not np.any(masked_x.pop("image"))
    close(masked, deleted)
    jax.tree.map(close, [masked_params, masked_x], of_deleted)


@every_operator
def test_the_order_of_the_mappings_does_not_matter_to_the_last_bit(case):
    module = build(case)

    def program(names):
        def fuse(params, x, where):
            x, where = ({m: arrays[m] for m in names} for arrays in (x, where))
            return module.apply({"params": params}, x, where=where)

        return str(jax.make_jaxpr(fuse)(parameters(case), X, WHERE))

    assert program(["image", "sound", "text"]) == program(["text", "image", "sound"])


@every_operator
def test_bfloat16_rows_give_bfloat16_with_the_same_float32_parameters(case):
    params = jax.tree.map(np.float32, parameters(case))
    x = {m: jnp.asarray(HOLED[m], jnp.bfloat16) for m in X}
    fused = jax.jit(build(case).apply, compiler_options=QUICK)({"params": params}, x, where=WHERE)
    assert fused.dtype == jnp.bfloat16
    wanted = definition(case, parameters(case), X)
    error = np.abs(fused.astype(np.float32) - wanted).max()
    assert 0 < error < 0.03 * np.abs(wanted).max()  # close, and no float32 in disguise
    (by_params, by_inputs), _ = jax.eval_shape(gradients(case), params, batches(x), batches(WHERE))
    assert {leaf.dtype for leaf in by_inputs.values()} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in by_params.values()} == {jnp.dtype("float32")}


@every_operator
def test_parameters_are_float32_with_named_axes_and_start_the_same_in_any_order(case):
    module, orders = build(case), []

    def init(key, x):
        params = module.init(key, x)["params"]
        orders.append(list(params))  # in which they are declared; it decides what they start as
        return params

    for x in (X, dict(reversed(X.items()))):
        boxes = jax.eval_shape(functools.partial(init, x=x), jax.random.key(0))
    assert orders[0] == orders[1]
    for name, box in boxes.items():
        assert box.names == (*(None,) * (box.value.ndim - 1), "embed"), name
        assert box.value.dtype == jnp.float32


@every_operator
@pytest.mark.parametrize("bad", ["names", "rows", "mask rows", "mask dtype", "dtype", "axes"])
def test_inputs_that_do_not_fit_are_refused_while_tracing(case, bad):
    x, where = {m: np.float32(rows) for m, rows in X.items()}, dict(WHERE)
    if bad == "names":
        where["smell"] = where.pop("sound")
    elif bad == "rows":
        x["sound"], where["sound"] = x["sound"][1:], where["sound"][1:]
    elif bad == "mask rows":
        where["sound"] = where["sound"][1:]
    elif bad == "mask dtype":
        where["sound"] = np.float32(where["sound"])
    elif bad == "dtype":
        x["sound"] = np.int32(x["sound"])
    else:
        x["sound"] = x["sound"][0]
    names = "must name the same modalities, got image, sound, text and image, smell, text"
    message = {"names": names, "rows": "image 8, sound 7, text 8"}.get(bad, "Type-check error")
    refused = (ValueError, TypeCheckError)
    with pytest.raises(refused, match=message):
        jax.eval_shape(
            functools.partial(build(case).apply, where=where), {"params": parameters(case)}, x
        )


@every_operator
def test_no_example_gives_no_row(case):
    none = {m: np.float32(rows[:0]) for m, rows in X.items()}
    fused = jax.eval_shape(build(case).apply, {"params": parameters(case)}, none)
    assert fused.shape == (0, FEATURES)


@every_operator
def test_nothing_to_fuse_is_refused(case):
    with pytest.raises(ValueError, match=r"at least one modality, got none|must be among none"):
        declared(build(case), {})
