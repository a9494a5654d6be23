"""Gradient coding: a gradient computed with so much overlap that any s of p workers may be lost.

The samples are cut in p partitions with gradients g_0 … g_(p-1), whose sum is wanted. A code is a matrix B
(p workers × p partitions): worker r computes the partitions at which row r is not zero, s + 1 of them, and
sends the one vector Σ_j B[r, j] g_j. Whoever is left, weights a with aᵀB = (1, …, 1) give back the sum.

Source: Tandon, Lei, Dimakis & Karampatziakis (2017), "Gradient coding: avoiding stragglers in distributed
learning".
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from nnbrain import checks
from nnbrain.checks import Floats

# Of aᵀB against 1. Up to p = 14 the codes here reach 1e-9, and a set that cannot be decoded 1e-3.
TOLERANCE = 1e-8


def fractional_repetition(p: int, s: int) -> Floats:
    """Return the code in which workers come in teams of s + 1, and all of a team compute the same.

    Team k has the partitions k (s + 1), … k (s + 1) + s. All entries of B are 0 or 1, and so are the weights
    that decode: of each team one survivor is taken.

    Parameters
    ----------
    p : int
        Workers, and partitions.
    s : int
        Losses to be borne, 0..p-1; s + 1 must divide p.

    Returns
    -------
    B : array (p, p)

    Raises
    ------
    TypeError, ValueError
        If p or s is not such a number.
    """
    p, s = _check_sizes(p, s)
    if p % (s + 1):
        raise ValueError(f"s + 1 must divide p, got p={p} and s={s}; cyclic_repetition takes any s < p")
    team = np.arange(p) // (s + 1)
    return np.asarray(team[:, None] == team, np.float64)


def cyclic_repetition(p: int, s: int) -> Floats:
    """Return a code for any p and s < p: worker r computes the partitions r, r + 1, … r + s, round a circle.

    Row r has the values, at p fixed points, of the polynomial with roots at the p - s - 1 points of the
    partitions that r does not compute. Any p - s rows span the polynomials of degree below p - s, of which
    the constant 1 is one: this is the idea of Reed & Solomon's error-correcting codes.

    Parameters
    ----------
    p, s : int
        Workers, and partitions; losses to be borne, 0..p-1.

    Returns
    -------
    B : array (p, p)
        The largest entry of a row has size 1.

    Raises
    ------
    TypeError, ValueError
        If p or s is not such a number.

    Notes
    -----
    Algorithm 2 of the paper takes its rows from a random space of as many dimensions, which now and then
    magnifies rounding much more. That any p - s rows span ours has been tried for every set of
    them up to p = 14, where the decoded sum is exact to 1e-10; `decoding_vector` tries it each time.
    Rounding grows with p: from about 20 workers on, with half of them lost, some sets are refused.
    """
    p, s = _check_sizes(p, s)
    points = np.cos((np.arange(p) + 0.5) * np.pi / p)  # Chebyshev's: the polynomials stay of one size
    B = np.zeros((p, p))
    for r in range(p):
        mine = (r + np.arange(s + 1)) % p
        roots = np.delete(points, mine)
        values = np.prod(points[mine, None] - roots, axis=1)
        B[r, mine] = values / np.abs(values).max()
    return B


def decoding_vector(B: Floats, survivors: Iterable[int]) -> Floats:
    """Return weights a, zero for workers that are lost, with aᵀB = (1, …, 1).

    Parameters
    ----------
    B : array (p, p)
        A code.
    survivors : iterable of int
        The workers that answered, 0..p-1.

    Returns
    -------
    a : array (p,)
        0 or 1 if B is of 0 and 1 and each team has a survivor: then the first of a team is taken.

    Raises
    ------
    ValueError
        If `survivors` has a number twice or out of range, or the sum cannot be had from them. With s + 1
        partitions a worker, p - s survivors are always enough, but for rounding, and some sets of fewer.
    """
    p = len(B)
    alive = sorted(survivors)
    if len(set(alive)) < len(alive) or (alive and not 0 <= alive[0] <= alive[-1] < p):
        raise ValueError(f"survivors must be different workers in 0..{p - 1}, got {alive}")
    a = _first_of_each_team(B, alive)
    if not np.all(a @ B == 1) and alive:
        a = np.zeros(p)
        a[alive] = np.linalg.lstsq(B[alive].T, np.ones(p), rcond=None)[0]
    if not np.allclose(a @ B, 1, rtol=0, atol=TOLERANCE):
        lost, s = p - len(alive), int(np.count_nonzero(B, axis=1).max()) - 1
        reason = f"this code is made for at most {s} losses"
        if lost <= s:
            reason = "rounding hides the sum, or B is no code for so many losses"
        raise ValueError(
            f"survivors do not determine the sum: {lost} of {p} workers are lost, only {alive} are left, "
            f"and {reason}"
        )
    return a


def coded_gradient(row: Floats, gradient_of: Callable[[int], Floats]) -> Floats:
    """Return what one worker sends, Σ_j row[j] g_j; it asks for the g_j it needs, and no others.

    Parameters
    ----------
    row : array (p,)
        The worker's row of B.
    gradient_of : callable
        Takes a partition j and returns g_j, always of one shape.

    Raises
    ------
    ValueError
        If `row` is all zero.
    """
    parts = np.flatnonzero(row)
    if len(parts) == 0:
        raise ValueError("row must have a partition to compute, got all zeros")
    total: Floats = row[parts[0]] * gradient_of(parts[0])
    for j in parts[1:]:  # in the order of the partitions: two workers with one row send the same bits
        total += row[j] * gradient_of(j)
    return total


def decode(a: Floats, sent: Mapping[int, Floats]) -> Floats:
    """Return Σ_r a[r] sent[r] over the workers r that have a weight, in the order of their numbers.

    Raises
    ------
    KeyError
        If a worker with a weight has sent nothing.
    """
    used = np.flatnonzero(a)
    total: Floats = a[used[0]] * sent[int(used[0])]
    for r in used[1:]:
        total += a[r] * sent[int(r)]
    return total


def _first_of_each_team(B: Floats, alive: list[int]) -> Floats:
    """Return 1 for each worker of `alive` whose partitions nobody before it has, else 0."""
    a = np.zeros(len(B))
    covered = np.zeros(B.shape[1], bool)
    for r in alive:
        if not np.any(covered[B[r] != 0]):
            a[r] = 1
            covered |= B[r] != 0
    return a


def _check_sizes(p: int, s: int) -> tuple[int, int]:
    p, s = checks.integer("p", p), checks.integer("s", s, minimum=0)
    if s >= p:
        raise ValueError(f"s must be below the number of workers, {p}, got {s}")
    return p, s
