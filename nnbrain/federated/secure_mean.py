"""The sum, and the mean, that federated averaging needs, from the protocol of secure aggregation.

Needs the extra ``privacy``.
"""

import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.federated.fixed_point import FixedPoint, Residues
from nnbrain.federated.secret_sharing import Random
from nnbrain.federated.secure import secure_sum


@dataclass(frozen=True)
class SecureSum:
    """The sum of vectors of which the server sees nothing else: `total` for `DifferentiallyPrivate`.

    Each entry of the sum is off by at most K 2**-(fraction_bits + 1) for K clients, whatever the masks were.

    Parameters
    ----------
    code : FixedPoint
        How numbers become integers.
    threshold : int, optional
        Of the protocol; by default the smallest number above two thirds of the clients.
    seed : int or None
        Of the clients' keys, which differ for different vectors: for simulations only, as whoever knows it
        can lift all masks. None takes the operating system's randomness. The sum does not depend on it.

    Raises
    ------
    TypeError, ValueError
        When called, if there are fewer than two vectors, or one is out of range.

    Notes
    -----
    Bonawitz et al. (2017).
    """

    code: FixedPoint = field(default_factory=FixedPoint)
    threshold: int | None = None
    seed: int | None = None

    def __call__(self, vectors: Sequence[Floats]) -> Floats:
        """Return Σ vₖ, in float64."""
        clients = len(vectors)
        if clients < 2:
            raise ValueError(
                "vectors must be two or more, as a sum of one hides nothing: with a larger client_fraction, "
                f"or another select, more clients take part in a round; got {clients}"
            )
        encoded = {k: self.code.encode(vector, clients) for k, vector in enumerate(vectors)}
        threshold = default_threshold(clients) if self.threshold is None else self.threshold
        total, _ = secure_sum(encoded, threshold, random=self._random(encoded))
        return self.code.decode(total)

    def _random(self, encoded: Mapping[int, Residues]) -> Random:
        if self.seed is None:
            return os.urandom
        return np.random.default_rng(
            [self.seed, *(zlib.crc32(vector.tobytes()) for vector in encoded.values())]
        ).bytes


@dataclass(frozen=True)
class SecureMean:
    """The weighted mean of vectors of which the server sees only sums: `aggregate` for `FedAvg`.

    Each client multiplies its vector by its weight, which for `FedAvg` is its number of samples, and appends
    the weight as one entry more; the server divides. If weights are whole numbers, the mean is off by at most
    K/n 2**-(fraction_bits + 1) for K clients with n samples together, whatever the masks were. Other weights
    are rounded too, to as many bits.

    Parameters
    ----------
    code, threshold, seed
        As for `SecureSum`.

    Raises
    ------
    TypeError, ValueError
        When called, if there are fewer than two vectors, weights are negative, not finite, too large for the
        code or, as it rounds them, all 0, or a vector times its weight is out of range.
    """

    code: FixedPoint = field(default_factory=FixedPoint)
    threshold: int | None = None
    seed: int | None = None

    def __call__(self, vectors: Sequence[Floats], weights: Sequence[float]) -> Floats:
        """Return Σ wₖ vₖ / Σ wₖ, in the vectors' own type."""
        if len(vectors) != len(weights):
            raise ValueError(f"vectors must have one weight each, got {len(vectors)} and {len(weights)}")
        w, limit = checks.floats("weights", weights), self.code.limit(max(1, len(weights)))
        if len(w) and not 0 <= w.min() <= w.max() <= limit:
            raise ValueError(
                f"weights must be at least 0 and, for a sum of {len(w)}, at most {limit:g} (more with fewer "
                f"fraction_bits), got {list(weights)}"
            )
        weighted = [np.append(v.astype(np.float64) * own, own) for v, own in zip(vectors, w, strict=True)]
        total = SecureSum(self.code, self.threshold, self.seed)(weighted)
        if total[-1] == 0:
            raise ValueError(f"weights must not all be 0 when rounded by {self.code}, got {list(weights)}")
        mean: Floats = total[:-1] / total[-1]
        return mean.astype(vectors[0].dtype)


def default_threshold(n_clients: int) -> int:
    """Return the smallest number above two thirds of the clients."""
    return 2 * n_clients // 3 + 1
