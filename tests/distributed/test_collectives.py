"""Every collective against the sum, its counted bytes and its time on virtual clocks against the formulas."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest

from nnbrain.distributed import (
    Metered,
    all_gather,
    broadcast,
    bytes_sent,
    mpiexec,
    naive_allreduce,
    predicted_time,
    reduce_scatter,
    ring_allreduce,
    run_ranks,
    tree_allreduce,
)

ALLREDUCE = {"naive": naive_allreduce, "tree": tree_allreduce, "ring": ring_allreduce}
every_algorithm = pytest.mark.parametrize("algorithm", ALLREDUCE)
every_p = pytest.mark.parametrize("p", range(1, 9))


def lengths(p):
    return sorted({0, 1, p - 1, p, p + 1, 101, 1000 * p})


@every_algorithm
@every_p
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_allreduce_is_the_sum_everywhere_and_sends_what_bytes_sent_says(algorithm, p, dtype):
    def program(comm, data):
        mine, metered = data[comm.Get_rank()].copy(), Metered(comm)
        ALLREDUCE[algorithm](metered, mine)
        return mine, metered.bytes_sent

    for n in lengths(p):
        data = np.random.default_rng(n).normal(size=(p, n)).astype(dtype)
        results = run_ranks(p, program, data)
        exact = [math.fsum(column) for column in data.T.tolist()]
        np.testing.assert_allclose(results[0][0], exact, rtol=0, atol=p * 10 * np.finfo(dtype).eps)
        for rank, (mine, sent) in enumerate(results):
            assert mine.dtype == dtype
            np.testing.assert_array_equal(mine, results[0][0])  # the same bits
            assert sent == bytes_sent(algorithm, p, rank, n, data.itemsize)
        assert sum(sent for _, sent in results) == 2 * (p - 1) * n * data.itemsize  # each of the three


@every_algorithm
def test_an_allreduce_twice_gives_the_same_bits(algorithm):
    def program(comm):
        mine = np.random.default_rng(comm.Get_rank()).normal(size=1001).astype(np.float32)
        ALLREDUCE[algorithm](comm, mine)
        return mine

    np.testing.assert_array_equal(run_ranks(5, program), run_ranks(5, program))


def test_in_which_order_each_adds():
    """Summands too small to change a 1 do so if they are added together first: the result tells the order."""
    eps = np.finfo(np.float64).eps

    def program(comm, method):
        x = np.full(4, 1.0 if comm.Get_rank() == 0 else 0.4 * eps)
        method(comm, x)
        return x.tolist()

    assert run_ranks(4, program, naive_allreduce)[0] == [1.0] * 4  # ((1 + t) + t) + t
    assert run_ranks(4, program, tree_allreduce)[0] == [1 + eps] * 4  # (1 + t) + (t + t)
    # Piece k begins at rank k: (1 + t) + …, (t + t + t) + 1, (t + t) + 1 + t, t + 1 + …
    assert run_ranks(4, program, ring_allreduce)[0] == [1.0, 1 + eps, 1 + eps, 1.0]


@every_p
def test_reduce_scatter_leaves_each_rank_one_finished_piece(p):
    def program(comm, data):
        mine, metered = data[comm.Get_rank()].copy(), Metered(comm)
        piece = reduce_scatter(metered, mine)
        assert np.shares_memory(piece, mine) or piece.size == 0
        return piece.copy(), metered.messages_sent

    for n in lengths(p):
        data = np.random.default_rng(n).normal(size=(p, n))
        pieces = np.array_split(data.sum(axis=0), p)
        for rank, (piece, messages) in enumerate(run_ranks(p, program, data)):
            np.testing.assert_allclose(piece, pieces[(rank + 1) % p], rtol=0, atol=1e-13)
            assert messages == p - 1


@every_p
def test_all_gather_gives_everybody_everybodys_row(p):
    def program(comm, data):
        metered, mine = Metered(comm), data[comm.Get_rank()].copy()
        rows = all_gather(metered, mine)
        np.testing.assert_array_equal(mine, data[comm.Get_rank()])
        return rows, metered.bytes_sent

    dtypes = (np.int8, np.uint8, np.float16, np.float32, np.bool_, np.complex128)
    for m, dtype in itertools.product((0, 1, 7), dtypes):
        data = np.random.default_rng(m).integers(0, 2, size=(p, m)).astype(dtype)
        for rows, sent in run_ranks(p, program, data):
            assert rows.dtype == dtype
            np.testing.assert_array_equal(rows, data)
            assert sent == (p - 1) * m * data.itemsize


# ---- time, on virtual clocks ----


class Logged(np.ndarray):
    """An array whose additions enter a log."""

    def __array_finalize__(self, parent):
        self.log = getattr(parent, "log", None)

    def __iadd__(self, other):
        self.log.append(("add", self.nbytes))
        return super().__iadd__(other)


class Recorder(Metered):
    """A communicator that enters each message in a log: sends as (to, bytes), receipts as (from,)."""

    def __init__(self, comm, log):
        super().__init__(comm)
        self.log = log

    def Send(self, buf, dest, tag=0):
        self.log.append(("message", [("to", dest, buf.nbytes)]))
        super().Send(buf, dest, tag)

    def Recv(self, buf, source, tag=0):
        self.log.append(("message", [("from", source, buf.nbytes)]))
        super().Recv(buf, source, tag)

    def Sendrecv(self, sendbuf, dest, sendtag=0, recvbuf=None, source=0, recvtag=0):
        self.log.append(("message", [("to", dest, sendbuf.nbytes), ("from", source, recvbuf.nbytes)]))
        super().Sendrecv(sendbuf, dest, sendtag, recvbuf, source, recvtag)


def record(algorithm, p, n, itemsize):
    def program(comm):
        mine = np.ones(n, f"f{itemsize}").view(Logged)
        mine.log = []
        ALLREDUCE[algorithm](Recorder(comm, mine.log), mine)
        return mine.log

    return run_ranks(p, program)


def replay(logs, alpha, beta, gamma):
    """Return when the last rank is done, if a message starts when both its ends are ready."""
    p = len(logs)
    clock, at = [0.0] * p, [0] * p
    ready = {}  # (from, to, number of the message) -> when each end was ready
    count = {}
    posted = [None] * p
    while any(at[r] < len(logs[r]) for r in range(p)):
        moved = False
        for r in range(p):
            if at[r] == len(logs[r]):
                continue
            kind, what = logs[r][at[r]]
            if kind == "add":
                clock[r] += gamma * what
                at[r] += 1
                moved = True
                continue
            if posted[r] is None:
                posted[r] = []
                for side, other, size in what:
                    link = (r, other) if side == "to" else (other, r)
                    number = count[side, link] = count.get((side, link), 0) + 1
                    ready.setdefault((*link, number), {})[side] = clock[r]
                    posted[r].append(((*link, number), size))
            if all(len(ready[key]) == 2 for key, _ in posted[r]):
                clock[r] = max(max(ready[key].values()) + alpha + beta * size for key, size in posted[r])
                posted[r], moved = None, True
                at[r] += 1
        assert moved, "a deadlock"
    return max(clock)


@every_algorithm
@pytest.mark.parametrize("p", [*range(1, 9), 13])
def test_predicted_time_is_what_the_messages_take_on_virtual_clocks(algorithm, p):
    """eq-naive-time, eq-tree-time, eq-ring-time: messages and additions recorded, then replayed."""
    for n in (0, 5, 8 * p, 8 * p + 1, 8 * p - 1):
        logs = record(algorithm, p, n, 4)
        longest = -(-n // p)  # the longest piece sets the ring's pace
        n_bytes = 4 * (p * longest if algorithm == "ring" else n)
        for costs in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (5.0, 0.25, 0.0625)):
            expected = predicted_time(algorithm, p, n_bytes, *costs)
            assert (expected > 0) == (p > 1 and (n > 0 or costs[0] > 0))
            assert replay(logs, *costs) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_the_ring_s_time_is_that_of_the_paper():
    """eq-ring-time as Patarasuk & Yuan give it: 2 (p-1) α + 2 (p-1)/p n β + (p-1)/p n γ."""
    p, n, alpha, beta, gamma = 10, 1e6, 3e-6, 2e-9, 5e-10
    paper = 2 * (p - 1) * alpha + 2 * (p - 1) / p * n * beta + (p - 1) / p * n * gamma
    assert predicted_time("ring", p, n, alpha, beta, gamma) == pytest.approx(paper, rel=1e-14)


def test_where_tree_and_ring_cross_and_that_naive_never_wins():
    """eq-tree-ring-crossing: both take the same time there; below it the tree wins, above it the ring."""
    alpha, beta, gamma = 1e-5, 1e-9, 3e-10
    for p in range(2, 200):
        rounds = math.ceil(math.log2(p))
        n = 2 * alpha / (2 * beta + gamma) * (p - 1 - rounds) / (rounds - (p - 1) / p)
        assert (n == 0) == (p < 4)
        for size in (n / 2, n, 2 * n + 1):
            naive, tree, ring = (predicted_time(a, p, size, alpha, beta, gamma) for a in ALLREDUCE)
            assert naive >= max(tree, ring) * (1 - 1e-12)
            assert np.sign(round((ring - tree) / ring, 9)) == np.sign(n - size)


# ---- bad input ----


@pytest.mark.parametrize("method", [*ALLREDUCE.values(), reduce_scatter])
@pytest.mark.parametrize("vector", [np.zeros((2, 2)), np.zeros(6)[::2], np.zeros(())])
def test_a_vector_is_of_one_dimension_and_contiguous(method, vector):
    with pytest.raises(ValueError, match=r"vector must be contiguous and of one dimension, got shape \("):
        run_ranks(2, method, vector)


def test_other_bad_input_is_named():
    with pytest.raises(ValueError, match=r"mine must be contiguous and of one dimension, got shape \(2, 2\)"):
        run_ranks(2, all_gather, np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"root must be a rank in 0\.\.1, got 2"):
        run_ranks(2, broadcast, np.zeros(1), 2)
    with pytest.raises(ValueError, match=r"algorithm must be one of .*'ring'.*, got 'star'"):
        predicted_time("star", 2, 8, 1, 1)
    with pytest.raises(ValueError, match="p must be an integer >= 1, got 0"):
        predicted_time("ring", 0, 8, 1, 1)
    for name in ("n_bytes", "alpha", "beta", "gamma"):
        good = {"n_bytes": 8, "alpha": 1, "beta": 1, "gamma": 1}
        with pytest.raises(ValueError, match=f"{name} must be finite and >= 0, got -1"):
            predicted_time("tree", 2, **{**good, name: -1})
    with pytest.raises(ValueError, match=r"rank must be in 0\.\.2, got 3"):
        bytes_sent("ring", 3, 3, 10, 4)
    with pytest.raises(ValueError, match="itemsize must be an integer >= 1, got 0"):
        bytes_sent("ring", 3, 1, 10, 0)


@every_algorithm
def test_ranks_that_disagree_on_length_are_told(algorithm):
    with pytest.raises(ValueError, match=r"rank \d expected float64\[\d\] from rank \d, got float64"):
        run_ranks(3, lambda comm: ALLREDUCE[algorithm](comm, np.zeros(3 + comm.Get_rank())))


# ---- under MPI ----

try:
    mpiexec(1)
    missing = ""
except FileNotFoundError as error:
    missing = str(error)

UNDER_MPI = """
import numpy as np
from mpi4py import MPI
from nnbrain.distributed import Metered, all_gather, bytes_sent, mpiexec
from nnbrain.distributed import naive_allreduce, ring_allreduce, run_ranks, tree_allreduce

