"""Prediction shared by all ranks: each answers for a part of the rows, and rank 0 collects the answers."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats, Stored
from nnbrain.distributed.comm import Communicator
from nnbrain.mlp.network import MLP


def rows_of_rank(rank: int, p: int, n: int, block: int = 1) -> range:
    """Return the rows that are this rank's, if p ranks share n rows of which `block` stay together.

    Of b = ⌈n / block⌉ blocks, the first b mod p ranks have one more than the others. Ranks without rows
    there are if b < p.

    Raises
    ------
    TypeError, ValueError
        If an argument is no integer, or out of its range.

    Examples
    --------
    >>> [rows_of_rank(r, 3, 10) for r in range(3)]
    [range(0, 4), range(4, 7), range(7, 10)]
    """
    p = checks.integer("p", p)
    if not 0 <= checks.integer("rank", rank, minimum=0) < p:
        raise ValueError(f"rank must be in 0..{p - 1}, got {rank}")
    blocks = -(-checks.integer("n", n, minimum=0) // checks.integer("block", block))
    start, end = (r * (blocks // p) + min(r, blocks % p) for r in (rank, rank + 1))
    return range(min(start * block, n), min(end * block, n))


def predict(
    comm: Communicator, mlp: MLP, theta: Floats, X: npt.ArrayLike | Stored, block: int = 1024
) -> npt.NDArray[Any] | None:
    """Return the answers for all rows of X on rank 0, None elsewhere: each rank computes a part of them.

    Parameters
    ----------
    comm : Communicator
        All ranks call this together, with the same arguments.
    mlp, theta
        As for `MLP.predict`.
    X : array (n, mlp.sizes[0]) or Shards
        A rank takes a block of its own rows after the other, and none of other ranks'.
    block : int
        Rows that are computed at once. Blocks are not cut between ranks: products of matrices of other
        sizes may round otherwise, and so the answers have the same bits for any number of ranks.

    Raises
    ------
    TypeError, ValueError
        As `MLP.predict`, or if `block` is not at least 1.
    """
    data: Any = X if isinstance(X, Stored) else np.asarray(X)
    p, rank, n = comm.Get_size(), comm.Get_rank(), len(data)
    mine = rows_of_rank(rank, p, n, block)
    answers = [
        mlp.predict(theta, np.take(data, np.arange(start, min(start + block, mine.stop)), axis=0))
        for start in range(mine.start, mine.stop, block)
    ]
    if rank > 0:
        if answers:
            comm.Send(np.concatenate(answers), dest=0)
        return None
    ours = np.concatenate(answers) if answers else mlp.predict(theta, data)  # no rows: its error says so
    collected = np.empty((n, *ours.shape[1:]), ours.dtype)
    collected[: len(ours)] = ours
    for source in range(1, p):
        theirs = rows_of_rank(source, p, n, block)
        if theirs:
            comm.Recv(collected[theirs.start : theirs.stop], source)
    return collected
