"""Generators are held against their own truth: by enumeration, by statistics, by solving for it."""

import itertools

import numpy as np
import pytest
import scipy.integrate
import scipy.spatial
import scipy.stats

from mmjax.data.synthetic import (
    COLOURS,
    SHAPES,
    TEXTURES,
    Synthetic,
    conditional_gaussians,
    correlated_gaussians,
    disentangled_factors,
    draw_trifeatures,
    interaction,
    logic_gate,
    shared_and_unique_factors,
    trifeatures,
)
from mmjax.data.synthetic.factors import sign_information

ROWS = 20_000
ONE = np.zeros(1, int)


@pytest.mark.parametrize("information", [0.0, 2.0, 10.0, 42.0])
def test_gaussians_have_the_information_of_their_covariance(information):
    data = correlated_gaussians(ROWS, features=3, mutual_information=information, seed=0)
    both = np.concatenate(list(data.modalities.values()), axis=1)
    matrix = np.cov(both, rowvar=False)
    logs = [np.linalg.slogdet(m)[1] for m in (matrix[:3, :3], matrix[3:, 3:], matrix)]
    np.testing.assert_allclose((logs[0] + logs[1] - logs[2]) / 2, information, atol=0.02)
    assert data.information == {"x;y": information}


@pytest.mark.parametrize("features", [1, 4])
def test_conditional_gaussians_have_the_information_that_is_left_after_z(features):
    data = conditional_gaussians(ROWS, features=features, mutual_information=2.32, seed=1)
    x, y, z = (np.float64(data.modalities[name]) for name in "xyz")
    seen = (y - z[:, :1])[:, 0]  # given z, only x and noise are left
    correlation = np.corrcoef(x[:, 0], seen)[0, 1]
    np.testing.assert_allclose(-np.log(1 - correlation**2) / 2, 2.32, atol=0.02)
    assert z.shape == (ROWS, features)
    assert np.abs(z).max() <= 0.5


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999, 1.0])
def test_a_sign_is_known_by_the_share_of_its_sum(share):
    """Against adaptive integration of the definition."""

    def integrand(t):
        p = scipy.stats.norm.cdf(t * np.sqrt(share / (1 - share)))
        return scipy.stats.norm.pdf(t) * scipy.stats.entropy([p, 1 - p])

    wanted = np.log(2) - (0 if share == 1 else 2 * scipy.integrate.quad(integrand, 0, 12)[0])
    np.testing.assert_allclose(sign_information(share), wanted, atol=1e-7)


def information_from_probability(chance, label):
    """Log-likelihood ratio of the label, averaged: an estimate of what is known of it."""
    given = np.where(label, chance, 1 - chance)
    marginal = np.where(label, label.mean(), 1 - label.mean())
    return np.mean(np.log(given / marginal))


def test_modalities_are_mixed_from_their_factors_and_know_what_is_said():
    unique = {"a": 3, "b": 0, "c": 2}
    data = shared_and_unique_factors(ROWS, shared=2, unique=unique, observed=9, seed=0)
    total = sum(rows.sum(axis=1) for rows in data.factors.values())
    np.testing.assert_array_equal(data.label, total >= 0)
    for name in unique:
        own = np.concatenate([data.factors["shared"], data.factors[name]], axis=1)
        found, *_ = np.linalg.lstsq(own, data.modalities[name], rcond=None)
        np.testing.assert_allclose(own @ found, data.modalities[name], atol=1e-4)
        assert np.linalg.matrix_rank(found) == own.shape[1]  # the factors can be told from it
        part = own.sum(axis=1)
        chance = scipy.stats.norm.cdf(part / np.sqrt(0.5 * (7 - own.shape[1])))
        estimate = information_from_probability(chance, data.label)
        np.testing.assert_allclose(data.information[f"{name};y"], estimate, atol=0.01)
    assert data.information["a,b,c;y"] == pytest.approx(np.log(2))
    assert not data.pid


@pytest.mark.parametrize(("first", "second"), [(6, 6), (6, 1), (0, 4)])
def test_of_two_modalities_the_clearer_one_alone_has_something_unique(first, second):
    data = shared_and_unique_factors(4, shared=3, unique={"u": first, "v": second}, seed=0)
    redundancy, unique_1, unique_2, _ = pid = data.pid["y"]
    assert min(pid) >= 0
    assert min(unique_1, unique_2) == 0
    assert redundancy + unique_1 == pytest.approx(data.information["u;y"])
    assert redundancy + unique_2 == pytest.approx(data.information["v;y"])
    assert sum(pid) == pytest.approx(np.log(2))


