"""FactorCL: bounds by definition, who learns from what, and factors that are known."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import TypeCheckError

from mmjax.data.synthetic import shared_and_unique_factors
from mmjax.fission import (
    Bounds,
    FactorBounds,
    FactorCL,
    SeparableCritic,
    factorcl_loss,
    shared_information,
    unique_information,
)

RNG = np.random.default_rng(0)
N = 6
LABELS = np.array([0, 1, 0, 0, 1, 1])
SAME = LABELS[:, None] == LABELS[None]
EVERYONE = np.ones((N, N), bool)
QUICK = {"xla_backend_optimization_level": 0}  # half the time to compile, the same arithmetic


def nce(scores, pairs):
    """Log of the own score over the mean of all scores, row by row."""
    rows = zip(np.exp(scores), pairs, strict=True)
    return [np.log(s[i] / s[p].mean()) for i, (s, p) in enumerate(rows)]


def club(scores, pairs):
    """Own score less the mean of the others', row by row."""
    others = pairs & ~np.eye(len(scores), dtype=bool)
    return [s[i] - s[o].mean() for i, (s, o) in enumerate(zip(scores, others, strict=True))]


SCORES, GIVEN = RNG.normal(size=(2, N, N)) + 2 * np.eye(N)


def test_shared_information_is_its_definition():
    bounds = shared_information(SCORES, GIVEN, where=EVERYONE, given=SAME)
    np.testing.assert_allclose(bounds.raised, nce(SCORES, EVERYONE), rtol=1e-5)
    np.testing.assert_allclose(bounds.lowered, club(GIVEN, SAME), rtol=1e-5)


def test_unique_information_is_its_definition():
    bounds = unique_information(SCORES, GIVEN, where=EVERYONE, given=SAME)
    np.testing.assert_allclose(bounds.raised, nce(GIVEN, SAME), rtol=1e-5)
    np.testing.assert_allclose(bounds.lowered, club(SCORES, EVERYONE), rtol=1e-5)


def test_an_upper_bound_below_0_is_0_and_pulls_at_nothing():
    def lowered(scores):
        return jnp.sum(unique_information(scores, GIVEN, where=EVERYONE, given=SAME).lowered)

    value, gradient = jax.value_and_grad(lowered)(SCORES - 9 * np.eye(N))
    assert value == 0
    assert not gradient.any()
    assert jax.grad(lowered)(SCORES).any()


def test_the_loss_weighs_what_is_removed():
    parts = RNG.normal(size=(3, N)).astype(np.float32)
    bounds = FactorBounds(Bounds(parts[0], parts[1]), parts[2])
    found = factorcl_loss(bounds, weight=0.3)
    np.testing.assert_allclose(found, -parts[0] + 0.3 * parts[1] - parts[2], rtol=1e-5)
    with pytest.raises(ValueError, match="weight must be finite, got nan"):
        factorcl_loss(bounds, weight=np.nan)


def model(names, features=3):
    return FactorCL(
        shared={name: nn.Dense(features) for name in names},
        unique={name: nn.Dense(features) for name in names},
        critic=functools.partial(SeparableCritic, hidden=(5,), features=4),
    )


INPUTS = {name: RNG.normal(size=(N, 4)).astype(np.float32) for name in ("audio", "image", "text")}
PAIR = {name: INPUTS[name] for name in ("audio", "text")}
MODES = {
    "supervised": lambda run, inputs, where=None, labels=LABELS: run(
        inputs, labels, classes=2, where=where, method="supervised"
    ),
    "self_supervised": lambda run, inputs, where=None, labels=None: run(
        inputs,
        {name: x[:, ::-1] for name, x in inputs.items()},
        where=where,
        method="self_supervised",
    ),
}
every_mode = pytest.mark.parametrize("mode", MODES)


def filled(module, mode, inputs):
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda: MODES[mode](functools.partial(module.init, key), inputs))
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: np.float32(0.5 * rng.normal(size=leaf.shape)), nn.unbox(shapes)
    )


def parts_of(bounds):
    return {"critics": bounds.critics, **bounds.factors._asdict()}


PARTS = ("critics", "lowered", "raised")


@functools.cache
def compiled(mode):
    """Gradients of the sum of each part of the bounds, by name, and the bounds."""
    module = model(PAIR)

    def totals(variables, inputs, where):
        parts = parts_of(MODES[mode](functools.partial(module.apply, variables), inputs, where))
        return jnp.stack([jnp.sum(parts[part]) for part in PARTS]), parts

    jacobian = jax.jit(jax.jacrev(totals, (0, 1), has_aux=True), compiler_options=QUICK)

    def run(variables, inputs, where):
        gradients, parts = jacobian(variables, inputs, where)
        named = {
            part: jax.tree.map(lambda leaf, i=i: leaf[i], gradients) for i, part in enumerate(PARTS)
        }
        return named, parts

    return run


HELD = ("shared_given", "unique_from")  # critics of upper bounds