def program(comm, method, n, dtype):
    mine, metered = np.random.default_rng([comm.Get_rank(), n]).normal(size=n).astype(dtype), Metered(comm)
    method(metered, mine)
    return mine, metered.bytes_sent

world = MPI.COMM_WORLD
p, rank, checked = world.Get_size(), world.Get_rank(), 0
for name, method in (("naive", naive_allreduce), ("tree", tree_allreduce), ("ring", ring_allreduce)):
    for n in (0, 1, p - 1, p, p + 1, 101, 100_000):
        for dtype in (np.float32, np.float64):
            ours, sent = program(world, method, n, dtype)
            in_process = run_ranks(p, program, method, n, dtype)
            assert in_process[rank][0].tobytes() == ours.tobytes(), (name, n)
            assert sent == bytes_sent(name, p, rank, n, ours.itemsize)
            total = np.empty_like(ours)
            world.Allreduce(program(world, lambda c, v: None, n, dtype)[0], total)
            assert np.allclose(ours, total, rtol=0, atol=100 * np.finfo(dtype).eps)
            checked += 1
for dtype in (np.float16, np.int8, np.bool_, np.float64):
    rows = all_gather(world, np.full(3, rank, dtype))
    assert np.array_equal(rows, np.repeat(np.arange(p), 3).reshape(p, 3).astype(dtype)), dtype
world.Barrier()
print("checked", checked, flush=True)
"""


@pytest.mark.skipif(bool(missing), reason=missing)
def test_processes_get_the_bits_that_threads_get_and_mpi_s_own_sum():
    command = [*mpiexec(3), sys.executable, "-c", UNDER_MPI]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checked 42") == 3
