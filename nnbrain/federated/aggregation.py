"""Aggregation: many clients' vectors into one."""

from collections.abc import Sequence

import numpy as np

from nnbrain.checks import Floats


def weighted_mean(vectors: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """Return Σ wₖ vₖ / Σ wₖ, summed in the order given and in the vectors' own type.

    Raises
    ------
    ValueError
        If there are no vectors, not one weight each, or the weights are negative or all zero.
    """
    if len(vectors) == 0 or len(vectors) != len(weights):
        raise ValueError(
            f"vectors must be one or more, with one weight each, got {len(vectors)} and {len(weights)}"
        )
    if len({vector.shape for vector in vectors}) > 1:
        raise ValueError(f"vectors must have one shape, got {sorted({v.shape for v in vectors})}")
    total = float(sum(weights))
    if min(weights) < 0 or not 0 < total < np.inf:
        raise ValueError(f"weights must be at least 0, finite and not all 0, got {list(weights)}")
    mean = np.zeros_like(vectors[0])
    for vector, weight in zip(vectors, weights, strict=True):
        mean += vector * (weight / total)
    return mean
