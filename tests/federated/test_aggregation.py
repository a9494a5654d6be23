"""Robust aggregates against their definitions in plain Python, and what fraction of lies they bear."""

import itertools
import math
import pickle
import statistics

import numpy as np
import pytest
from scipy.optimize import minimize

from nnbrain.federated import (
    Clipped,
    FedAvg,
    FedNova,
    FedSGD,
    GeometricMedian,
    Krum,
    Scaffold,
    TrimmedMean,
    coordinate_median,
    make_clients,
    simulate,
    weighted_mean,
)
from nnbrain.mlp import MLP

RULES = {
    "mean": weighted_mean,
    "median": coordinate_median,
    "trimmed": TrimmedMean(2),
    "krum": Krum(2),
    "multi-krum": Krum(2, keep=4),
    "geometric": GeometricMedian(),
    "clipped": Clipped(bound=1.0),
    "clipped median": Clipped(coordinate_median),
}
ROBUST = ("median", "trimmed", "krum", "multi-krum", "geometric")
every_rule = pytest.mark.parametrize("name", RULES)
every_robust = pytest.mark.parametrize("name", ROBUST)


def draw(seed, n=9, d=5, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [v.astype(dtype) for v in rng.normal(size=(n, d))], rng.uniform(0.5, 2, n).tolist()


# ---- definitions, in plain Python ----


def slow_trimmed(vectors, f):
    columns = [sorted(column) for column in zip(*(v.tolist() for v in vectors), strict=True)]
    return [math.fsum(c[f : len(c) - f]) / (len(c) - 2 * f) for c in columns]


def slow_krum(vectors, f, keep):
    points, scored = [v.tolist() for v in vectors], []
    for i, a in enumerate(points):
        others = sorted(math.dist(a, b) ** 2 for j, b in enumerate(points) if j != i)
        scored.append((sum(others[: len(points) - f - 2]), i))
    best = [points[i] for _, i in sorted(scored)[:keep]]
    return [math.fsum(column) / keep for column in zip(*best, strict=True)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [7, 8, 9, 12])
def test_rules_are_their_definitions(seed, n):
    """eq-median, eq-trimmed-mean, eq-krum: sorted lists and sums of distances, entry by entry."""
    vectors, weights = draw(seed, n)
    median = [statistics.median(column) for column in zip(*(v.tolist() for v in vectors), strict=True)]
    np.testing.assert_allclose(coordinate_median(vectors, weights), median, rtol=0, atol=1e-15)
    for f in range((n - 1) // 2 + 1):
        got = TrimmedMean(f)(vectors, weights)
        np.testing.assert_allclose(got, slow_trimmed(vectors, f), rtol=0, atol=1e-14)
    for f, keep in itertools.product(range((n - 3) // 2 + 1), (1, 3, n)):
        got = Krum(f, keep)(vectors, weights)
        np.testing.assert_allclose(got, slow_krum(vectors, f, keep), rtol=0, atol=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_the_geometric_median_is_the_least_weighted_sum_of_distances(seed):
    """eq-geometric-median: not above what a general optimiser finds, and at its place."""
    vectors, weights = draw(seed, n=8, d=3)

    def total(z):
        return sum(w * math.dist(z, v) for w, v in zip(weights, vectors, strict=True))

    got = GeometricMedian()(vectors, weights)
    options = {"xatol": 1e-10, "fatol": 1e-14, "maxiter": 10_000, "maxfev": 10_000}
    best = minimize(total, np.mean(vectors, axis=0), method="Nelder-Mead", options=options)
    assert total(got) <= best.fun + 1e-9
    np.testing.assert_allclose(got, best.x, atol=1e-5)
    # where it is on no vector, the weighted unit vectors towards all of them balance
    pull = sum(w * (v - got) / math.dist(v, got) for w, v in zip(weights, vectors, strict=True))
    assert np.linalg.norm(pull) < 1e-6


def test_one_step_of_weiszfeld_is_a_weighted_mean():
    """eq-weiszfeld: from the median of coordinates, weights over distances."""
    vectors, weights = draw(0)
    start = np.median(vectors, axis=0)
    beta = [w / math.dist(start, v) for w, v in zip(weights, vectors, strict=True)]
    got = GeometricMedian(steps=1)(vectors, weights)
    np.testing.assert_allclose(got, np.average(vectors, axis=0, weights=beta), atol=1e-14)


def test_in_one_dimension_it_is_the_weighted_median_and_in_a_triangle_fermats_point():
    line = [np.array([x]) for x in (0.0, 1.0, 10.0)]
    assert GeometricMedian()(line, [1, 1, 1])[0] == pytest.approx(1, abs=1e-5)
    assert GeometricMedian()(line, [1, 1, 5])[0] == pytest.approx(10, abs=1e-5)  # 5 of 7 of the weight
    corners = [np.array(c) for c in ((0.0, 0.0), (2.0, 0.0), (1.0, math.sqrt(3)))]
    centre = GeometricMedian()(corners, [1, 1, 1])
    np.testing.assert_allclose(centre, [1, 1 / math.sqrt(3)], atol=1e-9)


@pytest.mark.parametrize("bound", [0.5, None])
def test_clipping_shortens_the_long_and_leaves_the_short(bound):
    """eq-norm-clipping."""
    vectors, weights = draw(3)
    lengths = [math.sqrt(sum(x * x for x in v)) for v in vectors]
    limit = statistics.median(lengths) if bound is None else bound
    short = [v * min(1, limit / n) for v, n in zip(vectors, lengths, strict=True)]
    expected = np.average(short, axis=0, weights=weights)
    np.testing.assert_allclose(Clipped(bound=bound)(vectors, weights), expected, atol=1e-14)
    got = Clipped(Krum(2), bound)(vectors, weights)
    np.testing.assert_allclose(got, slow_krum(short, 2, 1), atol=1e-14)


# ---- what all of them keep, and whether they look at weights ----


@every_rule
def test_the_order_of_clients_does_not_matter(name):
    vectors, weights = draw(1)
    order = np.random.default_rng(0).permutation(len(vectors))
    got = RULES[name]([vectors[i] for i in order], [weights[i] for i in order])
    np.testing.assert_allclose(got, RULES[name](vectors, weights), atol=1e-8)


@every_rule
def test_moving_all_vectors_moves_the_result(name):
    """All but clipping, which measures from where the clients started: from zero."""
    vectors, weights = draw(2)
    by = np.arange(5.0) - 7
    expected = RULES[name](vectors, weights) + by
    moved = RULES[name]([v + by for v in vectors], weights)
    assert np.allclose(moved, expected, atol=1e-7) == (not name.startswith("clipped"))


@every_rule
def test_only_the_mean_the_geometric_median_and_clipping_use_weights(name):
    vectors, weights = draw(4)
    same = np.array_equal(RULES[name](vectors, weights), RULES[name](vectors, [1.0] * 9))
    assert same == (name not in ("mean", "geometric", "clipped"))


@every_rule
def test_type_and_arguments_are_kept_and_rules_pickle(name):
    vectors, weights = draw(5, dtype=np.float32)
    before = [v.copy() for v in vectors]
    rule = pickle.loads(pickle.dumps(RULES[name]))
    got = rule(vectors, weights)
    assert got.dtype == np.float32
    assert all(np.array_equal(a, b) for a, b in zip(vectors, before, strict=True))
    equal = rule([np.ones(3)] * 9, weights)
    np.testing.assert_allclose(equal, np.ones(3) * (3**-0.5 if name == "clipped" else 1), atol=1e-12)


# ---- what is not finite ----


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@every_robust
def test_a_vector_that_is_not_finite_is_left_out_and_counts_among_the_f(name, bad):
    vectors, weights = draw(6)
    vectors[4] = np.full(5, bad)
    rest, rest_weights = [v for i, v in enumerate(vectors) if i != 4], weights[:4] + weights[5:]
    smaller = {"trimmed": TrimmedMean(1), "krum": Krum(1), "multi-krum": Krum(1, keep=4)}
    expected = smaller.get(name, RULES[name])(rest, rest_weights)
    np.testing.assert_allclose(RULES[name](vectors, weights), expected, atol=1e-12)
    assert np.all(np.isfinite(Clipped(RULES[name])(vectors, weights)))
    with pytest.raises(ValueError, match="vectors must be finite, got NaN or infinity in all 9"):
        RULES[name]([np.full(5, bad)] * 9, weights)


def test_a_nan_cannot_stop_krum_by_making_the_clients_too_few():
    vectors, weights = draw(0, 9)
    vectors[0] = np.full(5, np.nan)
    assert np.all(np.isfinite(Krum(3)(vectors, weights)))  # 8 are left, and 2 of them may lie


# ---- with algorithms, and with bad input ----


def test_aggregates_compose_with_algorithms():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(90, 4)), np.arange(90) % 3
    clients = make_clients(X, y, np.split(np.arange(90), 9))
    mlp = MLP((4, 3))
    theta = mlp.init(0, np.float64)
    for rule in RULES.values():
        for algorithm in (FedSGD(mlp, 0.5, rule), FedAvg(mlp, 2, 5, 0.3, rule)):
            state = algorithm.init(theta)
            updates = [algorithm.client_update(state, c, np.random.default_rng(c.id)) for c in clients]
            expected = rule([u.vector for u in updates], [10] * 9)
            sign = -0.5 if isinstance(algorithm, FedSGD) else 1
            got = algorithm.server_update(state, updates)["theta"]
            np.testing.assert_allclose(got, theta + sign * expected, atol=1e-14)
        scaffold = Scaffold(mlp, 1, 5, 0.1, rule, total_samples=90)
        assert np.all(np.isfinite(simulate(scaffold, clients, theta, rounds=2)[0]))


four = MLP((4, 3))
ALGORITHMS = {
    "FedSGD": lambda rule: FedSGD(four, 0.5, rule),
    "FedAvg": lambda rule: FedAvg(four, 1, 5, 0.3, rule),
    "FedNova": lambda rule: FedNova(four, 1, 5, 0.3, rule),
    "Scaffold": lambda rule: Scaffold(four, 1, 5, 0.1, rule, total_samples=20),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_aggregate_from_elsewhere_keeps_thetas_type_and_must_keep_its_shape(name):
    """`np.average` makes float64 of float32, and a scalar would be added everywhere."""
    rng = np.random.default_rng(0)
    X, theta = rng.normal(size=(20, 4)), four.init(0)
    clients = make_clients(X, np.arange(20) % 3, np.split(np.arange(20), 2))

    def after(rule):
        return simulate(ALGORITHMS[name](rule), clients, theta, rounds=2)[0]

    other = after(lambda vectors, weights: np.average(vectors, axis=0, weights=weights))
    assert other.dtype == np.float32
    np.testing.assert_allclose(other, after(weighted_mean), rtol=0, atol=1e-6)
    for rule, shape in ((lambda v, w: 0.5, r"\(\)"), (lambda v, w: np.stack(v), r"\(2, 15\)")):
        with pytest.raises(
            ValueError, match=rf"aggregate must return an array of shape \(15,\), got {shape}"
        ):
            after(rule)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_round_without_updates_is_refused(name):
    algorithm = ALGORITHMS[name](weighted_mean)
    with pytest.raises(ValueError, match="vectors must be one or more, got none: nobody took part"):
        algorithm.server_update(algorithm.init(four.init(0)), [])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrimmedMean(-1), "f must be an integer >= 0, got -1"),
        (lambda: TrimmedMean(5)(*draw(0)), "f must be below half of the 9 vectors, got 5"),
        (lambda: Krum(-1), "f must be an integer >= 0, got -1"),
        (lambda: Krum(1, keep=0), "keep must be an integer >= 1, got 0"),
        (lambda: Krum(1, keep=10)(*draw(0)), "keep must be at most the 9 vectors there are, got 10"),
        (lambda: GeometricMedian(smoothing=0), "smoothing must be finite and > 0, got 0"),
        (lambda: GeometricMedian(steps=0), "steps must be an integer >= 1, got 0"),
        (lambda: Clipped(bound=0), "bound must be finite and > 0, got 0"),
        (lambda: coordinate_median([], []), "vectors must be one or more, got none: nobody took part"),
        (lambda: Krum(0)(draw(0)[0], [1]), "weights must be one for each of 9 vectors, got 1"),
        (lambda: TrimmedMean(0)([np.ones(2), np.ones(3)], [1, 1]), "vectors must have one shape"),
        (lambda: GeometricMedian()([np.ones(2)], [-1]), "weights must be at least 0"),
        (
            lambda: GeometricMedian()([np.ones(2), np.full(2, np.nan)], [0, 1]),
            "weights must not be 0 for all vectors that are finite",
        ),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
