"""Collective operations, written with nothing but messages from one rank to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from nnbrain.distributed.comm import Communicator


def ring_allreduce(comm: Communicator, vector: npt.NDArray[Any]) -> None:
    """Replace every rank's `vector` by the sum of all ranks' vectors, passing pieces round a ring.

    The vector is cut in p pieces, a rank each. In p - 1 rounds every rank sends one piece to its right
    neighbour and adds the one that comes from its left: then each holds one finished sum. In p - 1 more
    rounds the finished pieces go round. Each rank sends 2 (p - 1) pieces, 2 (p - 1)/p of the vector.

    Parameters
    ----------
    comm : Communicator
        Of p ranks; all call this together.
    vector : array (n,)
        Contiguous, of one length and type on all ranks; overwritten. A piece is summed in one order only
        and then copied, so all ranks end with the same bits.

    Raises
    ------
    ValueError
        If `vector` is not one-dimensional and contiguous.

    Notes
    -----
    Patarasuk & Yuan (2009), "Bandwidth optimal all-reduce algorithms for clusters of workstations".
    """
    if vector.ndim != 1 or not vector.flags.c_contiguous:
        raise ValueError(f"vector must be contiguous and of one dimension, got shape {vector.shape}")
    p, rank = comm.Get_size(), comm.Get_rank()
    right, left = (rank + 1) % p, (rank - 1) % p
    pieces = np.array_split(vector, p)  # views into the vector; lengths differ by at most one
    arrived = np.empty_like(pieces[0])
    for step in range(p - 1):  # reduce-scatter
        ours, theirs = pieces[(rank - step) % p], pieces[(rank - step - 1) % p]
        incoming = arrived[: len(theirs)]
        comm.Sendrecv(ours, dest=right, recvbuf=incoming, source=left)
        theirs += incoming
    for step in range(p - 1):  # all-gather
        ours, theirs = pieces[(rank - step + 1) % p], pieces[(rank - step) % p]
        comm.Sendrecv(ours, dest=right, recvbuf=theirs, source=left)


def broadcast(comm: Communicator, buffer: npt.NDArray[Any], root: int = 0) -> None:
    """Put what rank `root` has in `buffer` into every rank's: in each round, who has it sends it on.

    A binomial tree: after round k, 2^k ranks have it, so that ⌈log₂ p⌉ rounds do.

    Raises
    ------
    ValueError
        If `root` is not a rank.
    """
    p = comm.Get_size()
    if not 0 <= root < p:
        raise ValueError(f"root must be a rank in 0..{p - 1}, got {root}")
    rank = (comm.Get_rank() - root) % p  # count from the root
    have = 1
    while have < p:
        if rank < have and rank + have < p:
            comm.Send(buffer, dest=(rank + have + root) % p)
        elif have <= rank < 2 * have:
            comm.Recv(buffer, source=(rank - have + root) % p)
        have *= 2
