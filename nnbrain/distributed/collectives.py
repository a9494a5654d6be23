"""Collective operations, written with nothing but messages from one rank to another, and what they cost.

Cost is counted in the α–β model: a message of n bytes takes α + nβ seconds, during which its sender and its
receiver are busy; a rank can send one message and receive another at the same time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from nnbrain import checks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nnbrain.distributed.comm import Communicator

Vector = npt.NDArray[Any]
Algorithm = Literal["naive", "tree", "ring"]


# ---- all-reduce, three times ----


def naive_allreduce(comm: Communicator, vector: Vector) -> None:
    """Replace every rank's `vector` by the sum of all: rank 0 collects them, adds, and sends the sum back.

    Rank 0 receives p - 1 vectors, one after another, and sends p - 1: it does all the work.

    Parameters
    ----------
    comm : Communicator
        Of p ranks; all call this together.
    vector : array (n,)
        Contiguous, of one length and type on all ranks; overwritten. It is summed in one place, in the
        order of the ranks, and then copied, so all ranks end with the same bits.

    Raises
    ------
    ValueError
        If `vector` is not one-dimensional and contiguous.
    """
    _check_vector(vector)
    p, rank = comm.Get_size(), comm.Get_rank()
    if rank > 0:
        comm.Send(vector, dest=0)
        comm.Recv(vector, source=0)
        return
    arrived = np.empty_like(vector)
    for source in range(1, p):
        comm.Recv(arrived, source)
        vector += arrived
    for dest in range(1, p):
        comm.Send(vector, dest)


def tree_allreduce(comm: Communicator, vector: Vector) -> None:
    """Replace every rank's `vector` by the sum of all: add in pairs, pairs of pairs, …, and spread the sum.

    In each round half of the ranks that still hold a sum hand it to another and wait, so that ⌈log₂ p⌉ rounds
    bring all to rank 0. `broadcast` then takes as many to bring the sum to everybody.

    Parameters
    ----------
    comm, vector
        As for `naive_allreduce`. Each pair adds once, lower rank first, so all ranks end with the same bits.

    Raises
    ------
    ValueError
        If `vector` is not one-dimensional and contiguous.
    """
    _check_vector(vector)
    p, rank = comm.Get_size(), comm.Get_rank()
    arrived = np.empty_like(vector)
    distance = 1
    while distance < p:
        if rank % (2 * distance) == distance:
            comm.Send(vector, dest=rank - distance)
            break  # this rank has handed over what it had
        if rank + distance < p:
            comm.Recv(arrived, source=rank + distance)
            vector += arrived
        distance *= 2
    broadcast(comm, vector)


def ring_allreduce(comm: Communicator, vector: Vector) -> None:
    """Replace every rank's `vector` by the sum of all ranks' vectors, passing pieces round a ring.

    After `reduce_scatter` each rank holds one finished piece of the sum; then the finished pieces go round.
    Each rank sends 2 (p - 1) pieces, 2 (p - 1)/p of the vector.

    Parameters
    ----------
    comm, vector
        As for `naive_allreduce`. A piece is summed in one order only and then copied, so all ranks end with
        the same bits.

    Raises
    ------
    ValueError
        If `vector` is not one-dimensional and contiguous.

    Notes
    -----
    Patarasuk & Yuan (2009), "Bandwidth optimal all-reduce algorithms for clusters of workstations".
    """
    reduce_scatter(comm, vector)
    p, rank = comm.Get_size(), comm.Get_rank()
    pass_round(comm, np.array_split(vector, p), (rank + 1) % p)


# ---- what they are made of ----


def reduce_scatter(comm: Communicator, vector: Vector) -> Vector:
    """Sum all ranks' vectors, each rank one piece of them; return this rank's piece of the sum.

    In p - 1 rounds every rank sends one piece to its right and adds the one that comes from its left.

    Parameters
    ----------
    comm : Communicator
        Of p ranks; all call this together.
    vector : array (n,)
        Contiguous, of one length and type on all ranks; overwritten, other pieces with unfinished sums.

    Returns
    -------
    array
        Piece (rank + 1) mod p of ``np.array_split(vector, p)``, a view.

    Raises
    ------
    ValueError
        If `vector` is not one-dimensional and contiguous.
    """
    _check_vector(vector)
    p, rank = comm.Get_size(), comm.Get_rank()
    right, left = (rank + 1) % p, (rank - 1) % p
    pieces = np.array_split(vector, p)  # views into the vector
    arrived = np.empty_like(pieces[0])
    for step in range(p - 1):
        ours, theirs = pieces[(rank - step) % p], pieces[(rank - step - 1) % p]
        incoming = arrived[: len(theirs)]
        comm.Sendrecv(ours, dest=right, recvbuf=incoming, source=left)
        theirs += incoming
    return pieces[(rank + 1) % p]


def all_gather(comm: Communicator, mine: Vector) -> Vector:
    """Return what all ranks contribute, one row a rank, on every rank.

    Parameters
    ----------
    comm : Communicator
        Of p ranks; all call this together.
    mine : array (m,)
        Contiguous, of one length and type on all ranks; not changed.

    Returns
    -------
    array (p, m)
        Row r is what rank r gave. Each rank has sent p - 1 rows.

    Raises
    ------
    ValueError
        If `mine` is not one-dimensional and contiguous.
    """
    _check_vector(mine, "mine")
    rows = np.empty((comm.Get_size(), len(mine)), mine.dtype)
    rows[comm.Get_rank()] = mine
    pass_round(comm, rows, comm.Get_rank())
    return rows


def pass_round(comm: Communicator, pieces: Sequence[Vector] | Vector, mine: int) -> None:
    """Fill in all pieces on all ranks. This rank has piece `mine` now, its right-hand neighbour the next."""
    p, rank = comm.Get_size(), comm.Get_rank()
    right, left = (rank + 1) % p, (rank - 1) % p
    for step in range(p - 1):
        ours, theirs = pieces[(mine - step) % p], pieces[(mine - step - 1) % p]
        comm.Sendrecv(ours, dest=right, recvbuf=theirs, source=left)


def broadcast(comm: Communicator, buffer: Vector, root: int = 0) -> None:
    """Put what rank `root` has in `buffer` into every rank's: each round, who has it tells one who has not.

    A binomial tree: after round k, 2^k ranks have it (at most p), so that ⌈log₂ p⌉ rounds do.

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


