"""The Gaussian decomposition: known cases, the definition, singular covariances, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.information import PID, gaussian_pid

SIZES = (2, 2, 2)


@pytest.fixture(autouse=True)
def wide():
    with jax.enable_x64(True):
        yield


NUMBER = 5  # of every batch, for compiling takes longer than anything else here


@functools.cache
def compiled(sizes):
    return jax.jit(functools.partial(gaussian_pid, sizes=sizes))


def decomposed(matrices, sizes=SIZES):
    """Decompositions of up to five covariances."""
    filled = np.stack([*matrices, *[matrices[0]] * (NUMBER - len(matrices))])
    return PID(*(np.asarray(part)[: len(matrices)] for part in compiled(sizes)(filled)))


def covariance(seed, d=6):
    half = np.random.default_rng(seed).normal(size=(d, d + 2))
    return half @ half.T


def information(matrix, first, second):
    """I(X; Y) of two lists of features, by determinants."""
    parts = [np.linalg.slogdet(matrix[np.ix_(i, i)])[1] for i in (first, second, first + second)]
    return (parts[0] + parts[1] - parts[2]) / 2


def union_by_definition(matrix):
    """Minimise over the cross-covariance of the sources, whatever keeps the rest a covariance."""
    optimize = pytest.importorskip("scipy.optimize")
    sources, target = [0, 1, 2, 3], [4, 5]
    of_target = matrix[np.ix_(sources, target)] @ np.linalg.inv(matrix[4:, 4:])
    given = matrix[:4, :4] - of_target @ matrix[4:, :4]
    halves = [np.linalg.cholesky(given[i : i + 2, i : i + 2]) for i in (0, 2)]

    def cost(flat):
        turn, _, back = np.linalg.svd(flat.reshape(2, 2))
        # Any matrix without a singular value above 1: those of its square root, folded.
        noise = turn @ np.diag(np.cos(np.linalg.svd(flat.reshape(2, 2))[1])) @ back
        changed = matrix.copy()
        block = halves[0] @ noise @ halves[1].T
        block = block + (of_target @ matrix[4:, :4])[:2, 2:]
        changed[:2, 2:4], changed[2:4, :2] = block, block.T
        if np.linalg.eigvalsh(changed[:4, :4])[0] < 1e-12:
            return 1e3
        return information(changed, sources, target)

    starts = np.random.default_rng(0).normal(size=(6, 4)) * 2
    options = {"xatol": 1e-10, "fatol": 1e-14, "maxiter": 6000, "maxfev": 6000}
    runs = [optimize.minimize(cost, x, method="Nelder-Mead", options=options) for x in starts]
    return min(run.fun for run in runs)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_union_information_is_the_least_of_all_gaussians(seed):
    matrix = covariance(seed)
    found = PID(*(part[0] for part in decomposed([matrix])))
    wanted = union_by_definition(matrix)
    first, second = (information(matrix, i, [4, 5]) for i in ([0, 1], [2, 3]))
    both = information(matrix, [0, 1, 2, 3], [4, 5])
    parts = [first + second - wanted, wanted - second, wanted - first, both - wanted]
    np.testing.assert_allclose(found[:4], parts, atol=1e-6)
    assert found.gap < 2e-10


def test_of_a_target_of_one_feature_the_redundancy_is_the_smaller_information():
    matrices = np.stack([covariance(seed, d=3) for seed in range(5)])
    found = decomposed(matrices, (1, 1, 1))
    first, second = ([information(m, [i], [2]) for m in matrices] for i in (0, 1))
    np.testing.assert_allclose(found.redundancy, np.minimum(first, second), atol=1e-9)
    np.testing.assert_allclose(np.minimum(found.unique_1, found.unique_2), 0, atol=1e-9)


def test_strong_signals_are_told_apart_in_float32_too():
    """The noise of either source is what is left of a difference of large numbers."""
    noises = np.array([1e-1, 1e-2, 1e-3, 1e-4, 1e-5])  # of signals of 1
    given = np.float32([[[1 + s, 1, 1], [1, 1 + 2 * s, 1], [1, 1, 1]] for s in noises])
    wanted = np.array([[information(np.float64(m), [i], [2]) for i in (0, 1)] for m in given])
    with jax.enable_x64(False):
        found = decomposed(given, (1, 1, 1))
    assert found.redundancy.dtype == np.float32
    np.testing.assert_allclose(found.redundancy, wanted.min(axis=1), atol=1e-5)
    np.testing.assert_allclose(found.unique_1, wanted[:, 0] - wanted[:, 1], atol=1e-5)
    np.testing.assert_allclose(found.unique_2, 0, atol=1e-5)


def test_equal_sources_on_the_boundary_of_the_ball_are_redundant():
    """Both noises have to become one: the covariance of the optimum is singular."""
    matrix = np.array([[1.0, 0.36, 0.6], [0.36, 1.0, 0.6], [0.6, 0.6, 1.0]])
    found = decomposed([matrix], (1, 1, 1))
    assert found.redundancy == pytest.approx(-np.log(0.64) / 2, abs=1e-9)
    assert found.gap < 2e-10
    np.testing.assert_allclose([found.unique_1, found.unique_2], 0, atol=1e-9)
    twice = [0, 1, 0, 1, 2, 3]  # the second source is the first
    found = decomposed([covariance(seed, d=4)[np.ix_(twice, twice)] for seed in range(NUMBER)])
    assert found.gap.max() < 1e-8
    np.testing.assert_allclose([found.unique_1, found.unique_2, found.synergy], 0, atol=1e-7)


def test_independent_systems_add_up():
    small = [covariance(seed, d=3) for seed in (0, 1)]
    joint = np.zeros((6, 6))
    for i, matrix in enumerate(small):
        own = [i, 2 + i, 4 + i]
        joint[np.ix_(own, own)] = matrix
    each = np.stack(decomposed(small, (1, 1, 1))[:4])
    np.testing.assert_allclose(np.stack(decomposed([joint])[:4])[:, 0], each.sum(axis=1), atol=1e-8)


def test_neither_scale_nor_constant_nor_repeated_features_change_anything():
    matrix = covariance(3)
    scale = 10.0 ** np.arange(-6, 6, 2)
    wanted, scaled = np.stack(decomposed([matrix, matrix * scale * scale[:, None]])[:4], axis=1)
    np.testing.assert_allclose(scaled, wanted, atol=1e-8)
    kept = [0, 1, 1, 6, 2, 3, 4, 5, 6]  # feature 6 is constant
    wider = np.pad(matrix, (0, 1))[np.ix_(kept, kept)]
    np.testing.assert_allclose(gaussian_pid(wider, sizes=(4, 2, 3))[:4], wanted, atol=1e-7)


def test_gradients_are_finite_differences():
    rng, step = np.random.default_rng(2), 1e-5
    matrices = np.stack([covariance(seed) for seed in range(NUMBER)])
    change = rng.normal(size=matrices.shape)
    change += change.transpose(0, 2, 1)
    one = functools.partial(gaussian_pid, sizes=SIZES)
    slopes = jax.jit(jax.vmap(jax.jacrev(lambda m: jnp.stack(one(m)[:4]))))(matrices)
    ahead, behind = (np.stack(decomposed(matrices + h * change)[:4], axis=1) for h in (step, -step))
    found = np.sum(np.asarray(slopes) * change[:, None], axis=(2, 3))
    np.testing.assert_allclose(found, (ahead - behind) / (2 * step), atol=2e-5, rtol=1e-5)


def test_a_second_derivative_is_refused():
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        jax.hessian(lambda m: gaussian_pid(m, sizes=SIZES).synergy)(covariance(0))


def test_float32_is_float64_rounded():
    matrices = np.stack([covariance(seed) for seed in range(NUMBER)])
    wide = decomposed(matrices)
    with jax.enable_x64(False):
        narrow = compiled(SIZES)(matrices.astype(np.float32))
        assert narrow.redundancy.dtype == jnp.float32
        np.testing.assert_allclose(narrow[:4], wide[:4], atol=2e-4)


def test_features_that_are_combinations_up_to_rounding_change_nothing_in_float32():
    """Beside a signal a thousand times as strong as the noise."""
    matrices = []
    for seed in range(NUMBER):
        rng = np.random.default_rng(seed)
        causes, noise = rng.normal(size=(4, 2)), np.pad(covariance(seed, d=4) / 1e4, (0, 2))
        signal = np.concatenate([causes, np.eye(2)])
        combined = np.eye(6)
        combined[1], combined[5] = [0.7, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1.3, 0]
        matrices.append(combined @ (signal @ signal.T + noise) @ combined.T)
    kept = [0, 2, 3, 4]
    wanted = [gaussian_pid(m[np.ix_(kept, kept)], sizes=(1, 2, 1))[:4] for m in matrices]
    with jax.enable_x64(False):
        found = decomposed(np.float32(matrices))
    np.testing.assert_allclose(np.stack(found[:4], axis=1), wanted, atol=2e-3)


def test_gradients_of_float32_are_finite_differences_too():
    rng, step = np.random.default_rng(3), 1e-5
    matrix, change = covariance(1, d=3), rng.normal(size=(3, 3))
    change += change.T

    def synergy(m):
        return information(m, [0, 1], [2]) - max(information(m, [i], [2]) for i in (0, 1))

    with jax.enable_x64(False):
        run = jax.jit(jax.grad(lambda m: gaussian_pid(m, sizes=(1, 1, 1)).synergy))
        found = np.sum(np.asarray(run(np.float32(matrix))) * change)
        assert not np.any(run(np.full((3, 3), np.nan, np.float32)))
    ahead, behind = (synergy(matrix + h * change) for h in (step, -step))
    assert found == pytest.approx((ahead - behind) / (2 * step), rel=1e-4)


def test_infinite_information_is_refused_and_told_inside_jit():
    matrix = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])  # y = x1
    with pytest.raises(ValueError, match="infinite information: add noise"):
        gaussian_pid(np.stack([matrix] * NUMBER), sizes=(1, 1, 1))
    found = decomposed([matrix, covariance(0, d=3), np.full((3, 3), np.nan)], (1, 1, 1))
    assert np.all(np.isfinite(np.stack(found[:5])))
    np.testing.assert_array_equal(found.infeasibility, [np.inf, 0, np.inf])


@pytest.mark.parametrize(
    ("matrix", "sizes", "message"),
    [
        (np.diag([1.0, 1.0, -1.0]), (1, 1, 1), "no negative eigenvalue"),
        (np.triu(np.ones((3, 3))), (1, 1, 1), "symmetric"),
        (np.eye(3), (1, 1, 2), r"add up to the 3 features, got \(1, 1, 2\)"),
        (np.eye(3), (0, 2, 1), r"must be positive and add up"),
    ],
)
def test_what_is_no_covariance_is_refused(matrix, sizes, message):
    with pytest.raises(ValueError, match=message):
        gaussian_pid(matrix, sizes=sizes)


@pytest.mark.parametrize("sizes", [(2, 3, 2), (4, 4, 3)])
def test_the_union_information_is_that_of_a_conic_solver(sizes):
    """As a semidefinite program: -log det Z with Z below the inverse of 1 + B' W^-1 B."""
    cvxpy = pytest.importorskip("cvxpy")
    pytest.importorskip("clarabel")
    d1, d2, k = sizes
    matrix = covariance(4, d=sum(sizes))
    whiten = np.linalg.inv(np.linalg.cholesky(matrix[-k:, -k:]))
    gains = []
    for block in (slice(0, d1), slice(d1, d1 + d2)):
        across = matrix[block, -k:] @ whiten.T
        gains.append(
            np.linalg.solve(np.linalg.cholesky(matrix[block, block] - across @ across.T), across)
        )
    both, noise = np.concatenate(gains), cvxpy.Variable((d1, d2))
    least = cvxpy.Variable((k, k), symmetric=True)
    whole = cvxpy.bmat([[np.eye(d1), noise], [noise.T, np.eye(d2)]])
    block = cvxpy.bmat([[np.eye(k) - least, both.T], [both, whole + both @ both.T]])
    problem = cvxpy.Problem(cvxpy.Maximize(cvxpy.log_det(least)), [block >> 0, whole >> 0])
    problem.solve(solver=cvxpy.CLARABEL)
    found = gaussian_pid(matrix, sizes=sizes)
    union = found.redundancy + found.unique_1 + found.unique_2
    assert float(union) == pytest.approx(-problem.value / 2, abs=1e-5)
