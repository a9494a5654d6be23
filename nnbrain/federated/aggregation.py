"""Aggregation: many clients' vectors into one, also where some of the clients lie.

An aggregate takes the vectors and their weights and returns one vector of their shape and type. Whether a
rule uses the weights matters: a client states its own, and one that lies about its vector may lie about
that too.

=====================  ===========  ==================================================
rule                   weights      bears arbitrary vectors
=====================  ===========  ==================================================
`weighted_mean`        yes          none
`coordinate_median`    no           of fewer than half of the clients
`TrimmedMean`          no           of f clients
`Krum`                 no           of f clients
`GeometricMedian`      yes          of clients that have less than half of the weight
`Clipped`              its rule's   each moves a mean by at most its share of the bound
=====================  ===========  ==================================================

A vector with NaN or infinity shows its sender to be faulty: the robust rules leave it out and count it
among the f; in `weighted_mean` it makes the result NaN, and `simulate` stops.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats

Aggregate = Callable[[Sequence[Floats], Sequence[float]], Floats]


def aggregated(aggregate: Aggregate, vectors: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """Return what `aggregate` makes of the vectors, of their shape and in their type: whoever wrote it.

    Raises
    ------
    ValueError
        If there are no vectors, not one weight each, or the result has another shape.
    """
    check_vectors(vectors, weights)
    like, result = vectors[0], np.asarray(aggregate(vectors, weights))
    if result.shape != like.shape:
        raise ValueError(f"aggregate must return an array of shape {like.shape}, got {result.shape}")
    return result.astype(like.dtype, copy=False)


def weighted_mean(vectors: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """Return Σ wₖ vₖ / Σ wₖ, summed in the order given and in the vectors' own type.

    Raises
    ------
    ValueError
        If there are no vectors, not one weight each, or the weights are negative or all zero.
    """
    check_vectors(vectors, weights)
    total = float(sum(weights))
    mean = np.zeros_like(vectors[0])
    for vector, weight in zip(vectors, weights, strict=True):
        mean += vector * (weight / total)
    return mean


def coordinate_median(vectors: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """Return the median of each coordinate on its own; the weights are not used.

    As long as fewer than half of the vectors are arbitrary, each coordinate of the result lies between two
    that honest clients sent. The result as a whole may be far from what anybody sent.

    Raises
    ------
    ValueError
        As `weighted_mean`, or if no vector is finite.

    Notes
    -----
    Yin et al. (2018), option I.
    """
    finite, _ = _finite(vectors, weights)
    return np.asarray(np.median(finite, axis=0), finite.dtype)


@dataclass(frozen=True)
class TrimmedMean:
    """The mean of each coordinate without its f smallest and f largest values; no weights.

    Parameters
    ----------
    f : int
        How many of the vectors may be arbitrary. There must be more than 2f. With 0 it is the unweighted
        mean, with the largest f possible the median.

    Raises
    ------
    ValueError
        If `f` is negative; on calling, if there are not more than 2f vectors.

    Notes
    -----
    Yin et al. (2018), option II, with β = f/n.
    """

    f: int

    def __post_init__(self) -> None:
        checks.integer("f", self.f, minimum=0)

    def __call__(self, vectors: Sequence[Floats], weights: Sequence[float]) -> Floats:
        """Return the trimmed mean of each coordinate."""
        finite, kept = _finite(vectors, weights)
        f = _still(self.f, kept)
        if len(finite) <= 2 * f:
            raise ValueError(f"f must be below half of the {len(vectors)} vectors, got {self.f}")
        middle = np.sort(finite, axis=0)[f : len(finite) - f]
        return np.asarray(middle.mean(axis=0), finite.dtype)


@dataclass(frozen=True)
class Krum:
    """The vector that is nearest to its neighbours, or the mean of several such; no weights.

    A vector's score is the sum of its squared distances to the n - f - 2 others that are nearest to it.
    That with the least is the result. So it is something that a client sent; if no more than f clients
    lie, it is one to which at least n - 2f - 2 honest vectors are near.

    Parameters
    ----------
    f : int
        How many of the n vectors may be arbitrary: n > 2f + 2.
    keep : int
        How many of the vectors with the least scores are averaged: 1 is Krum, more is multi-Krum. For
        protection it must not be above n - f; with n, it is the unweighted mean.

    Raises
    ------
    ValueError
        If a setting is out of range; on calling, if there are not more than 2f + 2 vectors, or fewer than
        `keep`.

    Notes
    -----
    Blanchard et al. (2017). Among equal scores the first given counts.
    """

    f: int
    keep: int = 1

    def __post_init__(self) -> None:
        checks.integer("f", self.f, minimum=0)
        checks.integer("keep", self.keep)

    def scores(self, vectors: Sequence[Floats] | Floats) -> Floats:
        """Return the score of each of the vectors (n,), which must be finite."""
        from scipy.spatial.distance import pdist, squareform  # slow to import

        n = len(vectors)
        if n <= 2 * self.f + 2:
            raise ValueError(f"f must keep 2 f + 2 below the {n} vectors that there are, got {self.f}")
        # From differences: a product of huge vectors would leave nothing of the small ones' distances.
        distances = squareform(pdist(np.asarray(vectors, np.float64), "sqeuclidean"))
        np.fill_diagonal(distances, np.inf)
        distances.partition(n - self.f - 3, axis=1)
        return np.asarray(distances[:, : n - self.f - 2].sum(axis=1))

    def __call__(self, vectors: Sequence[Floats], weights: Sequence[float]) -> Floats:
        """Return the mean of the `keep` vectors that score least."""
        finite, kept = _finite(vectors, weights)
        if self.keep > len(vectors):
            raise ValueError(f"keep must be at most the {len(vectors)} vectors there are, got {self.keep}")
        scores = Krum(_still(self.f, kept)).scores(finite)
        best = np.sort(np.argsort(scores, kind="stable")[: self.keep])
        return np.asarray(finite[best].mean(axis=0), finite.dtype)


@dataclass(frozen=True)
class GeometricMedian:
    """The point with the least weighted sum of distances to the vectors, by Weiszfeld's iteration.

    Each step is a weighted mean: z ← Σ βₖ vₖ / Σ βₖ with βₖ = wₖ / max(‖z - vₖ‖, smoothing). It begins at
    the median of the coordinates, and ends when z moves by less than 10⁻⁹ of the median distance.

    Parameters
    ----------
    smoothing : float
        Distance below which a vector pulls no harder: it keeps βₖ finite where z meets one. Above 0.
    steps : int
        At most so many.

    Raises
    ------
    ValueError
        If a setting is out of range.

    Notes
    -----
    Pillutla, Kakade & Harchaoui (2022), who take few steps, from the mean, so that each can be a secure
    sum.
    """

    smoothing: float = 1e-6
    steps: int = 1000

    def __post_init__(self) -> None:
        checks.number("smoothing", self.smoothing, above=0)
        checks.integer("steps", self.steps)

    def __call__(self, vectors: Sequence[Floats], weights: Sequence[float]) -> Floats:
        """Return the weighted geometric median."""
        finite, kept = _finite(vectors, weights)
        w = np.asarray(weights, np.float64)[kept]
        if not w.any():
            raise ValueError("weights must not be 0 for all vectors that are finite")
        points = finite.astype(np.float64)[w > 0]
        w = w[w > 0]
        z = np.median(points, axis=0)
        for _ in range(self.steps):
            with np.errstate(over="ignore"):  # what is infinitely far away does not pull
                distances = np.linalg.norm(points - z, axis=1)
            distances = np.maximum(distances, self.smoothing)
            beta = w / distances
            before, z = z, beta @ points / beta.sum()
            if np.linalg.norm(z - before) <= 1e-9 * np.median(distances):
                break
        return np.asarray(z, finite.dtype)


@dataclass(frozen=True)
class Clipped:
    """Another aggregate of the vectors, each shortened to a bound.

    Parameters
    ----------
    aggregate : callable
        What is done with the shortened vectors; it gets the weights.
    bound : float, optional
        Greatest length that is let through. By default the median of the lengths, which fewer than half of
        the clients cannot raise above all honest ones'.

    Raises
    ------
    ValueError
        If the bound is not above 0.

    Notes
    -----
    Sun et al. (2019). The server does it, on vectors that it sees: a client that lies need not clip.
    A vector that is not finite counts as zero.
    """

    aggregate: Aggregate = weighted_mean
    bound: float | None = None

    def __post_init__(self) -> None:
        if self.bound is not None:
            checks.number("bound", self.bound, above=0)

    def __call__(self, vectors: Sequence[Floats], weights: Sequence[float]) -> Floats:
        """Return the aggregate of the shortened vectors."""
        check_vectors(vectors, weights)
        finite = [v if np.all(np.isfinite(v)) else np.zeros_like(v) for v in vectors]
        lengths = [float(np.linalg.norm(v.astype(np.float64))) for v in finite]
        bound = float(np.median(lengths)) if self.bound is None else float(self.bound)
        shortened = [v * (bound / n) if n > bound else v for v, n in zip(finite, lengths, strict=True)]
        return self.aggregate(shortened, weights)


def check_vectors(vectors: Sequence[Floats], weights: Sequence[float]) -> None:
    """Raise a ValueError if the vectors are none, or differ in shape, or their weights make no mean."""
    if len(vectors) == 0:
        raise ValueError("vectors must be one or more, got none: nobody took part")
    if len(vectors) != len(weights):
        raise ValueError(f"weights must be one for each of {len(vectors)} vectors, got {len(weights)}")
    if len({vector.shape for vector in vectors}) > 1:
        raise ValueError(f"vectors must have one shape, got {sorted({v.shape for v in vectors})}")
    if min(weights) < 0 or not 0 < float(sum(weights)) < np.inf:
        raise ValueError(f"weights must be at least 0, finite and not all 0, got {list(weights)}")


def _finite(vectors: Sequence[Floats], weights: Sequence[float]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return those vectors that are finite, as rows, and for each vector whether it is."""
    check_vectors(vectors, weights)
    kept = np.array([np.all(np.isfinite(vector)) for vector in vectors])
    if not kept.any():
        raise ValueError(f"vectors must be finite, got NaN or infinity in all {len(vectors)}")
    return np.stack([vector for vector, whole in zip(vectors, kept, strict=True) if whole]), kept


def _still(f: int, kept: npt.NDArray[np.bool_]) -> int:
    """Return how many of the vectors that were kept may be arbitrary, if f of all may."""
    return max(f - int(np.count_nonzero(~kept)), 0)
