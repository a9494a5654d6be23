"""Shamir's sharing: any t shares give the secret back, and t - 1 say nothing, counted in small fields."""

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest

from nnbrain.federated import reconstruct_secret, split_secret
from nnbrain.federated.secret_sharing import PRIME


def fixed(*numbers):
    """Stand in for randomness: give these numbers, one byte each."""
    left = iter(numbers)
    return lambda n: bytes([next(left)])


def all_sharings(secret, places, threshold, prime):
    """Return the shares for each choice of the random coefficients."""
    choices = product(range(prime), repeat=threshold - 1)
    return [split_secret(secret, places, threshold, fixed(*choice), prime) for choice in choices]


def test_shares_are_values_of_the_polynomial():
    """eq-shamir: 5 + 3z + 2z² modulo 11."""
    shares = split_secret(5, [1, 2, 3, 4, 10], 3, fixed(3, 2), 11)
    assert shares == {z: (5 + 3 * z + 2 * z * z) % 11 for z in (1, 2, 3, 4, 10)}


@pytest.mark.parametrize(("prime", "threshold", "places"), [(5, 2, 4), (7, 3, 5), (5, 4, 4), (3, 1, 2)])
def test_any_t_shares_give_every_secret_back(prime, threshold, places):
    """eq-lagrange, for all secrets, all polynomials, and all sets of t shares or more."""
    for secret in range(prime):
        for shares in all_sharings(secret, range(1, places + 1), threshold, prime):
            for size in range(threshold, places + 1):
                for known in combinations(shares, size):
                    assert reconstruct_secret({z: shares[z] for z in known}, threshold, prime) == secret


@pytest.mark.parametrize(("prime", "threshold", "places"), [(5, 2, 4), (7, 3, 4), (5, 4, 4)])
def test_fewer_shares_are_equally_likely_for_every_secret(prime, threshold, places):
    """Perfect secrecy: each value of t - 1 shares comes from exactly one polynomial of each secret."""
    for known in combinations(range(1, places + 1), threshold - 1):
        for secret in range(prime):
            seen = Counter(
                tuple(shares[z] for z in known)
                for shares in all_sharings(secret, range(1, places + 1), threshold, prime)
            )
            assert seen == dict.fromkeys(product(range(prime), repeat=threshold - 1), 1)


def test_t_shares_are_not_equally_likely():
    """The test above can fail: with t shares, each secret has shares of its own."""
    seen = [{tuple(s.values()) for s in all_sharings(secret, [1, 2], 2, 5)} for secret in range(5)]
    assert all(not (a & b) for a, b in combinations(seen, 2))


def test_coefficients_are_drawn_evenly_from_the_whole_field():
    """Numbers from the prime on are drawn again, not folded back."""
    shares = split_secret(0, [1, 2], 2, fixed(6, 7, 5, 3), 5)  # three bits: 6, 7 and 5 are too large
    assert shares == {1: 3, 2: 1}
    rng = np.random.default_rng(0)
    counts = np.bincount([split_secret(0, [1, 2], 2, rng.bytes, 5)[1] for _ in range(5000)])
    assert ((counts - 1000) ** 2 / 1000).sum() < 18.5  # chi-square, 4 degrees of freedom: once in a thousand


def test_sums_of_shares_are_shares_of_the_sum():
    rng = np.random.default_rng(1)
    one, other = (split_secret(s, range(1, 6), 3, rng.bytes) for s in (123, 456))
    assert reconstruct_secret({z: (one[z] + other[z]) % PRIME for z in (2, 3, 5)}, 3) == 579


def test_the_prime_is_the_first_above_all_keys():
    def is_probably_prime(n):
        odd, twos = n - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        powers = ([pow(a, odd * 2**i, n) for i in range(twos)] for a in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29))
        return all(p[0] == 1 or n - 1 in p for p in powers)

    assert is_probably_prime(PRIME)
    assert not any(is_probably_prime(n) for n in range(2**256 + 1, PRIME, 2))
    secret = 2**256 - 1
    assert reconstruct_secret(split_secret(secret, [3, 1, 200], 2), 2) == secret


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: split_secret(5, [1, 2], 2, prime=5), ValueError, "secret must be below the prime 5, got 5"),
        (lambda: split_secret(-1, [1, 2], 2), ValueError, "secret must be .* >= 0, got -1"),
        (lambda: split_secret(1, [1, 2], 3), ValueError, "threshold must be at most the 2 places, got 3"),
        (lambda: split_secret(1, [1, 2], 0), ValueError, "threshold must be .* >= 1, got 0"),
        (lambda: split_secret(1, [0, 2], 2), ValueError, "places must be .* >= 1, got 0"),
        (lambda: split_secret(1, [2, 2], 2), ValueError, r"places must be different .* got \[2, 2\]"),
        (lambda: split_secret(1, [1, 7], 2, prime=7), ValueError, r"places must be .* got \[1, 7\]"),
        (lambda: reconstruct_secret({1: 4, 2: 5}, 3), ValueError, "at least threshold = 3, got 2"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
