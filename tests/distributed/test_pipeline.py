"""Pipelines against the whole network; their schedules against closed forms; both on real processes."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from nnbrain.distributed import (
    DeadlockError,
    Metered,
    PipelineWorker,
    bubble,
    cut_layers,
    gpipe,
    mpiexec,
    one_f_one_b,
    replay,
    run_ranks,
)
from nnbrain.distributed.pipeline_schedules import Backward, Exchange, Forward, Step
from nnbrain.mlp import MLP, SGD, fit

RNG = np.random.default_rng(5)
X, Y = RNG.normal(size=(9, 6)), RNG.integers(0, 4, 9)
SIZES = (6, 7, 5, 8, 4)  # four layers
both = pytest.mark.parametrize("schedule", [gpipe, one_f_one_b])


def network(activation="tanh", loss="cross_entropy"):
    mlp = MLP(SIZES, activation=activation, loss=loss)
    theta = mlp.init(1, np.float64)
    return mlp, theta + 0.1 * np.random.default_rng(2).normal(size=theta.shape)


def parts_of(theta, stages):
    return np.split(theta, np.cumsum([stage.size for stage in stages])[:-1])


def on_all_ranks(schedule, mlp, theta, counts, sizes, y=Y):
    """Return each rank's loss, part of the gradient, peak and meter; only the ends see X and y."""
    stages = cut_layers(mlp, counts)
    p = len(stages)

    def program(comm):
        rank, metered = comm.Get_rank(), Metered(comm)
        worker = PipelineWorker(metered, stages, parts_of(theta, stages)[rank])
        data = X if rank == 0 else None, y if rank == p - 1 else None
        loss = worker.run(schedule(p, len(sizes), rank), *data, sizes)
        return loss, worker.grad, worker.peak, metered

    return run_ranks(p, program)


@both
@pytest.mark.parametrize("counts", [[4], [1, 3], [2, 1, 1], [1, 2, 1], [1, 1, 1, 1]])
@pytest.mark.parametrize("sizes", [[9], [3, 1, 2, 3], [1] * 9, [4, 5]])
def test_gradient_bytes_and_what_is_kept(schedule, counts, sizes):
    """eq-pipeline-bytes, eq-in-flight: uneven stages and microbatches, m below p too."""
    mlp, theta = network("gelu" if len(sizes) == 4 else "tanh")
    loss, grad = mlp.loss_and_grad(theta, X, Y)
    p, m = len(counts), len(sizes)
    results = on_all_ranks(schedule, mlp, theta, counts, sizes)
    np.testing.assert_allclose(np.concatenate([part for _, part, *_ in results]), grad, rtol=0, atol=1e-12)
    assert [r[0] for r in results] == pytest.approx([0.0] * (p - 1) + [loss], rel=1e-12)
    ends = np.cumsum([0, *counts])
    for rank, (_, _, peak, metered) in enumerate(results):
        assert peak == (m if schedule is gpipe else min(m, p - rank))
        to_left = SIZES[ends[rank]] if rank else 0
        to_right = SIZES[ends[rank + 1]] if rank < p - 1 else 0
        assert metered.bytes_sent == 9 * 8 * (to_left + to_right)
        assert metered.messages_sent == m * ((rank > 0) + (rank < p - 1))


@both
@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy"])
def test_every_loss(schedule, loss):
    mlp, theta = network("relu", loss)
    y = RNG.integers(0, 2, (9, 4)).astype(float)
    results = on_all_ranks(schedule, mlp, theta, [1, 2, 1], [2, 4, 3], y)
    _, grad = mlp.loss_and_grad(theta, X, y)
    np.testing.assert_allclose(np.concatenate([r[1] for r in results]), grad, rtol=0, atol=1e-12)


@both
def test_steps_are_those_of_one_rank(schedule):
    mlp, theta = network()
    optimizer = SGD(0.1, momentum=0.9)
    expected, _ = fit(mlp, theta, X, Y, optimizer=optimizer, epochs=5, batch_size=9, rng=0)
    stages = cut_layers(mlp, [1, 2, 1])

    def program(comm):
        rank = comm.Get_rank()
        worker = PipelineWorker(comm, stages, parts_of(theta, stages)[rank].copy(), optimizer)
        for _ in range(5):  # one batch an epoch: its order changes the sum in the last digits only
            worker.run(schedule(3, 4, rank), X, Y, [3, 1, 2, 3])
        return worker.theta

    np.testing.assert_allclose(np.concatenate(run_ranks(3, program)), expected, rtol=0, atol=1e-12)


@both
def test_no_deadlock_and_the_bubble_is_that_of_the_formula(schedule):
    """eq-bubble, for any times of a forward and a backward pass; each microbatch there and back once."""
    for p in range(1, 7):
        for m in range(1, 13):
            for back in (1.0, 2.0, 0.3):
                schedules = [list(schedule(p, m, rank)) for rank in range(p)]
                spans = replay(schedules, lambda r, i, b=back: 1.0 if isinstance(i, Forward) else b)
                assert bubble(spans) == pytest.approx((p - 1) / (m + p - 1), abs=1e-12)
                assert max(s.end for row in spans for s in row) == pytest.approx((m + p - 1) * (1 + back))
    for row in schedules:
        for kind in (Forward, Backward):
            assert sorted(i.microbatch for i in row if isinstance(i, kind)) == list(range(m))
        assert row.count(Step()) == 1
        assert row[-1] == Step()


