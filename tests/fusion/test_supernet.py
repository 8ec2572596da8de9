import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.fusion.population import train_population
from mmjax.fusion.search import History, Space, evolve, random_architectures
from mmjax.fusion.supernet import Supernet, combine

FEATURES, N, CANDIDATES = 3, 5, 24
SPACE = Space(("text", "image", "sound"), depth=2, cells=3)
NAMES = ("image", "sound", "text")
NET = Supernet(FEATURES, SPACE)
RNG = np.random.default_rng(0)
X = {
    "text": RNG.normal(size=(N, 4)),
    "image": RNG.normal(size=(N, 2)),
    "sound": RNG.normal(size=(N, 3)),
}
HAVE = {"text": [1, 1, 0, 1, 0], "image": [1, 0, 1, 0, 0], "sound": [1, 1, 0, 0, 0]}
WHERE = {name: np.array(have, bool) for name, have in HAVE.items()}
POPULATION = random_architectures(SPACE, CANDIDATES, key=jax.random.key(0))
QUICK = {"xla_backend_optimization_level": 0}  # of compiling; nothing here runs for long


def random_parameters():
    single = jax.tree.map(lambda x: x[0], POPULATION)
    rows = jax.tree.map(np.float32, X)
    shapes = nn.unbox(jax.eval_shape(NET.init, jax.random.key(0), rows, single))["params"]
    return jax.tree.map(lambda x: 0.3 + 0.5 * RNG.normal(size=x.shape), shapes)


PARAMS = random_parameters()


def dense(name, x):
    return x @ PARAMS[name]["kernel"] + PARAMS[name].get("bias", 0)


def norm(name, x):
    y = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
    return y * PARAMS[name]["scale"] + PARAMS[name]["bias"]


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attention(values, c):
    scores = np.exp(np.array([dense(f"cell_{c}_score", v)[0] for v in values]))
    return scores @ np.array(values) / scores.sum()


def states(name, x, kinds):
    found = [dense(f"{name}_in", x)]
    for i, kind in enumerate(kinds):
        h, y = found[-1], norm(f"{name}_{i}_norm", found[-1])
        role = functools.partial("{}_{}_{}".format, name, i)
        gate = 1 / (1 + np.exp(-dense(role("gate"), y)))
        found.append(
            [h, h + gelu(dense(role("dense"), y)), h + dense(role("value"), y) * gate][kind]
        )
    return found


def definition(example, architecture):
    """Of one example, given what it has: cells are built one after the other."""
    operators = (
        lambda v, c: np.sum(v, axis=0),
        lambda v, c: np.prod(v, axis=0),
        lambda v, c: np.max(v, axis=0),
        attention,
    )
    kinds = dict(zip(NAMES, architecture.layers, strict=True))
    hidden = {name: states(name, x, kinds[name]) for name, x in example.items()}
    cells, out = {}, np.zeros(FEATURES)
    for c, points in enumerate(architecture.points):
        read = {
            f"from_{name}": hidden[name][point]
            for name, point in zip(NAMES, points, strict=True)
            if name in hidden and point <= SPACE.depth
        }
        if architecture.earlier[c] in cells:
            read["earlier"] = cells[architecture.earlier[c]]
        if read:
            values = [
                dense(f"cell_{c}_{m}", norm(f"cell_{c}_{m}_norm", x)) for m, x in read.items()
            ]
            cells[c] = operators[architecture.operators[c]](values, c)
            out = out + dense(f"cell_{c}_out", cells[c])
    return out


@functools.cache
def outcome():
    """Values of all candidates at once, and the gradients of all values' weighed sum."""
    weights = np.random.default_rng(1).normal(size=(CANDIDATES, N, FEATURES))
    holed = {name: np.where(WHERE[name][:, None], x, np.nan) for name, x in X.items()}

    def weighed(params, x):
        def run(architecture):
            return NET.apply({"params": params}, x, architecture, where=WHERE)

        fused = jax.vmap(run)(POPULATION)
        return jnp.sum(fused * weights), fused

    with jax.enable_x64(True), jax.debug_nans(True):
        slopes = jax.jit(jax.grad(weighed, (0, 1), has_aux=True), compiler_options=QUICK)
        return jax.tree.map(np.asarray, (slopes(PARAMS, holed), weights))


def all_definitions(x):
    want = np.zeros((CANDIDATES, N, FEATURES))
    for p, n in np.ndindex(CANDIDATES, N):
        has = {name: x[name][n] for name in NAMES if WHERE[name][n]}
        want[p, n] = definition(has, jax.tree.map(lambda x, p=p: np.asarray(x)[p], POPULATION))
    return want


def test_every_candidate_is_what_its_integers_say():
    (_, fused), _ = outcome()
    np.testing.assert_allclose(fused, all_definitions(X), rtol=1e-6, atol=1e-8)
    assert not fused[:, -1].any()  # nothing there


def test_gradients_are_finite_differences_of_the_definition():
    ((slopes, x_slopes), _), weights = outcome()
    step, h = {name: np.random.default_rng(2).normal(size=x.shape) for name, x in X.items()}, 1e-6
    ends = [
        (all_definitions({m: X[m] + end * step[m] for m in X}) * weights).sum() for end in (h, -h)
    ]
    slope = sum((x_slopes[m] * step[m]).sum() for m in X)
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * h), rtol=1e-5)
    for name, slope in x_slopes.items():
        assert not slope[~WHERE[name]].any()
    for path, slope in jax.tree_util.tree_leaves_with_path(slopes):
        assert slope.any(), jax.tree_util.keystr(path)


