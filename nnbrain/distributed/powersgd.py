"""PowerSGD: the sum of the ranks' gradients as matrices of low rank, exchanged by all-reduce."""

import numpy as np

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.distributed.collectives import ring_allreduce
from nnbrain.distributed.comm import Communicator
from nnbrain.distributed.compression import add_residual
from nnbrain.mlp.network import MLP


class PowerSGD:
    """Sums the ranks' gradients as matrices of low rank, one a layer.

    The weights' gradient M of a layer (fan_in, fan_out) is replaced by P Qᵀ, where P and Q have r columns
    each: P is an orthonormal basis of M Q, for the Q of the call before, made orthonormal (at first random);
    then the new Q is Mᵀ P. So P Qᵀ = P Pᵀ M, M projected on the columns of P. Both products are linear in M,
    so an all-reduce sums them, whose cost hardly grows with the number of ranks.
    Biases travel as they are. What its own M loses, each rank remembers and adds to the next gradient.

    Parameters
    ----------
    mlp : MLP
    rank : int
        r, the number of columns, at least 1; of a gradient with no more rows or columns nothing is lost.
    feedback : bool
        Whether the residual is kept, or else forgotten.
    seed : int
        Of the first Q, at least 0.

    Attributes
    ----------
    residual : array (mlp.size,) or None
        What this rank still owes; None before the first call or without feedback. It is in no checkpoint.

    Raises
    ------
    TypeError, ValueError
        If a setting is not of these; when called, if the vector is not a gradient of `mlp`.
    FloatingPointError
        When called, if the vector has NaN or infinite entries.

    Notes
    -----
    Vogels, Karimireddy & Jaggi (2019), Algorithms 1 and 2; here Q is made orthonormal too. It spans the same
    space, unless its columns are dependent, as where units were off in the last batch: then others fill the
    places of those that would be lost. Bases are computed on every rank: for the same bits on all, they need
    the same linear algebra library.
    """

    def __init__(self, mlp: MLP, rank: int, *, feedback: bool = True, seed: int = 0) -> None:
        checks.integer("rank", rank)
        rng = np.random.default_rng(checks.integer("seed", seed, minimum=0))
        self.residual: Floats | None = None
        self._feedback, self._mlp = checks.flag("feedback", feedback), mlp
        shapes = [W.shape for W, _ in mlp.layers(np.zeros(mlp.size))]
        self._Q: list[Floats] = [
            rng.normal(size=(fan_out, min(rank, fan_in, fan_out))) for fan_in, fan_out in shapes
        ]

    def __call__(self, comm: Communicator, vector: Floats) -> None:
        """Replace `vector` (mlp.size,), a gradient on each rank, by their sum at low rank."""
        add_residual(vector, self.residual)
        if len(vector) != self._mlp.size:
            raise ValueError(f"vector must have the {self._mlp.size} entries of mlp, got {len(vector)}")
        layers = self._mlp.layers(vector)
        n = len(layers)
        MQ = [W @ _basis(q.astype(vector.dtype)) for (W, _), q in zip(layers, self._Q, strict=True)]
        summed = _summed(comm, MQ + [b for _, b in layers])  # one message for all of them
        P = [_basis(columns) for columns in summed[:n]]
        parts: list[Floats] = [W.T @ p for (W, _), p in zip(layers, P, strict=True)]
        self._Q = _summed(comm, parts)
        if self._feedback:
            self.residual = np.zeros_like(vector)
            lost = self._mlp.layers(self.residual)
            for l in range(n):
                lost[l].W[:] = layers[l].W - P[l] @ parts[l].T
        for l in range(n):
            layers[l].W[:] = P[l] @ self._Q[l].T
            layers[l].b[:] = summed[n + l]


def _basis(columns: Floats) -> Floats:
    """Return an orthonormal basis of a space that holds the columns."""
    q: Floats = np.linalg.qr(columns)[0]
    return q


def _summed(comm: Communicator, arrays: list[Floats]) -> list[Floats]:
    """Return the sums over all ranks of arrays of any shapes, in one all-reduce."""
    flat = np.concatenate([array.ravel() for array in arrays])
    ring_allreduce(comm, flat)
    ends = np.cumsum([array.size for array in arrays])[:-1]
    return [piece.reshape(array.shape) for piece, array in zip(np.split(flat, ends), arrays, strict=True)]
