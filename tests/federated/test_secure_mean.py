"""The secure mean in federated training: the plain one but for rounding, within the stated bound."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.federated import (
    DifferentiallyPrivate,
    FedAvg,
    FedSGD,
    FixedPoint,
    Weighted,
    make_clients,
    simulate,
    weighted_mean,
)
from nnbrain.mlp import MLP

pytest.importorskip("cryptography", reason="the extra privacy is not installed")

from nnbrain.federated.secure_mean import SecureMean, SecureSum, default_threshold

SIZES = [5, 40, 300, 1093]


@pytest.fixture(scope="module")
def unequal():
    """Four clients with 5, 40, 300 and 1093 samples."""
    X, y, *_ = load_digits()
    parts = np.split(np.random.default_rng(0).permutation(len(X)), np.cumsum(SIZES)[:-1])
    return make_clients(X.astype(np.float64), y, parts)


@dataclass(frozen=True)
class FixedPointMean:
    """What the secure mean is to equal: the same rounding, no masks, in Python's integers."""

    fraction_bits: int = 16

    def __call__(self, vectors, weights):
        weighted = [np.append(v.astype(np.float64) * w, w) for v, w in zip(vectors, weights, strict=True)]
        total = fixed_point_sum(weighted, self.fraction_bits)
        return (total[:-1] / total[-1]).astype(vectors[0].dtype)


def fixed_point_sum(vectors, fraction_bits=16):
    total = [
        sum(round(float(v) * 2**fraction_bits) for v in entries) for entries in zip(*vectors, strict=True)
    ]
    return np.array(total, dtype=np.float64) / 2**fraction_bits


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fraction_bits", [4, 12, 16])
def test_the_mean_is_off_by_no_more_than_the_bound(dtype, fraction_bits):
    """eq-fixed-point-error: K/n 2^-(fraction bits + 1), and the plain mean's own rounding."""
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=2000).astype(dtype) for _ in SIZES]
    got = SecureMean(FixedPoint(32, fraction_bits))(vectors, SIZES)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, FixedPointMean(fraction_bits)(vectors, SIZES))
    exact = np.average(np.array(vectors, np.float64), axis=0, weights=SIZES)
    bound = len(SIZES) / sum(SIZES) * 2.0 ** -(fraction_bits + 1)
    error = np.abs(got - exact).max()
    assert error <= bound + 4 * np.finfo(dtype).eps
    if dtype == np.float64:
        assert error > bound / 4  # the bound is not idle


def test_the_mean_does_not_depend_on_the_keys():
    vectors = [np.linspace(-1, 1, 9), np.ones(9)]
    means = [SecureMean(seed=seed)(vectors, [3, 4]) for seed in (0, 1, None)]
    np.testing.assert_array_equal(means[0], means[1])
    np.testing.assert_array_equal(means[0], means[2])


def test_with_a_seed_the_keys_repeat_but_not_for_other_vectors():
    mean, ones = SecureSum(seed=5), {0: np.ones(3, np.uint32)}
    assert mean._random(ones)(32) == mean._random(ones)(32)
    assert mean._random(ones)(32) != mean._random({0: np.full(3, 2, np.uint32)})(32)
    assert mean._random(ones)(32) != SecureSum(seed=6)._random(ones)(32)


small = MLP((64, 8, 10))


@pytest.mark.parametrize("make", [partial(FedAvg, small, learning_rate=0.1), partial(FedSGD, small, 0.5)])
def test_training_equals_that_with_plain_fixed_point_sums_bit_for_bit(unequal, make):
    theta = small.init(0)
    options = {"rounds": 3, "client_fraction": 0.75, "seed": 1}
    secure, history = simulate(make(aggregate=SecureMean()), unequal, theta, **options)
    fixed, other = simulate(make(aggregate=FixedPointMean()), unequal, theta, **options)
    np.testing.assert_array_equal(secure, fixed)
    assert history == other
    assert not np.array_equal(secure, simulate(make(), unequal, theta, **options)[0])


def test_weights_need_not_be_whole_numbers(unequal):
    """Weighted clients speak for sums of weights: the secure run is the fixed-point one, near the plain."""
    theta = small.init(0, np.float64)
    runs = []
    for aggregate in (SecureMean(), FixedPointMean(), weighted_mean):
        algorithm = Weighted(FedAvg(small, aggregate=aggregate), np.linspace(0.3, 1.7, 10))
        runs.append(simulate(algorithm, unequal, theta, rounds=2)[0])
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_allclose(runs[0], runs[2], rtol=0, atol=1e-4)
    got = SecureMean()([np.array([1.0]), np.array([3.0])], [0.25, 0.75])
    assert got.tolist() == [2.5]  # all of these are multiples of 2**-16


