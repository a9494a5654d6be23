"""How many lies the rules of aggregation bear, and from how many on they break."""

import math

import numpy as np
import pytest

from nnbrain.federated import (
    Clipped,
    GeometricMedian,
    Krum,
    TrimmedMean,
    coordinate_median,
    weighted_mean,
)


def draw(seed, n=9, d=5):
    rng = np.random.default_rng(seed)
    return list(rng.normal(size=(n, d))), rng.uniform(0.5, 2, n).tolist()


def lie(n, liars, seed=0, size=1e9):
    """Return n vectors of length about 2; the first `liars` are huge, each in its own direction."""
    vectors, _ = draw(seed, n)
    rng = np.random.default_rng(seed + 100)
    for k in range(liars):
        vectors[k] = size * rng.normal(size=5)
    return vectors


def broken(rule, n, liars, weights=None, same=False):
    vectors = lie(n, liars)
    if same:
        vectors[:liars] = [vectors[0]] * liars
    return np.linalg.norm(rule(vectors, weights or [1.0] * n)) > 100


@pytest.mark.parametrize("same", [False, True], ids=["scattered", "all alike"])
@pytest.mark.parametrize("n", [9, 10, 20])
def test_each_rule_bears_what_it_says_and_the_mean_nothing(n, same):
    half = (n - 1) // 2
    assert broken(weighted_mean, n, 1, same=same)
    assert not broken(weighted_mean, n, 0)
    for liars in range(half + 1):
        assert not broken(coordinate_median, n, liars, same=same)
        assert not broken(GeometricMedian(), n, liars, same=same)
        assert not broken(TrimmedMean(liars), n, liars, same=same)
        if n > 2 * liars + 2:
            assert not broken(Krum(liars), n, liars, same=same)
            assert not broken(Krum(liars, keep=n - liars), n, liars, same=same)
    assert broken(coordinate_median, n, n // 2 + 1, same=True)
    assert broken(GeometricMedian(), n, n // 2 + 1, same=True)


def test_one_lie_more_than_f_breaks():
    assert broken(TrimmedMean(3), 10, 4, same=True)
    assert broken(Krum(2, keep=8), 10, 3)  # multi-Krum keeps n - f: one of three liars gets in
    # Krum itself needs a whole neighbourhood of liars: n - f - 1, which agree
    assert not broken(Krum(2), 10, 5, same=True)
    assert broken(Krum(2), 10, 7, same=True)


@pytest.mark.parametrize("rule", [Krum(3), Krum(3, keep=5)])
def test_krum_refuses_where_it_promises_nothing(rule):
    """n > 2f + 2."""
    assert rule(*draw(0, 9)).shape == (5,)
    with pytest.raises(ValueError, match=r"f must keep 2 f \+ 2 below the 8 vectors .* got 3"):
        rule(*draw(0, 8))


def test_the_geometric_median_breaks_at_half_of_the_weight_however_few_have_it():
    assert not broken(GeometricMedian(), 9, 1, [7.9] + [1.0] * 8)
    assert broken(GeometricMedian(), 9, 1, [8.1] + [1.0] * 8)
    assert not broken(coordinate_median, 9, 1, [8.1] + [1.0] * 8)


def test_clipping_bounds_what_a_liar_does_to_the_mean():
    """By its share of the weight times the bound, to either side."""
    vectors, weights = draw(0)
    honest = Clipped(bound=0.7)([np.zeros(5), *vectors[1:]], weights)
    for size in (1.0, 1e3, 1e30):
        lied = Clipped(bound=0.7)([size * vectors[0], *vectors[1:]], weights)
        assert np.linalg.norm(lied - honest) <= 0.7 * weights[0] / sum(weights) + 1e-12


@pytest.mark.parametrize("n", [9, 10])
def test_a_median_lies_between_honest_values_however_the_lies_lie(n):
    """eq-median-between: with a liars, between the honest order statistics ⌈n/2⌉ - a and ⌊n/2⌋ + 1."""
    rng, a = np.random.default_rng(0), 3
    honest = np.sort(rng.normal(size=n - a))
    low, high = honest[math.ceil(n / 2) - a - 1], honest[n // 2]
    for _ in range(200):
        lies = rng.normal(size=a) * 10.0 ** rng.integers(-2, 6)
        assert low <= coordinate_median([np.array([x]) for x in [*lies, *honest]], [1] * n)[0] <= high
    assert (coordinate_median([np.array([x]) for x in [-9, -9, -9, *honest]], [1] * n)[0] == low) == (n == 9)


def test_huge_vectors_do_not_drown_the_small_ones_distances():
    """Krum's choice among honest vectors is the same whether a liar is 10 or 1e150 away."""
    for size in (10.0, 1e8, 1e150):
        vectors = lie(9, 2, size=size)
        np.testing.assert_array_equal(Krum(2)(vectors, [1] * 9), Krum(2)(lie(9, 2, size=10.0), [1] * 9))
