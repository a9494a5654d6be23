"""Local SGD against synchronous training and against itself written out in one process."""

import numpy as np
import pytest

from nnbrain.data import load_digits, minibatches
from nnbrain.distributed import (
    CompressedAllreduce,
    Metered,
    TopK,
    bytes_sent,
    run_ranks,
    train,
    train_with_local_steps,
)
from nnbrain.mlp import MLP, SGD

MLP_SMALL = MLP((64, 16, 10))
X, y, *_ = load_digits()
X, y = X[:144].astype(np.float64), y[:144]
THETA = MLP_SMALL.init(0, np.float64)
OPTIONS = {"epochs": 5, "batch_size": 10, "rng": 3}  # 15 batches an epoch, the last of 4 samples: 75 steps


@pytest.mark.parametrize("optimizer", [SGD(0.1), SGD(0.05, momentum=0.9, nesterov=True)])
@pytest.mark.parametrize("p", [1, 2, 3, 4, 7])
def test_one_local_step_is_synchronous_training(p, optimizer):
    """eq-local-sgd with H = 1, uneven parts and ranks without a sample included."""
    sync, losses = run_ranks(p, train, MLP_SMALL, THETA, X, y, optimizer=optimizer, **OPTIONS)[0]
    options = {"optimizer": optimizer, "local_steps": 1, **OPTIONS}
    for theta, local_losses in run_ranks(p, train_with_local_steps, MLP_SMALL, THETA, X, y, **options):
        np.testing.assert_allclose(theta, sync, rtol=0, atol=1e-12)
        np.testing.assert_allclose(local_losses, losses, rtol=1e-12)
    assert np.abs(sync - THETA).max() > 0.1


@pytest.mark.parametrize("local_steps", [2, 7, 75, 1000])
def test_more_local_steps_against_the_algorithm_written_out(local_steps):
    """eq-local-sgd: three networks in one process, averaged every H steps and at the end; float64."""
    p, rng = 3, np.random.default_rng(3)
    thetas, step = [THETA.copy() for _ in range(p)], 0
    for _ in range(5):
        for batch in minibatches(len(X), 10, rng):
            for r, part in enumerate(np.array_split(batch, p)):
                _, g = MLP_SMALL.loss_and_grad(thetas[r], X[part], y[part])
                thetas[r] -= 0.1 * (p * len(part) / len(batch)) * g
            step += 1
            if step % local_steps == 0 or step == 75:
                thetas = [np.mean(thetas, axis=0) for _ in range(p)]

    def program(comm):
        metered = Metered(comm)
        options = {"optimizer": SGD(0.1), "local_steps": local_steps, **OPTIONS}
        return *train_with_local_steps(metered, MLP_SMALL, THETA, X, y, **options), metered.bytes_sent

    results = run_ranks(p, program)
    averages = -(-75 // local_steps)
    silent = run_ranks(p, count_agreement)
    for rank, (theta, _, sent) in enumerate(results):
        np.testing.assert_allclose(theta, thetas[0], rtol=0, atol=1e-12)
        np.testing.assert_array_equal(theta, results[0][0])
        vectors = averages * bytes_sent("ring", p, rank, MLP_SMALL.size, 8)
        losses = 5 * bytes_sent("ring", p, rank, 1, 8)
        assert sent == vectors + losses + silent[rank]


def count_agreement(comm):
    """Return what comparing the arguments costs: a run of no epochs."""
    metered = Metered(comm)
    options = {**OPTIONS, "epochs": 0}
    theta, losses = train_with_local_steps(metered, MLP_SMALL, THETA, X, y, local_steps=2, **options)
    np.testing.assert_array_equal(theta, THETA)
    assert losses == []
    return metered.bytes_sent


def test_moves_may_be_compressed_too():
    def program(comm):
        options = {"local_steps": 5, "optimizer": SGD(0.3), **OPTIONS}
        exchange = CompressedAllreduce(TopK(0.1))
        return train_with_local_steps(comm, MLP_SMALL, THETA, X, y, allreduce=exchange, **options)

    results = run_ranks(3, program)
    np.testing.assert_array_equal(results[0][0], results[2][0])
    assert results[0][1][-1] < 0.6 * results[0][1][0]


def test_bad_arguments_are_refused():
    def call(**options):
        run_ranks(2, train_with_local_steps, MLP_SMALL, THETA, X, y, **{"local_steps": 2, **options})

    with pytest.raises(ValueError, match=r"local_steps must be an integer >= 1, got 0"):
        call(local_steps=0)
    with pytest.raises(TypeError, match=r"local_steps must be an integer, got 1.5"):
        call(local_steps=1.5)
    with pytest.raises(ValueError, match=r"batch_size must be at most the 144 samples"):
        call(batch_size=145)

    def disagree(comm):
        train_with_local_steps(comm, MLP_SMALL, THETA, X, y, local_steps=1 + comm.Get_rank())

    with pytest.raises(ValueError, match=r"local_steps must be the same on all ranks"):
        run_ranks(2, disagree)