def test_the_population_holds_every_choice():
    """Else the two tests above would leave some out."""
    for gene, choices in zip(POPULATION, SPACE.choices(), strict=True):
        seen = gene.reshape(CANDIDATES, -1)
        for values, count in zip(np.asarray(seen).T, choices.ravel(), strict=True):
            assert set(values) == set(range(count))


@pytest.mark.parametrize("operator", range(4))
def test_operators_that_are_not_chosen_reach_no_gradient(operator):
    """Not even a product that overflows, in value as in slope."""
    values, scores, have = np.full((4, 1, 2), 1e20), np.zeros((4, 1)), np.ones((4, 1), bool)
    values, scores = np.float32(values) * (operator != 1), np.float32(scores)
    slope = jax.grad(lambda x: combine(x, scores, have, np.int32(operator)).sum())(values)
    want = [1, 0, 0.25, 0.25][operator]  # of equals, each is a quarter of the largest
    np.testing.assert_allclose(slope, np.full(values.shape, want), rtol=1e-6)


@pytest.mark.parametrize("operator", [-1, 4, np.int32(9)])
def test_an_operator_that_is_none_is_refused(operator):
    one = np.ones((1, 1), np.float32)
    with pytest.raises(ValueError, match="operator must be between 0 and 3, got"):
        combine(one[None], one, one > 0, operator)


def test_the_best_of_a_search_can_be_applied_as_it_is():
    """A history is in NumPy, on the host."""
    architectures = jax.tree.map(np.asarray, POPULATION)
    history = History(architectures, np.zeros(CANDIDATES), np.full(CANDIDATES, -1))
    rows = jax.tree.map(np.float32, X)
    fused = jax.eval_shape(lambda x: NET.apply({"params": PARAMS}, x, history.best()), rows)
    assert fused.shape == (N, FEATURES)


def test_modalities_may_be_called_as_parts_of_a_cell():
    names = ("earlier", "out", "score")
    space = Space(names, depth=1, cells=2)
    first = jax.tree.map(np.zeros_like, space.choices())
    rows = dict.fromkeys(names, np.ones((N, 2), np.float32))
    fused, _ = jax.eval_shape(Supernet(4, space).init_with_output, jax.random.key(0), rows, first)
    assert fused.shape == (N, 4)


def test_names_and_shapes_have_to_be_those_of_the_space():
    apply = functools.partial(NET.apply, {"params": PARAMS})
    rows, one = jax.tree.map(np.float32, X), jax.tree.map(lambda x: x[0], POPULATION)
    with pytest.raises(ValueError, match="got text and image, sound, text"):
        apply({"text": rows["text"]}, one)
    with pytest.raises(ValueError, match=r"layers must have shape \(3, 2\), got \(24, 3, 2\)"):
        apply(rows, POPULATION)
    with pytest.raises(ValueError, match="features must be at least 1, got 0"):
        Supernet(0, SPACE)


# A search: only what the two signs do together tells the class.
PAIR = Space(("image", "text"), depth=1, cells=1)
SIGNS = np.sign(np.random.default_rng(3).normal(size=(2, 64))).astype(np.float32)
SIDES = {
    name: np.stack([s, 0.1 * np.random.default_rng(4).normal(size=64)], axis=1).astype(np.float32)
    for name, s in zip(PAIR.modalities, SIGNS, strict=True)
}
AGREE = SIGNS[0] * SIGNS[1]
LEARNER = Supernet(4, PAIR)


@pytest.fixture
def promotion():
    """The bias correction of optax mixes integers and floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def learn(key, architecture):
    return nn.unbox(LEARNER.init(key, SIDES, architecture))


def cost(params, architecture, key):
    del key  # all examples, every time
    score = jnp.sum(LEARNER.apply(params, SIDES, architecture), axis=1)
    return jnp.mean(jax.nn.softplus(-score * AGREE))


@functools.partial(jax.jit, compiler_options=QUICK)
def trained(architectures, key):
    """The accuracy of each candidate after its training, and its losses on the way."""
    options = {"optimizer": optax.adam(0.03), "steps": 120, "key": key}
    params, losses = train_population(learn, cost, architectures, **options)

    def accuracy(params, architecture):
        score = jnp.sum(LEARNER.apply(params, SIDES, architecture), axis=1)
        return jnp.mean(score * AGREE > 0)

    return jax.vmap(accuracy)(params, architectures), losses


@pytest.mark.usefixtures("promotion")
def test_a_search_finds_the_operator_that_the_data_need():
    def evaluate(architectures, key):
        accuracy, losses = trained(architectures, key)
        assert np.all(np.asarray(losses[:, -1]) < losses[:, 0] + 0.05)
        return accuracy

    found = evolve(evaluate, PAIR, population=8, generations=2, key=jax.random.key(0))
    reads_both = np.all(np.asarray(found.architectures.points[:, 0]) <= PAIR.depth, axis=1)
    adds = np.asarray(found.architectures.operators[:, 0]) == 0
    fitness = np.asarray(found.fitness)
    assert fitness.max() > 0.95
    # One modality, or a sum of both, can be right about three of the four pairs of signs.
    pairs = np.bincount((SIGNS[0] + 2 * SIGNS[1]).astype(int) + 3)
    assert fitness[~reads_both | adds].max() <= 1 - pairs[pairs > 0].min() / len(AGREE)
    best = found.best()
    assert (best.points <= PAIR.depth).all()
    assert best.operators[0] != 0