@pytest.mark.parametrize("make", [partial(FedAvg, small, learning_rate=0.1), partial(FedSGD, small, 0.5)])
def test_a_private_run_may_take_its_sums_from_the_protocol(unequal, make):
    """With the same noise and clipping, it is bit for bit the run with plain fixed-point sums."""
    theta, runs = small.init(0), []
    for total in (SecureSum(), fixed_point_sum):
        private = DifferentiallyPrivate(make(), 4, 0.5, 1.0, total=total)
        runs.append(simulate(private, unequal, theta, rounds=3, client_fraction=0.75, seed=1)[0])
    np.testing.assert_array_equal(*runs)
    plain, _ = simulate(
        DifferentiallyPrivate(make(), 4, 0.5, 1.0), unequal, theta, rounds=3, client_fraction=0.75, seed=1
    )
    assert 0 < np.abs(runs[0] - plain).max() < 1e-3
    with pytest.raises(ValueError, match=r"a sum of one hides nothing: .* client_fraction"):
        simulate(replace(private, total=SecureSum()), unequal[:1], theta, rounds=1)


def test_any_number_of_workers_gives_the_same_bits(unequal):
    algorithm = FedAvg(small, aggregate=SecureMean())
    theta = small.init(0)
    one, two = (simulate(algorithm, unequal, theta, rounds=2, workers=w)[0] for w in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_a_convex_run_stays_as_close_as_the_roundings_add_up(unequal):
    """Small steps on a convex loss bring no two models further apart, so R rounds are off by R √d bounds.

    Softmax regression's Hessian is at most half the largest squared length of an input (x, 1).
    """
    mlp = MLP((64, 10))
    longest = max((np.sum(c.X[c.index] ** 2, axis=1) + 1).max() for c in unequal)
    settings = {"epochs": 2, "batch_size": 10, "learning_rate": 0.15}
    assert settings["learning_rate"] <= 2 / (longest / 2)
    theta, rounds, code = mlp.init(0, np.float64), 6, FixedPoint(32, 8)
    plain, _ = simulate(FedAvg(mlp, **settings), unequal, theta, rounds=rounds)
    secure, _ = simulate(FedAvg(mlp, **settings, aggregate=SecureMean(code)), unequal, theta, rounds=rounds)
    bound = rounds * np.sqrt(mlp.size) * len(SIZES) / sum(SIZES) * 2.0 ** -(code.fraction_bits + 1)
    assert bound / 100 < np.linalg.norm(secure - plain) <= bound


def test_default_threshold_is_the_first_above_two_thirds():
    assert [default_threshold(n) for n in range(1, 8)] == [1, 2, 3, 3, 4, 5, 5]
    for n in range(1, 100):
        assert 3 * default_threshold(n) > 2 * n >= 3 * (default_threshold(n) - 1)


@pytest.mark.parametrize(
    ("vectors", "weights", "message"),
    [
        ([np.ones(3)], [1], "vectors must be two or more.* client_fraction, or another select,.* got 1"),
        ([], [], "vectors must be two or more.* got 0"),
        ([np.ones(3)] * 2, [1], "vectors must have one weight each, got 2 and 1"),
        ([np.ones(3)] * 2, [1, -1], r"weights must be at least 0 .* got \[1, -1\]"),
        ([np.ones(3)] * 2, [1, 20_000], r"weights must be .* at most 16384 \(more with fewer fraction_bits"),
        ([np.ones(3)] * 2, [1, np.nan], "weights must be finite, got 1 NaN"),
        ([np.ones(3)] * 2, [1, np.inf], "weights must be finite"),
        ([np.ones(3)] * 2, [0, 1e-9], r"weights must not all be 0 when rounded by FixedPoint\("),
        ([np.full(3, 1e6)] * 2, [1, 1], "values must be at most 16384 in magnitude"),
        ([np.ones(3), np.ones(4)], [1, 1], "vectors must be of one shape"),
        ([np.array([np.nan]), np.ones(1)], [1, 1], "values must be finite"),
    ],
)
def test_bad_input_is_named(vectors, weights, message):
    with pytest.raises(ValueError, match=message):
        SecureMean()(vectors, weights)


def test_the_plain_mean_is_what_it_is_compared_with():
    vectors = [np.array([1.0, -2.0]), np.array([3.0, 4.0])]
    np.testing.assert_allclose(SecureMean()(vectors, [1, 3]), weighted_mean(vectors, [1, 3]), atol=1e-5)
