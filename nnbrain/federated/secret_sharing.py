"""Shamir's secret sharing: any t of the shares give the secret back, and fewer say nothing about it.

The secret is the value at 0 of a polynomial of degree t - 1 whose other coefficients are random; a share is
its value at another place. All numbers are integers modulo a prime, where one may add, multiply and divide
as usual, and where every value is equally likely.
"""

import os
from collections.abc import Callable, Iterable, Mapping

from nnbrain import checks

Random = Callable[[int], bytes]
"""Gives so many random bytes: `os.urandom`, or, to repeat a run, ``np.random.default_rng(seed).bytes``."""

PRIME = 2**256 + 297
"""The smallest prime above 2**256: any 32 bytes are a number modulo it."""


def split_secret(
    secret: int, places: Iterable[int], threshold: int, random: Random = os.urandom, prime: int = PRIME
) -> dict[int, int]:
    """Return a share of `secret` for each of `places`, by place.

    Parameters
    ----------
    secret : int
        In 0..prime - 1.
    places : iterable of int
        Where the polynomial is evaluated: different numbers in 1..prime - 1, one for each holder.
    threshold : int
        t, how many shares give the secret back.
    random : callable
        Gives so many random bytes. Only the operating system's are secret.
    prime : int
        A prime number.

    Raises
    ------
    TypeError, ValueError
        If the secret or a place is out of range, or there are fewer places than `threshold`.

    Notes
    -----
    Shamir (1979).

    Examples
    --------
    >>> shares = split_secret(1234, [1, 2, 3, 4, 5], threshold=3)
    >>> reconstruct_secret({2: shares[2], 5: shares[5], 3: shares[3]}, threshold=3)
    1234
    """
    if checks.integer("secret", secret, minimum=0) >= prime:
        raise ValueError(f"secret must be below the prime {prime}, got {secret}")
    places = _checked(places, prime)
    if not checks.integer("threshold", threshold) <= len(places):
        raise ValueError(f"threshold must be at most the {len(places)} places, got {threshold}")
    coefficients = [secret, *(_below(prime, random) for _ in range(threshold - 1))]
    shares = {}
    for place in places:
        value = 0
        for coefficient in reversed(coefficients):
            value = (value * place + coefficient) % prime
        shares[place] = value
    return shares


def reconstruct_secret(shares: Mapping[int, int], threshold: int, prime: int = PRIME) -> int:
    """Return the secret, given shares by place.

    It is Σ yⱼ Π xₘ/(xₘ - xⱼ), the value at 0 of the polynomial through the points (xⱼ, yⱼ); the product
    is over the other points. Of more than `threshold` shares, those of the lowest places are used.

    Raises
    ------
    ValueError
        If there are fewer than `threshold` shares, or places are out of range.
    """
    if len(shares) < checks.integer("threshold", threshold):
        raise ValueError(f"shares must be at least threshold = {threshold}, got {len(shares)}")
    places = sorted(_checked(shares, prime))[:threshold]
    secret = 0
    for x in places:
        above = below = 1
        for other in places:
            if other != x:
                above = above * other % prime
                below = below * (other - x) % prime
        inverse: int = pow(below, -1, prime)
        secret = (secret + shares[x] * above * inverse) % prime
    return secret


def _checked(places: Iterable[int], prime: int) -> list[int]:
    numbers = [checks.integer("places", place) for place in places]
    if len(set(numbers)) < len(numbers) or max(numbers, default=0) >= prime:
        raise ValueError(f"places must be different numbers in 1..prime - 1, got {numbers}")
    return numbers


def _below(prime: int, random: Random) -> int:
    """Return a number in 0..prime - 1, each equally likely: draw until one is below."""
    bits = prime.bit_length()
    while True:
        number = int.from_bytes(random((bits + 7) // 8), "big") & ((1 << bits) - 1)
        if number < prime:
            return number