def test_only_labelled_factors_enter_the_label():
    data = shared_and_unique_factors(ROWS, labelled={"x1": 2}, seed=0)
    np.testing.assert_array_equal(data.label, data.factors["x1"][:, :2].sum(axis=1) >= 0)
    np.testing.assert_allclose(data.pid["y"], (0, np.log(2), 0, 0), atol=1e-12)


def test_disentangled_labels_belong_to_their_factors():
    data = disentangled_factors(ROWS, shared=3, unique=2, observed=6, noise=0.5, seed=0)
    for name, label in data.labels.items():
        assert abs(label.mean() - 0.5) < 1e-3
        # Neighbours in the factors of the label agree on it; neighbours in others do not.
        for group, rows in data.factors.items():
            near = scipy.spatial.cKDTree(rows).query(rows[:3000], k=16)[1][:, 1:]
            agree = ((label[near].mean(axis=1) > 0.5) == label[:3000]).mean()
            assert agree > 0.75 if group == name else 0.45 < agree < 0.55
    for name in ("x1", "x2"):
        own = np.concatenate([data.factors[name], data.factors["shared"]], axis=1)
        found, *_ = np.linalg.lstsq(own, data.modalities[name], rcond=None)
        np.testing.assert_allclose(own @ found, data.modalities[name], atol=1e-4)
    assert [int(np.argmax(data.pid[name])) for name in ("shared", "x1", "x2")] == [0, 1, 2]


def test_noise_takes_from_what_is_known_of_a_disentangled_label():
    known = [
        disentangled_factors(ROWS, shared=3, unique=2, observed=6, noise=noise, seed=0)
        .pid["shared"]
        .redundancy
        for noise in (0.0, 0.5, 1.0, 1e3)
    ]
    assert known[0] == pytest.approx(np.log(2))
    # Gaussian signal and noise of one size would leave about what half of a sum says of its sign.
    assert known[2] == pytest.approx(sign_information(0.5), abs=0.05)
    assert known[0] > known[1] > known[2] > known[3]
    assert known[3] < 1e-3


def test_trifeatures_are_pairs_of_one_shape_with_the_frequencies_of_the_truth():
    data = trifeatures(3000, size=16, correlation=0.5, seed=0)
    factors = data.factors
    np.testing.assert_array_equal(data.labels["shape"], factors["shape"])
    match = factors["texture_1"] == factors["colour_2"]
    np.testing.assert_array_equal(data.labels["match"], match)
    assert abs(match.mean() - 0.55) < 0.03
    joint = np.histogram2d(factors["texture_1"], factors["colour_2"], bins=10)[0] / 3000
    expected = joint.sum(axis=1)[:, None] * joint.sum(axis=0)[None]
    told = scipy.stats.entropy(joint.ravel(), expected.ravel())
    assert abs(told - data.pid["texture_1"].redundancy) < 0.05
    for parts in data.pid.values():
        assert min(parts) >= 0
    assert data.information["image_1;match"] == 0
    assert data.information["image_1,image_2;match"] == pytest.approx(
        scipy.stats.entropy([0.55, 0.45])
    )


@pytest.mark.parametrize(("correlation", "share"), [(0.0, 0.1), (1.0, 1.0)])
def test_the_ends_of_the_correlation(correlation, share):
    data = trifeatures(500, size=16, correlation=correlation, seed=0)
    assert abs(data.labels["match"].mean() - share) < 0.05
    told = 0 if correlation == 0 else np.log(10)
    assert data.pid["texture_1"].redundancy == pytest.approx(told, abs=1e-12)
    if correlation:
        assert data.pid["match"].synergy == 0


def test_the_features_can_be_read_from_the_images():
    """Colours by the brightest pixels; shapes and textures by what differs between the images."""
    numbers = np.arange(10)
    colours = draw_trifeatures(numbers, 0 * numbers, numbers, size=32, seed=0)
    palette = np.array(list(COLOURS.values()))
    for image, c in zip(colours, numbers, strict=True):
        inside = (image != 128).any(axis=-1)
        np.testing.assert_array_equal(np.unique(image[inside], axis=0), palette[[c]])
    for varied in ("shape", "texture"):
        chosen = {"shape": 2 + 0 * numbers, "texture": 0 * numbers, "colour": 0 * numbers}
        chosen[varied] = numbers
        single = [
            draw_trifeatures(*[codes[[i]] for codes in chosen.values()], size=32, seed=3)[0]
            for i in numbers
        ]  # one seed: one place, scale and angle for all
        for a, b in itertools.combinations(single, 2):
            differing = (a != b).any(axis=-1).sum()
            assert differing > 0.05 * (a != 128).any(axis=-1).sum()


