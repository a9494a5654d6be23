"""Sums over ranks of gradients in few bytes: what is owed, what it costs, and where it fails."""

import subprocess
import sys

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.distributed import (
    QSGD,
    CompressedAllreduce,
    Metered,
    PowerSGD,
    Sign,
    TopK,
    bytes_sent,
    mpiexec,
    ring_allreduce,
    run_ranks,
    train,
)
from nnbrain.mlp import MLP, SGD

MLP_SMALL = MLP((64, 16, 10))


def make_exchanges(mlp, **options):
    return {
        "top-k": lambda: CompressedAllreduce(TopK(0.05), **options),
        "sign": lambda: CompressedAllreduce(Sign(), **options),
        "qsgd": lambda: CompressedAllreduce(QSGD(31, bucket=64), **options),
        "powersgd": lambda: PowerSGD(mlp, 2, **options),
    }


# ---- sums over ranks ----


@pytest.mark.parametrize("p", [1, 2, 3, 5])
@pytest.mark.parametrize("name", ["top-k", "sign", "qsgd", "powersgd"])
def test_what_was_sent_and_what_is_owed_make_up_what_was_given(name, p):
    """eq-feedback, eq-feedback-sum: over 20 steps, of gradients that differ from rank to rank.

    They are whole numbers, so that top-k, which moves entries whole, must be exact bit for bit.
    """
    given = np.random.default_rng(2).integers(-99, 100, (p, 20, MLP_SMALL.size)).astype(float)

    def program(comm):
        exchange = make_exchanges(MLP_SMALL)[name]()
        sent = np.zeros(MLP_SMALL.size)
        for g in given[comm.Get_rank()]:
            vector = g.copy()
            exchange(comm, vector)
            sent += vector
        return sent, exchange.residual

    results = run_ranks(p, program)
    sent, total = results[0][0], given.sum(axis=(0, 1))
    owed = sum(residual for _, residual in results)
    np.testing.assert_allclose(sent + owed, total, rtol=0, atol=0 if name == "top-k" else 1e-9)
    assert np.linalg.norm(owed) > 1  # something was lost on the way, or this would show nothing
    for other, _ in results:
        np.testing.assert_array_equal(other, sent)


def test_if_all_debts_were_paid_theta_would_have_taken_the_full_steps():
    """eq-paid-up: θ less η times what all ranks owe moves by the sum of the gradients measured at θ."""
    X, y, *_ = load_digits()
    theta, rate = MLP_SMALL.init(0, np.float64), 0.1

    def program(comm):
        exchange, moving = CompressedAllreduce(TopK(0.02)), theta.copy()
        full, owed = theta.copy(), np.zeros_like(theta)
        for start in range(0, 120, 8):
            rows = slice(start + 4 * comm.Get_rank(), start + 4 * comm.Get_rank() + 4)
            _, g = MLP_SMALL.loss_and_grad(moving, X[rows], y[rows])
            whole = g.copy()
            ring_allreduce(comm, whole)
            full -= rate * whole
            exchange(comm, g)
            moving -= rate * g
            owed = exchange.residual.copy()
            ring_allreduce(comm, owed)
        return moving, full, owed

    moving, full, owed = run_ranks(2, program)[0]
    np.testing.assert_allclose(moving - rate * owed, full, rtol=0, atol=1e-12)
    assert np.abs(moving - full).max() > 1e-3