@every_mode
def test_who_learns_from_what(mode):
    variables = filled(model(PAIR), mode, PAIR)
    everyone = {name: np.ones(N, bool) for name in PAIR}
    found, parts = compiled(mode)(variables, PAIR, everyone)
    for part, (gradients, by_inputs) in found.items():
        for name, branch in gradients["params"].items():
            learns = any(np.any(leaf) for leaf in jax.tree.leaves(branch))
            encoder = name in {"shared_audio", "shared_text", "unique_audio", "unique_text"}
            held = name.startswith(HELD) and not encoder
            if part == "critics":
                assert learns == held, name
            elif part == "raised":
                assert learns != held, name
            elif not encoder:
                assert not learns, name
        seen = any(np.any(x) for x in by_inputs.values())
        assert seen == (part == "raised" or (part == "lowered" and np.any(parts["lowered"])))


@every_mode
def test_a_missing_modality_is_as_if_its_examples_were_deleted(mode):
    """Of two modalities, with rows that lack the one: pairs and critics see the others only."""
    have = np.array([1, 1, 1, 0, 1, 0], bool)
    variables = filled(model(PAIR), mode, PAIR)
    holed = {"audio": np.where(have[:, None], PAIR["audio"], np.nan), "text": PAIR["text"]}
    where = {"audio": have, "text": np.ones(N, bool)}
    found, masked = compiled(mode)(variables, holed, where)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    for _, by_inputs in found.values():
        assert not by_inputs["audio"][~have].any()
    kept = {name: x[have] for name, x in PAIR.items()}
    apply = functools.partial(model(PAIR).apply, variables)
    bounds = jax.jit(
        lambda kept: MODES[mode](apply, kept, labels=LABELS[have]), compiler_options=QUICK
    )(kept)
    rows = np.tile(have, 2) if mode == "self_supervised" else have
    np.testing.assert_allclose(
        masked["lowered"][rows], bounds.factors.lowered, rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(masked["critics"][rows], bounds.critics, rtol=1e-3, atol=1e-5)
    assert not masked["lowered"][~rows].any()
    assert not masked["critics"][~rows].any()


def test_of_three_modalities_the_bounds_are_means_over_pairs():
    """Where nobody has the third, they are those of the two."""
    variables = filled(model(INPUTS), "supervised", INPUTS)
    everyone, nobody = np.ones(N, bool), np.zeros(N, bool)
    apply = jax.jit(
        lambda inputs, where: parts_of(
            MODES["supervised"](functools.partial(model(INPUTS).apply, variables), inputs, where)
        ),
        compiler_options=QUICK,
    )
    three = apply(INPUTS, {"audio": everyone, "image": nobody, "text": everyone})
    kept = {name: x for name, x in variables["params"].items() if "image" not in name}
    _, two = compiled("supervised")({"params": kept}, PAIR, dict.fromkeys(PAIR, everyone))
    for part, rows in two.items():
        np.testing.assert_allclose(three[part], rows, rtol=1e-4, atol=1e-5)
    # With all three, each of which is a pair with the others in turn.
    whole = apply(INPUTS, dict.fromkeys(INPUTS, everyone))
    pairs = [
        apply(INPUTS, dict.fromkeys(INPUTS, everyone) | {left_out: nobody}) for left_out in INPUTS
    ]
    for part, rows in whole.items():
        mean = sum(np.asarray(pair[part]) for pair in pairs) / 3
        np.testing.assert_allclose(rows, mean, rtol=1e-3, atol=1e-4)


def score_by(params, critic, x, y):
    sides = []
    for side, rows in (("x", x), ("y", y)):
        layers = params[critic][side]
        rows = np.maximum(rows @ layers["kernel_0"] + layers["bias_0"], 0)
        sides.append(rows @ layers["kernel_1"] + layers["bias_1"])
    return sides[0] @ sides[1].T / 2


def embed_by(params, kind, name):
    layer = params[f"{kind}_{name}"]
    return PAIR[name] @ layer["kernel"] + layer["bias"]


TASK = np.eye(2)[LABELS]


def test_of_a_single_modality_it_is_what_that_knows_of_the_task():
    variables = filled(model(PAIR), "supervised", PAIR)
    have = np.array([1, 1, 1, 0, 1, 0], bool)
    where = {"audio": have, "text": np.ones(N, bool)}
    _, parts = compiled("supervised")(variables, PAIR, where)
    params = jax.tree.map(np.float64, variables["params"])
    scores = score_by(params, "task_text", embed_by(params, "unique", "text"), TASK)
    known = np.array(nce(scores, EVERYONE))
    np.testing.assert_allclose(parts["raised"][~have], known[~have], rtol=1e-3, atol=1e-4)


def test_supervised_bounds_are_those_of_the_embeddings_by_definition():
    variables = filled(model(PAIR), "supervised", PAIR)
    everyone = {name: np.ones(N, bool) for name in PAIR}
    _, parts = compiled("supervised")(variables, PAIR, everyone)
    params = jax.tree.map(np.float64, variables["params"])
    score, embed = (functools.partial(by, params) for by in (score_by, embed_by))
    zs, zu = ({name: embed(kind, name) for name in PAIR} for kind in ("shared", "unique"))
    task = TASK
    raised = np.array(nce(score("shared_by_audio_text", zs["audio"], zs["text"]), EVERYONE))
    critics = np.array(
        nce(score("shared_given_audio_text", np.hstack([zs["audio"], task]), zs["text"]), SAME)
    )
    for m, other in (("audio", "text"), ("text", "audio")):
        rest = np.hstack([zs[other], zu[other]])
        raised += nce(score(f"task_{m}", zu[m], task), EVERYONE)
        raised += nce(score(f"unique_given_{m}_{other}", np.hstack([zu[m], task]), rest), SAME)
        critics += nce(score(f"unique_from_{m}_{other}", zu[m], rest), EVERYONE)
    np.testing.assert_allclose(parts["raised"], raised, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(parts["critics"], critics, rtol=1e-3, atol=1e-4)


def explained(z, w):
    """Share of the variance of the factors that a linear map of the embedding gives."""
    z = np.concatenate([np.float64(z), np.ones((len(z), 1))], axis=1)
    found, *_ = np.linalg.lstsq(z, w, rcond=None)
    return 1 - ((z @ found - w) ** 2).sum() / ((w - w.mean(axis=0)) ** 2).sum()


def test_learns_the_factors_apart_without_labels():
    made = shared_and_unique_factors(1024, shared=1, unique={"a": 1, "b": 1}, observed=2, seed=0)
    # Turned only: were one direction of a modality louder than another, the best trade between
    # hearing it and keeping out what is shared would lie in between.
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]], np.float32)
    data = {
        name: np.concatenate([made.factors["shared"], made.factors[name]], axis=1) @ turn
        for name in ("a", "b")
    }
    module = FactorCL(
        shared={name: nn.Dense(1) for name in data},
        unique={name: nn.Dense(1) for name in data},
        critic=functools.partial(SeparableCritic, hidden=(16,), features=16),
    )

    def views(key):
        rows, one, two = jax.random.split(key, 3)
        chosen = jax.random.randint(rows, (64,), 0, 1024)
        batch = {name: jnp.asarray(x)[chosen] for name, x in data.items()}
        return [
            {m: x + 0.05 * jax.random.normal(k, x.shape) for m, x in batch.items()}
            for k in (one, two)
        ]

    optimizer = optax.flatten(optax.adam(2e-2))

    def loss(params, key):
        bounds = module.apply(params, *views(key), method="self_supervised")
        return jnp.mean(factorcl_loss(bounds))

    @functools.partial(jax.jit, compiler_options=QUICK)
    def trained(params, key):
        def step(carry, key):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params, key), state)
            return (optax.apply_updates(params, updates), state), None

        carry, _ = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, 300))
        return carry[0]

    params = filled(module, "self_supervised", data)
    with jax.numpy_dtype_promotion("standard"):  # optax counts its steps in integers
        params = trained(params, jax.random.key(0))
    factors = module.apply(params, data)
    for name in data:
        assert explained(factors.shared[name], made.factors["shared"]) > 0.9
        assert explained(factors.unique[name], made.factors[name]) > 0.9
        assert explained(factors.unique[name], made.factors["shared"]) < 0.1


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (
            LABELS + 1,
            ValueError,
            "labels must be from 0 to classes less 1, got 1 to 2 and classes=2",
        ),
        (jnp.array(LABELS) - 1, ValueError, "got -1 to 0 and classes=2"),
        (LABELS[1:], TypeCheckError, "labels"),
        (np.float32(LABELS), TypeCheckError, "labels"),
    ],
)
def test_labels_that_are_none_are_refused(labels, error, message):
    init = functools.partial(model(PAIR).init, jax.random.key(0))
    with pytest.raises(error, match=message):
        jax.eval_shape(lambda inputs: MODES["supervised"](init, inputs, labels=labels), PAIR)


def test_pairs_that_would_be_called_alike_are_refused():
    inputs = dict.fromkeys(["a", "a_b", "b_c", "c"], INPUTS["text"])
    with pytest.raises(ValueError, match=r"got \('a', 'b_c'\) and \('a_b', 'c'\); rename"):
        jax.eval_shape(model(inputs).init, jax.random.key(0), inputs)


def test_names_that_differ_are_refused():
    module = FactorCL(shared={"a": nn.Dense(2)}, unique={"b": nn.Dense(2)})
    with pytest.raises(ValueError, match="shared and unique must name the same modalities"):
        jax.eval_shape(module.init, jax.random.key(0), {"a": INPUTS["text"]})
    module = model(PAIR)
    with pytest.raises(ValueError, match="inputs and the encoders must name the same modalities"):
        jax.eval_shape(module.init, jax.random.key(0), {"text": INPUTS["text"]})
    init = functools.partial(module.init, jax.random.key(0))
    with pytest.raises(ValueError, match="inputs must hold 2 modalities or more, got text"):
        jax.eval_shape(lambda: MODES["supervised"](init, {"text": INPUTS["text"]}))