def test_a_hand_made_timeline():
    """Two ranks, one microbatch, messages of 0.5: the second starts at 1.5, the first ends at 7."""
    spans = replay([gpipe(2, 1, rank) for rank in range(2)], message=0.5)
    times = [
        [(s.start, s.end) for s in row if isinstance(s.instruction, Forward | Backward)] for row in spans
    ]
    assert times == [[(0, 1), (5, 7)], [(1.5, 2.5), (2.5, 4.5)]]
    assert bubble(spans) == pytest.approx(1 - 6 / 14)


@both
def test_a_second_batch_begins_where_the_first_has_ended(schedule):
    """The same messages come again, and meet those of their own batch: no rank's clock goes back."""
    once = replay([schedule(3, 4, rank) for rank in range(3)])
    twice = replay([[*schedule(3, 4, rank), *schedule(3, 4, rank)] for rank in range(3)])
    for row, first in zip(twice, once, strict=True):
        assert row[: len(first)] == first
        assert all(later.start >= earlier.end for earlier, later in pairwise(row))
    assert twice[0][-1].end == 2 * once[0][-1].end


def apart(schedule):
    """Turn each exchange of a schedule into a send, and then a receipt."""
    for instruction in schedule:
        if isinstance(instruction, Exchange) and None not in (instruction.send, instruction.receive):
            yield Exchange(instruction.peer, send=instruction.send)
            yield Exchange(instruction.peer, receive=instruction.receive)
        else:
            yield instruction


def test_sends_before_receipts_lock_up_in_the_replay_and_on_ranks():
    with pytest.raises(DeadlockError, match="deadlock: rank 0 waits for rank 1, rank 1 waits for rank 0"):
        replay([apart(one_f_one_b(2, 3, rank)) for rank in range(2)])
    mlp, theta = network()
    with pytest.raises(DeadlockError, match="rank 0 waits for rank 1 to receive"):
        on_all_ranks(lambda p, m, r: apart(one_f_one_b(p, m, r)), mlp, theta, [2, 2], [3, 3, 3])


def test_bad_arguments_are_named():
    mlp, theta = network()
    for counts in ([2, 1], [5]):
        with pytest.raises(ValueError, match="counts must add up to the 4 layers of the network, got"):
            cut_layers(mlp, counts)
    with pytest.raises(ValueError, match=r"counts\[1\] must be an integer >= 1, got 0"):
        cut_layers(mlp, [4, 0])
    with pytest.raises(ValueError, match=r"rank must be in 0..1, got 2"):
        list(gpipe(2, 3, 2))
    with pytest.raises(ValueError, match="m must be an integer >= 1, got 0"):
        list(one_f_one_b(2, 0, 0))
    for sizes, message in (
        ([4, 4], "sizes must add up to the 9 rows of X, got 8"),
        ([9, 0], r"sizes\[1\] must be an integer >= 1, got 0"),
        ([], "sizes must have at least one microbatch, got none"),
    ):
        with pytest.raises(ValueError, match=message):
            on_all_ranks(lambda p, m, r: gpipe(p, 1, r), mlp, theta, [4], sizes)
    with pytest.raises(ValueError, match="send or receive must be a microbatch, got None for both"):
        Exchange(1)
    stages = cut_layers(mlp, [2, 2])
    with pytest.raises(ValueError, match="stages must be one for each of 3 ranks, got 2"):
        run_ranks(3, PipelineWorker, stages, theta)
    with pytest.raises(ValueError, match="theta must have shape"):
        run_ranks(2, PipelineWorker, stages, theta)


# ---- both kinds of cut on real processes ----

PROGRAM = """
import numpy as np
from mpi4py import MPI
from nnbrain.distributed import PipelineWorker, TensorCut, TensorParallel, cut_layers, one_f_one_b
from nnbrain.mlp import MLP

comm = MPI.COMM_WORLD
rank, p = comm.Get_rank(), comm.Get_size()
mlp = MLP((6, 700, 500, 4), activation="tanh")
theta = mlp.init(1, np.float64)
rng = np.random.default_rng(3)
X, y = rng.normal(size=(90, 6)), rng.integers(0, 4, 90)
_, grad = mlp.loss_and_grad(theta, X, y)
cut = TensorCut(mlp, p, (3, 2, 1))
ours = TensorParallel(comm, cut, cut.split(theta)[rank], 90)
ours.loss_and_grad(X, y)
assert np.abs(ours.grad - cut.split(grad)[rank]).max() < 1e-12
stages = cut_layers(mlp, [1] * p)
ends = np.cumsum([0, *(stage.size for stage in stages)])
mine = slice(ends[rank], ends[rank + 1])
worker = PipelineWorker(comm, stages, theta[mine])
worker.run(one_f_one_b(p, 4, rank), X, y, [30, 10, 20, 30])
assert np.abs(worker.grad - grad[mine]).max() < 1e-12
print(f"rank {rank} is right\\n", end="", flush=True)
"""


def test_processes_compute_what_one_does():
    """Messages of up to 120 kB, which MPI does not put aside: a send that nobody awaits would hang."""
    try:
        launcher = mpiexec(3)
    except FileNotFoundError as reason:
        pytest.skip(str(reason))
    command = [*launcher, sys.executable, "-m", "mpi4py", "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"rank {rank} is right" for rank in range(3)]