def test_without_feedback_nothing_is_owed_and_the_sum_falls_short():
    def program(comm):
        exchange = CompressedAllreduce(TopK(0.5), feedback=False)
        sums = []
        for _ in range(2):
            vector = np.array([3.0, 1.0]) * (1 + comm.Get_rank())
            exchange(comm, vector)
            sums.append(vector)
        return *sums, exchange.residual

    first, second, residual = run_ranks(2, program)[1]
    assert residual is None
    np.testing.assert_array_equal(first, [9, 0])
    np.testing.assert_array_equal(second, [9, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["top-k", "sign", "qsgd", "powersgd"])
def test_training_learns_and_all_ranks_end_with_the_same_bits(name, dtype):
    X, y, *_ = load_digits()
    theta = MLP_SMALL.init(0, dtype)

    def program(comm):
        exchange = make_exchanges(MLP_SMALL)[name]()
        options = {"optimizer": SGD(0.3), "epochs": 3, "batch_size": 32}
        return train(comm, MLP_SMALL, theta, X[:300], y[:300], allreduce=exchange, **options)

    results = run_ranks(3, program)
    for ours, losses in results:
        assert ours.dtype == dtype
        np.testing.assert_array_equal(ours, results[0][0])
        assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: CompressedAllreduce(TopK(1)),
        lambda: CompressedAllreduce(TopK(1), feedback=False),
        lambda: PowerSGD(MLP_SMALL, 16),
        lambda: PowerSGD(MLP_SMALL, 99, feedback=False),
    ],
)
def test_nothing_left_out_is_plain_training(make):
    """eq-low-rank at full rank, top-k with k = n: 60 steps of 4 ranks, uneven parts."""
    X, y, *_ = load_digits()
    theta = MLP_SMALL.init(0, np.float64)
    options = {"optimizer": SGD(0.1), "epochs": 6, "batch_size": 15}
    data = X[:150], y[:150]
    plain, _ = run_ranks(4, train, MLP_SMALL, theta, *data, **options)[0]
    got, _ = run_ranks(4, lambda c: train(c, MLP_SMALL, theta, *data, allreduce=make(), **options))[0]
    assert np.abs(plain - theta).max() > 0.05
    np.testing.assert_allclose(got, plain, rtol=0, atol=1e-12)


# ---- what it costs ----


