"""Ranks in one process: messages, collectives, counting, and what happens when a rank fails."""

import numpy as np
import pytest

from nnbrain.distributed import DeadlockError, Metered, ring_allreduce, run_ranks


def pieces(n, p):
    """Return the lengths of the p pieces that n entries are cut in."""
    return [len(piece) for piece in np.array_split(np.empty(n), p)]


def test_a_message_arrives_and_is_a_copy():
    def program(comm):
        x = np.full(3, comm.Get_rank(), float)
        if comm.Get_rank() == 0:
            comm.Send(x, dest=1, tag=5)
            x[:] = -1
        else:
            comm.Recv(x, source=0, tag=5)
        return x

    assert [list(x) for x in run_ranks(2, program)] == [[-1] * 3, [0] * 3]


def test_messages_of_one_tag_keep_their_order():
    def program(comm):
        got = np.zeros(4, int)
        for i in range(4):
            if comm.Get_rank() == 0:
                comm.Send(np.array([i]), dest=1)
            else:
                comm.Recv(got[i : i + 1], source=0)
        return got.tolist()

    assert run_ranks(2, program)[1] == [0, 1, 2, 3]


def test_a_message_of_another_tag_is_not_taken():
    def crossed(comm):
        x = np.zeros(1)
        comm.Send(x, dest=1, tag=9) if comm.Get_rank() == 0 else comm.Recv(x, source=0, tag=4)

    waits = r"rank 0 waits for rank 1 to receive \(tag 9\), rank 1 waits for rank 0 to send \(tag 4\)"
    with pytest.raises(DeadlockError, match=waits):
        run_ranks(2, crossed)


def test_a_send_waits_for_its_receiver_as_mpi_may():
    """Two neighbours who both send first hang under MPI, with a large vector: here with any, and said."""

    def both_send(comm):
        x, other = np.zeros(1), 1 - comm.Get_rank()
        comm.Send(x, dest=other)
        comm.Recv(x, source=other)

    with pytest.raises(DeadlockError, match="rank 0 waits for rank 1 to receive"):
        run_ranks(2, both_send)

    def unread(comm):
        if comm.Get_rank() == 1:
            comm.Send(np.zeros(1), dest=0)

    with pytest.raises(DeadlockError, match="rank 1 waits for rank 0 to receive"):
        run_ranks(2, unread)

    def exchange(comm):
        mine, theirs, other = np.array([comm.Get_rank()]), np.zeros(1, int), 1 - comm.Get_rank()
        comm.Sendrecv(mine, dest=other, recvbuf=theirs, source=other)
        return int(theirs[0])

    assert run_ranks(2, exchange) == [1, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", range(1, 9))
def test_ring_allreduce_is_the_sum_everywhere_and_sends_what_the_formula_says(p, dtype):
    """eq-ring-bytes: each rank sends all pieces but one in each half, 2 (p - 1)/p N if p divides N."""
    for n in {0, 1, p - 1, p, p + 1, 101, 1000 * p}:
        data = np.random.default_rng(n).normal(size=(p, n)).astype(dtype)

        def program(comm, data=data):
            metered, mine = Metered(comm), data[comm.Get_rank()].copy()
            ring_allreduce(metered, mine)
            return mine, metered

        results = run_ranks(p, program)
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(results[0][0], data.sum(axis=0, dtype=float), rtol=0, atol=p * p * eps * 4)
        item, lengths = np.dtype(dtype).itemsize, pieces(n, p)
        for rank, (mine, metered) in enumerate(results):
            np.testing.assert_array_equal(mine, results[0][0])  # bit for bit
            not_sent = lengths[(rank + 1) % p] + lengths[(rank + 2) % p]
            assert metered.bytes_sent == (0 if p == 1 else item * (2 * n - not_sent))
            assert metered.messages_sent == 2 * (p - 1)
            if n % p == 0:
                assert metered.bytes_sent == item * 2 * (p - 1) * n // p
        assert sum(m.bytes_sent for _, m in results) == item * 2 * (p - 1) * n


@pytest.mark.parametrize("p", range(1, 9))
def test_broadcast_reaches_all_with_p_minus_1_messages(p):
    for root in {0, p - 1, p // 2}:

        def program(comm, root=root):
            metered, x = Metered(comm), np.full(2, comm.Get_rank())
            metered.Bcast(x, root)
            return x, metered.messages_sent

        results = run_ranks(p, program)
        assert all(np.all(x == root) for x, _ in results)
        assert sum(sent for _, sent in results) == p - 1


def test_allreduce_and_barrier_as_mpi4py_spells_them():
    def program(comm):
        x, total = np.array([1.0, comm.Get_rank()]), np.empty(2)
        comm.Allreduce(x, total)
        comm.Allreduce(None, x)
        comm.Barrier()
        return total, x

    for total, x in run_ranks(3, program):
        assert list(total) == list(x) == [3.0, 3.0]


def test_nobody_passes_a_barrier_before_all_have_come():
    import threading

    arrived, seen = [], []
    late = threading.Event()

    def program(comm):
        if comm.Get_rank() == 2:
            late.wait(timeout=0.2)
        arrived.append(comm.Get_rank())
        comm.Barrier()
        seen.append(len(arrived))

    run_ranks(3, program)
    assert seen == [3, 3, 3]


def test_a_rank_that_only_sends_is_stopped_too():
    def program(comm):
        if comm.Get_rank() == 0:
            raise KeyError("lost")
        while True:
            comm.Send(np.zeros(1), dest=0)

    with pytest.raises(KeyError, match="lost"):
        run_ranks(2, program)


def test_a_rank_that_gave_up_waiting_does_not_count_as_waiting():
    def program(comm):
        x = np.zeros(1)
        if comm.Get_rank() == 0:
            with pytest.raises(ValueError, match="expected"):
                comm.Recv(np.zeros(2), source=1)
            comm.Send(x, dest=1)
        else:
            comm.Send(x, dest=0)
            comm.Recv(x, source=0)
        return "done"

    assert run_ranks(2, program) == ["done", "done"]


def test_the_first_error_stops_all_ranks_and_names_its_own():
    def program(comm):
        if comm.Get_rank() == 2:
            raise KeyError("lost")
        comm.Recv(np.empty(1), source=2)

    with pytest.raises(KeyError, match="lost") as caught:
        run_ranks(4, program)
    assert caught.value.__notes__ == ["raised on rank 2 of 4"]


def test_a_deadlock_is_found_and_says_who_waits_for_whom():
    def circle(comm):
        comm.Recv(np.empty(1), source=(comm.Get_rank() + 1) % comm.Get_size(), tag=4)

    with pytest.raises(
        DeadlockError, match=r"rank 0 waits for rank 1 to send \(tag 4\), rank 1 waits for rank 2"
    ):
        run_ranks(3, circle)

    def left_alone(comm):
        if comm.Get_rank() == 0:
            comm.Recv(np.empty(1), source=1)

    with pytest.raises(DeadlockError, match="rank 0 waits for rank 1"):
        run_ranks(2, left_alone)


@pytest.mark.parametrize("theirs", [np.zeros(4), np.zeros(3, np.float32)])
def test_ranks_that_disagree_on_shape_or_type_are_told(theirs):
    def program(comm):
        ring_allreduce(comm, np.zeros(3) if comm.Get_rank() == 0 else theirs)

    with pytest.raises(ValueError, match=r"rank \d expected float.* from rank \d, got float"):
        run_ranks(2, program)
