"""The mean that federated averaging needs, from a secure sum.

Needs the extra ``privacy``.
"""

import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nnbrain.checks import Floats
from nnbrain.federated.fixed_point import FixedPoint, Residues
from nnbrain.federated.secret_sharing import Random
from nnbrain.federated.secure import secure_sum


@dataclass(frozen=True)
class SecureMean:
    """The weighted mean of vectors of which the server sees only the sum: `aggregate` for `FedAvg`.

    Each client multiplies its vector by its number of samples, and this number is summed in the same way,
    as one entry more. The mean is off by at most K/n 2**-(fraction_bits + 1) for K clients with n samples
    together, whatever the masks were.

    Parameters
    ----------
    code : FixedPoint
        How numbers become integers.
    threshold : int, optional
        Of the protocol; by default the smallest number above two thirds of the clients.
    seed : int or None
        Of the clients' keys, which differ for different vectors: for simulations only, as whoever knows it
        can lift all masks. None takes the operating system's randomness. The mean does not depend on it.

    Raises
    ------
    TypeError, ValueError
        When called, if the weights are not whole numbers, or a vector times its weight is out of range.

    Notes
    -----
    Bonawitz et al. (2017).
    """

    code: FixedPoint = field(default_factory=FixedPoint)
    threshold: int | None = None
    seed: int | None = None

    def __call__(self, vectors: Sequence[Floats], weights: Sequence[float]) -> Floats:
        """Return Σ wₖ vₖ / Σ wₖ, in the vectors' own type."""
        if len(vectors) < 2 or len(vectors) != len(weights):
            raise ValueError(
                "vectors must be two or more, as a sum of one hides nothing, with one weight each, got "
                f"{len(vectors)} and {len(weights)}"
            )
        if any(w < 0 or w != int(w) for w in weights) or sum(weights) == 0:
            raise ValueError(f"weights must be whole numbers of samples, not all 0, got {list(weights)}")
        clients, whole = len(vectors), FixedPoint(self.code.bits, 0)
        encoded = {}
        for k, (vector, weight) in enumerate(zip(vectors, weights, strict=True)):
            weighted = self.code.encode(vector.astype(np.float64) * weight, clients)
            encoded[k] = np.append(weighted, whole.encode([weight], clients))
        threshold = default_threshold(clients) if self.threshold is None else self.threshold
        total, _ = secure_sum(encoded, threshold, random=self._random(encoded))
        mean = self.code.decode(total[:-1]) / whole.decode(total[-1:])
        return mean.astype(vectors[0].dtype)

    def _random(self, encoded: Mapping[int, Residues]) -> Random:
        if self.seed is None:
            return os.urandom
        return np.random.default_rng(
            [self.seed, *(zlib.crc32(vector.tobytes()) for vector in encoded.values())]
        ).bytes


def default_threshold(n_clients: int) -> int:
    """Return the smallest number above two thirds of the clients."""
    return 2 * n_clients // 3 + 1