@pytest.mark.parametrize("p", [1, 2, 3, 4, 7])
def test_counted_bytes_are_those_of_the_formulas(p):
    """eq-gathered-bytes: p - 1 payloads a rank; PowerSGD is two rings, of r (fan_in, fan_out) and biases."""
    n, r = MLP_SMALL.size, 2
    payload = {
        "top-k": round(0.05 * n) * 8,
        "sign": 4 + -(-n // 8),
        "qsgd": -(-n // 64) * 4 + -(-6 * n // 8),
    }
    ring_1, ring_2 = r * (64 + 16) + 16 + 10, r * (16 + 10)

    def program(comm, make):
        metered = Metered(comm)
        make()(metered, np.ones(n, np.float32))
        return metered.bytes_sent

    for name, make in make_exchanges(MLP_SMALL).items():
        sent = run_ranks(p, program, make)
        if name == "powersgd":
            assert sent == [sum(bytes_sent("ring", p, q, m, 4) for m in (ring_1, ring_2)) for q in range(p)]
        else:
            assert sent == [(p - 1) * payload[name]] * p


# ---- where forgetting fails, provably ----


def three_ranks(compressor, feedback, rate=0.1, steps=40):
    """Each rank has its own quadratic; together they have their minimum at zero."""

    def program(comm):
        a = np.roll([-3.0, 2.0, 2.0], comm.Get_rank())
        exchange = CompressedAllreduce(compressor, feedback=feedback)
        x = np.ones(3)
        for _ in range(steps):
            g = (2 * (a @ x) * a + x / 2) / 3
            exchange(comm, g)
            x = x - rate * g
        return x

    return run_ranks(3, program)[0]


def test_top_1_without_feedback_diverges_at_the_rate_derived():
    """eq-topk-diverges; with feedback, and with plain sums, the same steps go to the minimum."""
    np.testing.assert_allclose(three_ranks(TopK(1 / 3), False), (1 + 11 * 0.1 / 6) ** 40, rtol=1e-12)
    assert np.abs(three_ranks(TopK(1), False)).max() < 0.01
    assert np.abs(three_ranks(TopK(1 / 3), True, rate=0.02, steps=1000)).max() < 1e-3


@pytest.mark.parametrize("feedback", [False, True])
def test_sign_without_feedback_stays_on_its_line(feedback):
    """The sum of the two coordinates never changes; with feedback it goes to zero."""

    def program(comm):
        exchange = CompressedAllreduce(Sign(), feedback=feedback)
        x = np.array([1.5, 0.5])
        for _ in range(4000):
            g = 0.2 * np.sign(x.sum()) * np.ones(2) + np.sign(x[0] - x[1]) * np.array([1.0, -1.0])
            exchange(comm, g)
            x = x - 0.015 * g  # with 0.01 a step would end on the kink, but for rounding
        return x

    x = run_ranks(1, program)[0]
    if feedback:
        assert np.abs(x).max() < 0.1
    else:
        assert x.sum() == pytest.approx(2, abs=1e-9)


def test_feedback_to_a_code_that_lengthens_blows_up():
    """eq-feedback with QSGD: where the variance exceeds the squared norm, the residual grows without end."""

    def owed(compressor):
        def program(comm):
            exchange = CompressedAllreduce(compressor)
            for _ in range(100):
                exchange(comm, np.ones(1000))
            return np.linalg.norm(exchange.residual)

        return run_ranks(1, program)[0]

    assert owed(QSGD(1, bucket=1000)) > 1e6
    assert owed(QSGD(100, bucket=1000)) < 1e2


# ---- real processes, and bad input ----

PROGRAM = """
import hashlib, sys
import numpy as np
from threadpoolctl import threadpool_limits
from nnbrain.data import load_digits
from nnbrain.distributed import *
from nnbrain.mlp import MLP, SGD

def program(comm):
    X, y, *_ = load_digits()
    mlp = MLP((64, 16, 10))
    theta, digests = mlp.init(0), []
    for make in (lambda: CompressedAllreduce(TopK(0.02)), lambda: CompressedAllreduce(Sign()),
                 lambda: CompressedAllreduce(QSGD(7)), lambda: PowerSGD(mlp, 2)):
        got, _ = train(comm, mlp, theta, X, y, allreduce=make(), optimizer=SGD(0.3), epochs=1, batch_size=50)
        digests.append(hashlib.sha256(got.tobytes()).hexdigest()[:16])
    got, _ = train_with_local_steps(comm, mlp, theta, X, y, local_steps=5, epochs=1, batch_size=50)
    return [*digests, hashlib.sha256(got.tobytes()).hexdigest()[:16]]
"""


def test_processes_end_with_the_bits_of_threads():
    try:
        command = [*mpiexec(3), sys.executable, "-c"]
    except FileNotFoundError as reason:
        pytest.skip(str(reason))
    main = """
from mpi4py import MPI
with threadpool_limits(limits=1, user_api="blas"):
    sys.stdout.write(" ".join(program(MPI.COMM_WORLD)) + "\\n")
"""
    done = subprocess.run(
        [*command, PROGRAM + main], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    names = {}
    exec(PROGRAM, names)
    threads = run_ranks(3, names["program"])
    assert len(set(threads[0])) == 5
    assert [line.split() for line in done.stdout.splitlines()] == threads


@pytest.mark.parametrize("name", ["top-k", "sign", "qsgd", "powersgd"])
def test_vectors_that_cannot_be_sent_are_refused(name):
    def call(*vectors):
        def program(comm):
            exchange = make_exchanges(MLP_SMALL)[name]()
            for vector in vectors:
                exchange(comm, vector)

        run_ranks(1, program)

    good = np.ones(MLP_SMALL.size)
    bad = good.copy()
    bad[3] = np.nan
    with pytest.raises(FloatingPointError, match=r"vector must be finite, got 1 NaN or infinite of 1210"):
        call(bad)
    with pytest.raises(ValueError, match=r"vector must be float64\[1210\] as before, got float64\[7\]"):
        call(good, np.ones(7))
    with pytest.raises(ValueError, match=r"as before, got float32\[1210\]"):
        call(good, good.astype(np.float32))
    with pytest.raises(ValueError, match=r"vector must be float32 or float64 of one dimension, got int64"):
        call(np.ones(5, int))
    if name == "powersgd":
        with pytest.raises(ValueError, match=r"vector must have the 1210 entries of mlp, got 7"):
            call(np.ones(7))