def _check_vector(vector: Vector, name: str = "vector") -> None:
    if vector.ndim != 1 or not vector.flags.c_contiguous:
        raise ValueError(f"{name} must be contiguous and of one dimension, got shape {vector.shape}")


# ---- what an all-reduce costs ----


def predicted_time(
    algorithm: Algorithm,
    p: int,
    n_bytes: float,
    alpha: float,
    beta: float,
    gamma: float = 0.0,
) -> float:
    """Return the seconds from the start of an all-reduce until the last rank has the sum.

    That of the ring is from Patarasuk & Yuan (2009).

    Parameters
    ----------
    algorithm : {"naive", "tree", "ring"}
    p : int
        Number of ranks, each on a link of its own.
    n_bytes : float
        Size of the vector. The ring's formula is exact if p pieces are equal; if not, the longest sets the
        pace, and p times its size is what to give.
    alpha, beta : float
        Seconds a message takes, whatever its size; seconds a byte takes in addition.
    gamma : float
        Seconds to add a byte of one vector to another.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of these, `p` below 1 or another number negative.
    """
    checks.choice("algorithm", algorithm, ("naive", "tree", "ring"))
    p = checks.integer("p", p)
    n = checks.number("n_bytes", n_bytes, minimum=0)
    for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        checks.number(name, value, minimum=0)
    rounds = _rounds(p) if algorithm == "tree" else p - 1
    sent = n / p if algorithm == "ring" else n  # bytes in a message
    return rounds * (2 * alpha + (2 * beta + gamma) * sent)


def bytes_sent(algorithm: Algorithm, p: int, rank: int, length: int, itemsize: int) -> int:
    """Return how many bytes a rank sends in an all-reduce, exactly.

    Parameters
    ----------
    algorithm : {"naive", "tree", "ring"}
    p, rank : int
        Number of ranks; which of them, 0..p-1.
    length, itemsize : int
        Numbers in the vector, of any count; bytes of each.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of these.
    """
    checks.choice("algorithm", algorithm, ("naive", "tree", "ring"))
    p = checks.integer("p", p)
    if not 0 <= checks.integer("rank", rank, minimum=0) < p:
        raise ValueError(f"rank must be in 0..{p - 1}, got {rank}")
    vector = checks.integer("length", length, minimum=0) * checks.integer("itemsize", itemsize)
    if algorithm == "naive":
        return (p - 1) * vector if rank == 0 else vector
    if algorithm == "tree":
        up = rank > 0
        down = sum(rank < 1 << k < p - rank for k in range(_rounds(p)))
        return (up + down) * vector
    if p == 1:
        return 0
    # In each half a rank passes on all pieces but the one that arrives last. A piece has ⌊n/p⌋ numbers, and
    # the first n mod p pieces one more.
    last = [length // p + (piece % p < length % p) for piece in (rank + 1, rank + 2)]
    return 2 * vector - sum(last) * itemsize


def _rounds(p: int) -> int:
    """Return ⌈log₂ p⌉."""
    return (p - 1).bit_length()
