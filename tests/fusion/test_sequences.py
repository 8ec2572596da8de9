"""Every operator on sequences: its definition, in which padding and missing modalities are not."""

import functools
import operator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mmjax.fusion.bottleneck import BottleneckFusion
from mmjax.fusion.cross_modal import CrossModalTransformer
from mmjax.fusion.depth import DepthFusion
from mmjax.fusion.resampler import LatentResampler

FEATURES, HEADS = 4, 2
SIZES = {"text": (2, 3), "image": (3, 4), "sound": (4, 2)}  # tokens and features of each

# From here on: one example at a time, in float64. Tokens that are not valid, and modalities that
# have none, were deleted before; what is left is the formula.


def norm(p, x):
    y = x - x.mean(axis=-1, keepdims=True)
    return y / np.sqrt((y**2).mean(axis=-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def dense(p, x):
    return x @ p["kernel"] + p.get("bias", 0)


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attention(p, query, source):
    q, k, v = (
        np.einsum("td,dhk->htk", x, p[name]["kernel"])
        + p[name].get("bias", np.zeros((1, 1)))[:, None]
        for name, x in (("query", query), ("key", source), ("value", source))
    )
    weights = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(FEATURES / HEADS))
    mixed = weights @ v / weights.sum(axis=2, keepdims=True)
    return np.einsum("htk,hkd->td", mixed, p["out"]["kernel"]) + p["out"]["bias"]


def block(p, x, source=None):
    query = norm(p["query_norm"], x)
    seen = query if source is None else norm(p["source_norm"], source)
    x = x + attention(p["attention"], query, seen)
    return x + dense(p["out"], gelu(dense(p["hidden"], norm(p["mlp_norm"], x))))


def layers(p):
    """The parameters of each layer of a stack; none where it has no layer."""
    return [jax.tree.map(lambda x, i=i: x[i], p) for i in range(len(jax.tree.leaves(p)[0]))]


def stack(p, x, source=None):
    return functools.reduce(lambda x, p: block(p, x, source), layers(p) if p else [], x)


def project(p, x):
    kernel = p["kernel"] if p["kernel"].ndim == 3 else p["kernel"][None]
    side = len(kernel) // 2
    padded = np.pad(x, [(side, side), (0, 0)])
    places = [padded[i : i + len(x)] @ weight for i, weight in enumerate(kernel)]
    angles = np.arange(len(x))[:, None] * 10_000.0 ** (-2 * np.arange(FEATURES / 2) / FEATURES)
    return sum(places) + p["bias"] + np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def cross_modal(p, x, readout):
    fused = np.zeros(FEATURES)
    for target in x:
        stream = x[target]
        for source in x.keys() - {target}:
            name = f"{target}_from_{source}"
            gathered = norm(p[f"{name}_norm"], stack(p[name], x[target], x[source]))
            stream = stream + dense(p[f"{name}_merge"], gathered)
        stream = norm(p[f"{target}_norm"], stack(p.get(f"{target}_alone"), stream))
        fused += dense(p[f"{target}_readout"], readout(stream))
    return fused


def bottleneck(p, x):
    x = {name: np.concatenate([p[f"{name}_class"][0], tokens]) for name, tokens in x.items()}
    x = {name: stack(p.get(f"{name}_alone"), tokens) for name, tokens in x.items()}
    if "fusion" in p:
        shared = p["bottleneck"][0]
        for layer in layers(p["fusion"]):
            x = {name: block(layer[name], np.concatenate([own, shared])) for name, own in x.items()}
            shared = np.mean([tokens[-len(shared) :] for tokens in x.values()], axis=0)
            x = {name: tokens[: -len(shared)] for name, tokens in x.items()}
    return np.mean([norm(p[f"{name}_norm"], tokens[0]) for name, tokens in x.items()], axis=0)


def resampler(p, x):
    z, tokens = p["latents"][0], np.concatenate(list(x.values()))
    for layer in layers(p["layers"]):
        z = block(layer["block"], z, np.concatenate([tokens, z]))
    return norm(p["norm"], z)


def depth(p, x, rounds):
    p, context = p["round"], np.zeros(FEATURES)
    for i in range(rounds):
        back = {name: dense(p[f"{name}_back"], context) if i else 0 for name in x}
        alone = {name: stack(p.get(f"{name}_alone"), x[name] + back[name]) for name in x}
        together = norm(p["norm"], stack(p.get("together"), np.concatenate(list(alone.values()))))
        parts = np.split(together, np.cumsum([len(tokens) for tokens in x.values()])[:-1])
        context = np.mean([part.mean(axis=0) for part in parts], axis=0)
    return context


def fuse_by_depth(depth, fusion_depth, rounds=1):
    return DepthFusion(FEATURES, HEADS, depth, fusion_depth, rounds, mlp_ratio=1.5)


# The operator, its definition for an example that has something, and for what modalities.
ALL, TWO = ("image", "sound", "text"), ("image", "text")
LAST, MEAN = operator.itemgetter(-1), functools.partial(np.mean, axis=0)
CASES = {
    "cross_modal": (
        CrossModalTransformer(FEATURES, HEADS, depth=2, self_depth=0, mlp_ratio=1.5),
        functools.partial(cross_modal, readout=LAST),
        ALL,
    ),
    "cross_modal/convolution": (
        CrossModalTransformer(FEATURES, HEADS, 1, 2, "mean", kernel_size=3, mlp_ratio=1.5),
        functools.partial(cross_modal, readout=MEAN),
        TWO,
    ),
    "bottleneck": (BottleneckFusion(FEATURES, HEADS, 3, 1, 2, mlp_ratio=1.5), bottleneck, TWO),
    "bottleneck/late": (BottleneckFusion(FEATURES, HEADS, 1, 1, mlp_ratio=1.5), bottleneck, TWO),
    "resampler": (LatentResampler(FEATURES, HEADS, latents=2, mlp_ratio=1.5), resampler, ALL),
    "early": (fuse_by_depth(1, 0), functools.partial(depth, rounds=1), ALL),
    "intermediate": (fuse_by_depth(3, 1), functools.partial(depth, rounds=1), ALL),
    "late": (fuse_by_depth(2, 2), functools.partial(depth, rounds=1), TWO),
    "progressive": (fuse_by_depth(2, 1, rounds=2), functools.partial(depth, rounds=2), TWO),
}
# One of each operator, for what takes longer to compile.
OPERATORS = ["cross_modal/convolution", "bottleneck", "resampler", "progressive"]

RNG = np.random.default_rng(0)
LENGTHS = {"text": [2, 1, 2, 0, 2, 0], "image": [3, 2, 1, 2, 0, 0], "sound": [4, 3, 2, 3, 0, 0]}
N = 6
QUICK = {"xla_backend_optimization_level": 0}  # of compiling; nothing here runs for long
X = {name: RNG.normal(size=(N, *SIZES[name])) for name in SIZES}
PADDED = {name: np.arange(t) < np.array(LENGTHS[name])[:, None] for name, (t, _) in SIZES.items()}
# As many tokens, but with gaps before and between them.
GAPS = {name: RNG.permuted(where, axis=1) for name, where in PADDED.items()}


def given(name):
    """What a case is tested with: inputs and masks. Only zeros beside a sequence equal nothing."""
    masks = PADDED if "convolution" in name else GAPS
    return ({m: some[m] for m in CASES[name][2]} for some in (X, masks))


@functools.cache
def parameters(name):
    """Random everywhere, also where ``init`` gives 0 or 1: what is ignored or added twice shows."""
    x = {m: np.float32(X[m]) for m in CASES[name][2]}
    shapes = nn.unbox(jax.eval_shape(CASES[name][0].init, jax.random.key(0), x))["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: 0.3 + 0.4 * rng.normal(size=x.shape), shapes)


@functools.cache
def forward(name):
    module = CASES[name][0]

    def run(params, x, where):
        return module.apply({"params": params}, x, where=where)

    return jax.jit(run, compiler_options=QUICK)


def definition(name, params, x, where):
    """Example by example, of what it has."""
    said = []
    for n in range(N):
        kept = {m: x[m][n][where[m][n]] for m in sorted(x) if where[m][n].any()}
        tokens = {m: project(params["tokens"][m], kept[m]) for m in kept}
        said.append(CASES[name][1](params, tokens) if kept else np.zeros_like(said[0]))
    return np.array(said)


def holed(name):
    """What a case is tested with, and NaN wherever nothing is."""
    x, where = given(name)
    return {m: np.where(where[m][..., None], x[m], np.nan) for m in x}, where


@functools.cache
def gradients(name):
    """Of a weighed sum in float64, by parameters and inputs; with what is fused and the weights."""
    (x, where), params = holed(name), parameters(name)
    weights = np.random.default_rng(2).normal(size=definition(name, params, *given(name)).shape)

    def weighed(params, x):
        fused = CASES[name][0].apply({"params": params}, x, where=where)
        return jnp.sum(fused * weights), fused

    with jax.enable_x64(True), jax.debug_nans(True), jax.debug_infs(True):
        slopes = jax.jit(jax.grad(weighed, (0, 1), has_aux=True), compiler_options=QUICK)
        (by_params, by_x), fused = jax.tree.map(np.asarray, slopes(params, x))
    return by_params, by_x, fused, weights


@pytest.mark.parametrize("name", CASES)
def test_value_is_that_of_the_definition_without_what_is_not_there(name):
    if name in OPERATORS:  # the same program gives the gradients that are tested below
        _, _, fused, _ = gradients(name)
    else:
        with jax.enable_x64(True), jax.debug_nans(True), jax.debug_infs(True):
            fused = np.asarray(forward(name)(parameters(name), *holed(name)))
    want = definition(name, parameters(name), *given(name))
    np.testing.assert_allclose(fused, want, rtol=1e-5, atol=1e-5)  # positions are float32
    assert not fused[-1].any()  # nothing there
    assert np.abs(fused[0]).max() > 0.01


@pytest.mark.parametrize("name", OPERATORS)
def test_gradients_are_finite_differences_of_the_definition(name):
    *slopes, _, weights = gradients(name)
    (x, where), rng, h = given(name), np.random.default_rng(3), 1e-6
    start = (parameters(name), x)
    for part, slope in enumerate(slopes):
        step = jax.tree.map(lambda x: rng.normal(size=x.shape), start[part])
        ends = []
        for end in (h, -h):
            moved = list(start)
            moved[part] = jax.tree.map(lambda x, s, end=end: x + end * s, start[part], step)
            ends.append((definition(name, *moved, where) * weights).sum())
        got = sum(jax.tree.leaves(jax.tree.map(lambda g, s: (g * s).sum(), slope, step)))
        np.testing.assert_allclose(got, (ends[0] - ends[1]) / (2 * h), rtol=1e-4)
    for m, slope in slopes[1].items():
        assert not slope[~where[m]].any()


@pytest.mark.parametrize("name", OPERATORS)
def test_every_layer_of_every_parameter_learns(name):
    slopes, *_ = gradients(name)
    for path, slope in jax.tree_util.tree_leaves_with_path(slopes):
        assert slope.any(), jax.tree_util.keystr(path)
    stacks = [p for p in ("layers", "fusion", "text_alone", "text_from_image") if p in slopes]
    for layer in (layer for name in stacks for layer in layers(slopes[name])):
        assert all(slope.any() for slope in jax.tree.leaves(layer))


def rounded(name, dtype=np.float32):
    x, where = given(name)
    return {m: x[m].astype(dtype) for m in x}, where


@pytest.mark.parametrize("name", ["cross_modal/convolution", "bottleneck"])
def test_a_modality_may_be_left_out_altogether(name):
    x, where = ({m: some[m] for m in some if m != "image"} for some in rounded(name))
    got = forward(name)(parameters(name), x, where)
    want = definition(name, parameters(name), x, where)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_every_example_by_itself_under_vmap():
    """In float32, and the size of a batch does not matter."""
    (x, where), params = rounded("resampler"), parameters("resampler")
    alone = jax.tree.map(lambda x: x[:, None], (x, where))

    def run(x, where):
        return CASES["resampler"][0].apply({"params": params}, x, where=where)

    found = jax.jit(jax.vmap(run), compiler_options=QUICK)(*alone)[:, 0]
    want = definition("resampler", params, *given("resampler"))
    np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-3)


def test_bfloat16_is_near():
    x, where = rounded("resampler", jnp.bfloat16)
    got = forward("resampler")(parameters("resampler"), x, where).astype(np.float32)
    want = definition("resampler", parameters("resampler"), *given("resampler"))
    np.testing.assert_allclose(got, want, atol=0.1 * np.abs(want).max())


def program(name, order, dtype=np.float32, dropout=0.0, train=False):
    """What is traced, of modalities in some order."""
    module, (x, where) = CASES[name][0].clone(dropout=dropout), rounded(name, dtype)
    rngs, params = {"dropout": jax.random.key(0)}, {"params": parameters(name)}

    def run(*arrays):
        x = dict(zip(sorted(order), arrays, strict=True))
        x = {m: x[m] for m in order}
        return module.apply(params, x, where=where, train=train, rngs=rngs)

    return jax.make_jaxpr(run)(*(x[m] for m in sorted(order)))


@pytest.mark.parametrize("name", OPERATORS)
def test_order_dtype_and_dropout_of_the_program(name):
    order = CASES[name][2]
    plain = program(name, order)
    assert plain.out_avals[0].dtype == jnp.float32
    assert "random_bits" not in str(plain)
    assert str(plain) == str(program(name, order[::-1], dropout=0.5))
    dropping = program(name, order, jnp.bfloat16, dropout=0.5, train=True)
    assert dropping.out_avals[0].dtype == jnp.bfloat16
    assert "random_bits" in str(dropping)


def test_dropout_follows_its_key():
    module, (x, _) = CASES["resampler"][0].clone(dropout=0.5), rounded("resampler")

    @functools.partial(jax.jit, compiler_options=QUICK)
    def train(key):
        params = {"params": parameters("resampler")}
        return module.apply(params, x, train=True, rngs={"dropout": key})

    a, again, b = (train(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, again)
    assert np.abs(a - b).max() > 0.01


@pytest.mark.parametrize(
    "module", [CrossModalTransformer, BottleneckFusion, LatentResampler, DepthFusion]
)
def test_bad_input_is_named(module):
    def shapes(x, where=None):
        init = functools.partial(module(FEATURES, HEADS).init, where=where)
        return jax.eval_shape(init, jax.random.key(0), x)

    with pytest.raises(ValueError, match="inputs must hold at least one modality, got none"):
        shapes({})
    with pytest.raises(ValueError, match="got image, sound, text and text"):
        shapes(X, {"text": PADDED["text"]})
    with pytest.raises(ValueError, match=r"one row per example is a sequence of one, x\[:, None\]"):
        shapes({"text": X["text"][:, :0]})
    with pytest.raises(TypeCheckError):
        shapes(X, PADDED | {"text": PADDED["text"][:, :1]})
    with pytest.raises(TypeCheckError):
        shapes({"text": X["text"][:, 0]})
    with pytest.raises(ValueError, match="heads must divide features, got features=4 and heads=3"):
        module(4, 3)
    with pytest.raises(ValueError, match="dropout must be at least 0 and below 1, got 1"):
        module(4, 2, dropout=1.0)
    with pytest.raises(ValueError, match="features must be at least 1, got 0"):
        module(0, 2)
    with pytest.raises(ValueError, match="kernel_size must be at least 1, got 0"):
        module(4, 2, kernel_size=0)
    with pytest.raises(ValueError, match="must round to at least 1 hidden feature, got features=4"):
        module(4, 2, mlp_ratio=0.1)


@pytest.mark.parametrize(
    "module", [CrossModalTransformer, BottleneckFusion, LatentResampler, DepthFusion]
)
def test_names_that_a_module_uses_itself_and_no_example_at_all(module):
    named = {"tokens": np.float32(X["text"][:0]), "norm": np.float32(X["image"][:0])}
    init = module(FEATURES, HEADS).init_with_output
    fused, _ = jax.eval_shape(init, jax.random.key(0), named)
    assert fused.shape[0] == 0
    assert fused.shape[-1] == FEATURES


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BottleneckFusion(4, 2, 2, 3), "fusion_depth must be between 0 and depth, got 3"),
        (lambda: DepthFusion(4, 2, 2, -1), "fusion_depth must be between 0 and depth, got -1"),
        (lambda: DepthFusion(4, 2, rounds=0), "rounds must be at least 1, got 0"),
        (lambda: BottleneckFusion(4, 2, bottlenecks=0), "bottlenecks must be at least 1, got 0"),
        (lambda: BottleneckFusion(4, 2, 0, 0), "depth must be at least 1, got 0"),
        (lambda: LatentResampler(4, 2, latents=0), "latents must be at least 1, got 0"),
        (lambda: LatentResampler(4, 2, depth=0), "depth must be at least 1, got 0"),
        (lambda: CrossModalTransformer(4, 2, depth=-1), "depth must be at least 0, got -1"),
        (lambda: CrossModalTransformer(4, 2, readout="first"), "one of last, mean, got 'first'"),
        (lambda: CrossModalTransformer(4, 2, kernel_size=0), "kernel_size must be at least 1"),
    ],
)
def test_fields_that_do_not_fit_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
