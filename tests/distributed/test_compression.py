"""Codes of a gradient, there and back: how long they are, what they lose, and which settings they refuse."""

import numpy as np
import pytest
from scipy import stats

from nnbrain.distributed import (
    QSGD,
    CompressedAllreduce,
    Half,
    PowerSGD,
    Sign,
    TopK,
    ring_allreduce,
    run_ranks,
)
from nnbrain.mlp import MLP

LENGTHS = [1, 2, 7, 8, 9, 64, 513, 1000]


def vector_of(n, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_t(3, n).astype(dtype)  # heavy tails, as gradients have


def there_and_back(compressor, v, seed=0):
    payload = compressor.encode(v, np.random.default_rng(seed))
    return compressor.decode(payload, len(v), v.dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", LENGTHS)
def test_payloads_are_as_long_as_the_formulas_say(n, dtype):
    size, v = np.dtype(dtype).itemsize, vector_of(n, dtype)
    k = max(1, round(0.1 * n))
    expected = {
        TopK(0.1): k * (4 + size),
        TopK(1): n * (4 + size),
        Half(): 2 * n,
        Sign(): size + -(-n // 8),
        QSGD(1): -(-n // 512) * size + -(-2 * n // 8),
        QSGD(3): -(-n // 512) * size + -(-3 * n // 8),
        QSGD(127, bucket=100): -(-n // 100) * size + n,
        QSGD(1000, bucket=1): n * size + -(-11 * n // 8),
    }
    for compressor, n_bytes in expected.items():
        before = v.copy()
        payload = compressor.encode(v, np.random.default_rng(0))
        assert payload.dtype == np.uint8
        assert payload.shape == (n_bytes,), compressor
        np.testing.assert_array_equal(v, before)
        back = compressor.decode(payload, n, dtype)
        assert back.dtype == v.dtype
        assert back.shape == v.shape
        zeros = compressor.encode(np.zeros_like(v), np.random.default_rng(0))
        assert len(zeros) == n_bytes
        assert not compressor.decode(zeros, n, dtype).any()


@pytest.mark.parametrize("n", LENGTHS)
def test_top_k_keeps_the_largest_and_loses_at_most_its_share(n):
    """eq-topk-error, against a full sort; k = n loses nothing, bit for bit."""
    v = vector_of(n)
    np.testing.assert_array_equal(there_and_back(TopK(1), v), v)
    for fraction in (0.01, 0.3):
        back = there_and_back(TopK(fraction), v)
        k = max(1, round(fraction * n))
        order = np.argsort(-np.abs(v))
        expected = np.zeros(n)
        expected[order[:k]] = v[order[:k]]
        np.testing.assert_array_equal(back, expected)
        assert np.sum((v - back) ** 2) <= (1 - k / n) * np.sum(v**2) + 1e-12
    flat = np.ones(10)  # the worst case: all alike
    assert np.sum((flat - there_and_back(TopK(0.3), flat)) ** 2) == (1 - 3 / 10) * 10


HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
HALVES = HALVES[np.isfinite(HALVES)].astype(np.float64)  # every number of half precision there is


def test_half_keeps_what_half_precision_has_and_rounds_the_rest_to_the_nearest():
    """Subnormals and the largest included; half-way between two neighbours, too, as NumPy rounds it."""
    np.testing.assert_array_equal(there_and_back(Half(), HALVES), HALVES)
    sorted_ = np.unique(HALVES)
    low, high = sorted_[:-1], sorted_[1:]
    for share in (0.25, 0.5, 0.75):
        between = (1 - share) * low + share * high
        back = there_and_back(Half(), between)
        np.testing.assert_array_equal(back, between.astype(np.float16))
        np.testing.assert_array_equal(np.abs(back - between), np.minimum(share, 1 - share) * (high - low))
    small = np.float32(
        [2.0**-25, 1.01 * 2.0**-25, 2.0**-24]
    )  # half of the smallest, a little more, the smallest
    np.testing.assert_array_equal(there_and_back(Half(), small), np.float32([0, 2.0**-24, 2.0**-24]))
    np.testing.assert_array_equal(there_and_back(Half(scale=2.0**10), small[:1]), small[:1])


def test_half_refuses_what_half_precision_would_make_infinite():
    v = np.array([1.0, -65519.9])  # rounds to the largest number; from 65520 on it would be infinite
    np.testing.assert_array_equal(there_and_back(Half(), v), [1, -65504])
    with np.errstate(over="ignore"):
        assert np.isinf(np.float64(-65520).astype(np.float16))
    for scale, value in ((1, -65520), (8, 8190), (1, 1e30)):
        with pytest.raises(FloatingPointError, match=r"at most 65504 / scale, got (65520|8190|1e\+30)"):
            there_and_back(Half(scale), np.array([0, value], np.float32))


def test_halves_can_be_added_on_the_ring():
    """Small whole numbers have no rounding: the ring's sum of payloads is the payload of the sum."""

    def program(comm):
        payload = Half().encode(np.arange(7.0) * (1 + comm.Get_rank()), np.random.default_rng(0))
        ring_allreduce(comm, payload.view(np.float16))
        return Half().decode(payload, 7, np.float64)

    for total in run_ranks(3, program):
        np.testing.assert_array_equal(total, np.arange(7.0) * 6)


@pytest.mark.parametrize("n", LENGTHS)
def test_sign_is_the_nearest_multiple_of_the_signs(n):
    """eq-sign-error: the error is what the first norm does not explain, and no other scale does better."""
    v = vector_of(n)
    signs = np.where(v < 0, -1.0, 1.0)
    back = there_and_back(Sign(), v)
    np.testing.assert_allclose(back, np.abs(v).mean() * signs, rtol=1e-15)
    error = np.sum((v - back) ** 2)
    assert error == pytest.approx(np.sum(v**2) - np.sum(np.abs(v)) ** 2 / n, rel=1e-12, abs=1e-12)
    best = np.linalg.lstsq(signs[:, None], v, rcond=None)[1]
    assert error == pytest.approx(best[0] if len(best) else 0, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("levels", "bucket"), [(1, 512), (1, 7), (3, 40), (5, 16), (100, 512)])
def test_qsgd_is_right_on_average_and_its_variance_within_the_bound(levels, bucket):
    """eq-qsgd, eq-qsgd-variance: 4,000 draws of 50 entries; each test fails by chance once in a million."""
    v = vector_of(50)
    rng = np.random.default_rng(1)
    compressor = QSGD(levels, bucket)
    draws = np.array([compressor.decode(compressor.encode(v, rng), 50, v.dtype) for _ in range(4000)])

    rows = [v[i : i + bucket] for i in range(0, 50, bucket)]
    step = np.concatenate([np.full(len(row), np.linalg.norm(row)) for row in rows]) / levels
    np.testing.assert_allclose(draws / step, np.round(draws / step), atol=1e-12)  # only whole levels
    assert np.abs(draws - v).max() < step.max()  # and only the two beside the entry
    above = np.abs(v) / step % 1
    variance = step**2 * above * (1 - above)
    random = variance > 1e-12  # an entry that is its bucket's norm is sent as it is
    surprise = np.sum(((draws.mean(axis=0) - v) ** 2 * len(draws))[random] / variance[random])
    assert stats.chi2.sf(surprise, np.count_nonzero(random)) > 1e-6
    np.testing.assert_allclose(draws[0][~random], v[~random], rtol=1e-12)

    squares = np.sum((draws - v) ** 2, axis=1)
    standard_error = squares.std() / np.sqrt(len(draws))
    assert abs(squares.mean() - variance.sum()) < 4.9 * standard_error + 1e-12
    bound = sum(min(len(r) / 4 / levels**2, np.sqrt(len(r)) / levels) * np.sum(r**2) for r in rows)
    assert variance.sum() <= bound


def test_qsgd_of_very_small_and_very_large_numbers():
    for scale in (1e-30, 1e30):  # their squares are not float32
        v = np.array([scale, -scale, 0, scale / 2], np.float32)
        back = there_and_back(QSGD(1000), v)
        np.testing.assert_allclose(back, v, atol=2e-3 * scale)


def test_powersgd_finds_the_best_matrix_of_its_rank():
    """eq-low-rank: repeated on one gradient it is the power method, whose limit is the truncated SVD."""
    mlp = MLP((12, 8))
    singular = np.diag([5.0, 3.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.01])
    rng = np.random.default_rng(3)
    U, V = (np.linalg.qr(rng.normal(size=(n, 8)))[0] for n in (12, 8))
    M = U @ singular @ V.T
    best = U[:, :2] @ singular[:2, :2] @ V[:, :2].T

    def program(comm, M, steps):
        exchange = PowerSGD(mlp, 2, feedback=False)
        for _ in range(steps):
            g = np.append(M.ravel(), np.ones(8)) * (0.25, 0.75)[comm.Get_rank()]
            exchange(comm, g)
        return mlp.layers(g)[0]

    W, b = run_ranks(2, program, M, 40)[0]
    np.testing.assert_allclose(W, best, atol=1e-10)
    np.testing.assert_allclose(b, 1, atol=1e-15)
    W, _ = run_ranks(2, program, best, 1)[0]  # a matrix of rank 2 is sent whole, at once
    np.testing.assert_allclose(W, best, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: TopK(0), ValueError, r"fraction must be finite and > 0 and <= 1, got 0"),
        (lambda: TopK(1.5), ValueError, r"fraction must be .* <= 1, got 1.5"),
        (lambda: Half(0), ValueError, r"scale must be finite and > 0, got 0"),
        (lambda: Half("2"), TypeError, r"scale must be a number, got '2'"),
        (lambda: QSGD(0), ValueError, r"levels must be an integer >= 1, got 0"),
        (lambda: QSGD(2.0), TypeError, r"levels must be an integer, got 2.0"),
        (lambda: QSGD(2, bucket=0), ValueError, r"bucket must be an integer >= 1, got 0"),
        (
            lambda: CompressedAllreduce(Sign(), feedback=1),
            TypeError,
            r"feedback must be True or False, got 1",
        ),
        (lambda: CompressedAllreduce(Sign(), seed=-1), ValueError, r"seed must be an integer >= 0, got -1"),
        (lambda: PowerSGD(MLP((64, 16, 10)), 0), ValueError, r"rank must be an integer >= 1, got 0"),
        (
            lambda: PowerSGD(MLP((64, 16, 10)), 1, seed=-1),
            ValueError,
            r"seed must be an integer >= 0, got -1",
        ),
    ],
)
def test_settings_out_of_range_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