def test_there_are_ten_of_each_feature():
    assert len(SHAPES) == len(TEXTURES) == len(COLOURS) == 10


MAKERS = {
    "gate": lambda **o: logic_gate("and", **{"rows": 50, **o}),
    "gaussians": lambda **o: correlated_gaussians(**{"rows": 50, "mutual_information": 1.0, **o}),
    "conditional": lambda **o: conditional_gaussians(
        **{"rows": 50, "mutual_information": 1.0, **o}
    ),
    "factors": lambda **o: shared_and_unique_factors(**{"rows": 50, **o}),
    "disentangled": lambda **o: disentangled_factors(**{"rows": 50, **o}),
    "interaction": lambda **o: interaction("modulation", **{"rows": 50, **o}),
    "trifeatures": lambda **o: trifeatures(**{"rows": 50, **o}),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_a_seed_gives_the_same_rows_and_another_one_others(maker):
    one, again, other = (MAKERS[maker](seed=seed) for seed in (3, 3, 4))
    for name, rows in one.modalities.items():
        assert rows.dtype == (np.uint8 if maker == "trifeatures" else np.float32)
        assert len(rows) == 50
        np.testing.assert_array_equal(rows, again.modalities[name])
        assert not np.array_equal(rows, other.modalities[name])
    for name, label in one.labels.items():
        assert label.dtype == np.int64
        np.testing.assert_array_equal(label, again.labels[name])
    assert one.information == again.information or maker == "disentangled"


@pytest.mark.parametrize(
    ("maker", "options", "message"),
    [
        *((maker, {"rows": 0}, "rows must be at least [12], got 0") for maker in MAKERS),
        ("gaussians", {"features": 0}, "features must be at least 1, got 0"),
        ("gaussians", {"mutual_information": -1.0}, "must be at least 0 and finite, got -1.0"),
        ("gaussians", {"mutual_information": np.inf}, "must be at least 0 and finite, got inf"),
        ("gaussians", {"features": 2, "mutual_information": 28.2}, "14 nats for each .* got 14.1:"),
        ("conditional", {"mutual_information": 400.0}, "at most 14 nats .* got 400: float32"),
        ("conditional", {"mutual_information": 0.0}, "must be positive and finite, got 0.0"),
        ("factors", {"observed": 15}, "observed, for the factors of x1, must be at least 16"),
        ("factors", {"unique": {}}, "unique must name a modality, .* got none"),
        ("factors", {"unique": {"shared": 2}}, "none of them 'shared'; got shared"),
        ("factors", {"shared": -1}, "shared must be at least 0, got -1"),
        ("factors", {"labelled": {"x3": 1}}, "labelled must name groups .* got x3"),
        ("factors", {"labelled": {"x1": 7}}, "0 to 6 factors of x1, got 7"),
        ("factors", {"labelled": {}}, "factors in the label must be at least 1, got 0"),
        ("disentangled", {"observed": 99}, "observed must be at least 100, got 99"),
        ("disentangled", {"noise": -0.1}, "noise must be at least 0 and finite, got -0.1"),
        ("interaction", {"noise": np.nan}, "noise must be at least 0 and finite, got nan"),
        ("interaction", {"features": 0}, "features must be at least 1, got 0"),
        ("trifeatures", {"size": 15}, "size must be at least 16, got 15"),
        ("trifeatures", {"correlation": 1.1}, r"correlation must lie in \[0, 1\], got 1.1"),
    ],
)
def test_what_makes_no_data_is_refused(maker, options, message):
    with pytest.raises(ValueError, match=message):
        MAKERS[maker](seed=0, **options)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"gate must be one of and, or, .*, got 'nand'"):
        logic_gate("nand", 3, seed=0)
    with pytest.raises(ValueError, match=r"interaction must be one of equivalence, .* got 'love'"):
        interaction("love", 3, seed=0)
    with pytest.raises(ValueError, match="colour must hold numbers from 0 to 9"):
        draw_trifeatures(ONE, ONE, ONE + 10, seed=0)
    with pytest.raises(ValueError, match="texture must have as many rows as shape, 1; got 2"):
        draw_trifeatures(ONE, np.zeros(2, int), ONE, seed=0)


def test_the_label_is_the_only_one():
    label = np.zeros(2, int)
    assert Synthetic({}, {"y": label}, {}, {}).label is label
    with pytest.raises(ValueError, match="label needs exactly one, got none"):
        _ = Synthetic({}, {}, {}, {}).label
    with pytest.raises(ValueError, match="got a, b: take labels"):
        _ = Synthetic({}, {"a": label, "b": label}, {}, {}).label
