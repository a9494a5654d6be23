"""What distribution costs: fits against synthetic times, predictions against simulation, laws by hand."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from nnbrain.distributed import (
    Metered,
    amdahl,
    fit_alpha_beta,
    gustafson,
    mpiexec,
    ping_pong,
    ring_allreduce,
    run_ranks,
    seconds_a_step,
    step_time,
)
from nnbrain.mlp import MLP

SIZES = [0, *(2**k for k in range(3, 24, 2))]


# ---- α and β ----


@pytest.mark.parametrize(("alpha", "beta"), [(1e-6, 1e-10), (5e-5, 1e-9), (2e-3, 1e-8), (3.0, 0.0)])
def test_exact_times_give_alpha_and_beta_back(alpha, beta):
    """eq-message-time: times made by the formula, over seven powers of ten, return what they were made of."""
    found = fit_alpha_beta(SIZES, alpha + beta * np.array(SIZES))
    assert found == pytest.approx((alpha, beta), rel=1e-6, abs=1e-18)


def test_noise_and_disturbed_messages_do_not_decide():
    """eq-message-time under 5% noise, and two of twelve messages that took ten times as long."""
    rng = np.random.default_rng(0)
    sizes, alpha, beta = np.array(SIZES), 2e-6, 1.5e-10
    for _ in range(50):
        seconds = (alpha + beta * sizes) * np.exp(0.05 * rng.normal(size=len(sizes)))
        seconds[rng.choice(len(sizes), 2, replace=False)] *= 10
        assert fit_alpha_beta(sizes, seconds) == pytest.approx((alpha, beta), rel=0.25)
        plain = np.linalg.lstsq(np.stack([sizes**0, sizes], axis=1), seconds, rcond=None)[0]
        assert abs(plain[0] / alpha - 1) > 0.25  # which is why it is not done the plain way


def test_neither_is_negative():
    assert fit_alpha_beta([10, 20, 40], [3.0, 2.0, 1.0])[1] == 0
    alpha, beta = fit_alpha_beta([10, 20, 40], [1.0, 3.0, 8.0])  # a line through these starts below 0
    assert alpha == 0
    assert beta > 0


@pytest.mark.parametrize(
    ("sizes", "seconds", "error", "message"),
    [
        ([1, 2], [1.0], ValueError, r"one length, got shapes \(2,\) and \(1,\)"),
        ([[1, 2]], [[1.0, 2.0]], ValueError, "vectors of one length"),
        ([5, 5], [1.0, 2.0], ValueError, "sizes must be at least two different ones"),
        ([-1, 5], [1.0, 2.0], ValueError, "sizes must be .* none negative, got"),
        ([1, 5], [0.0, 2.0], ValueError, "seconds must be above 0, got 0"),
        ([1, 5], [np.nan, 2.0], ValueError, "seconds must be finite"),
        (["a", "b"], [1.0, 2.0], TypeError, "sizes must be an array of real numbers"),
    ],
)
def test_fit_refuses_what_it_cannot_fit(sizes, seconds, error, message):
    with pytest.raises(error, match=message):
        fit_alpha_beta(sizes, seconds)


# ---- measuring ----


def test_ping_pong_sends_what_it_says_and_tells_all_ranks_the_same():
    """In each round trip both ranks send each size once; the medians then go to all by a broadcast."""
    sizes, repeats = [0, 1, 1000], 4

    def program(comm):
        metered = Metered(comm)
        return ping_pong(metered, sizes, repeats), metered.messages_sent, metered.bytes_sent

    results = run_ranks(3, program)
    for seconds, *_ in results:
        np.testing.assert_array_equal(seconds, results[0][0])
        assert seconds.shape == (3,)
        assert np.all(seconds > 0)
    answers = 2 * len(sizes) * 8  # rank 0 tells the result to rank 1 and to rank 2, as float64
    assert sum(sent for *_, sent in results) == 2 * (1 + repeats) * sum(sizes) + answers
    assert sum(messages for _, messages, _ in results) == 2 * (1 + repeats) * len(sizes) + 2


@pytest.mark.parametrize(
    ("p", "sizes", "repeats", "error", "message"),
    [
        (1, [1], 5, ValueError, "comm must have at least 2 ranks, got 1"),
        (2, [-1], 5, ValueError, r"sizes\[0\] must be an integer >= 0, got -1"),
        (2, [1.5], 5, TypeError, r"sizes\[0\] must be an integer, got 1.5"),
        (2, [1], 0, ValueError, "repeats must be an integer >= 1, got 0"),
    ],
)
def test_ping_pong_refuses(p, sizes, repeats, error, message):
    with pytest.raises(error, match=message):
        run_ranks(p, ping_pong, sizes, repeats)


def test_seconds_a_step_takes_the_steps_it_says():
    """Each epoch, the first included, calls all-reduce once a step, with a vector of θ's length."""
    mlp, calls = MLP((8, 4, 3)), []
    alone = SimpleNamespace(Get_rank=lambda: 0, Get_size=lambda: 1)
    seconds = seconds_a_step(
        alone, mlp, 5, steps=7, repeats=2, allreduce=lambda comm, v: calls.append((comm, v.shape, v.dtype))
    )
    assert seconds > 0
    assert calls == [(alone, (mlp.size,), np.float32)] * 7 * 3
    with pytest.raises(ValueError, match="steps must be an integer >= 1, got 0"):
        seconds_a_step(alone, mlp, 5, steps=0)


try:
    mpiexec(1)
    missing = ""
except FileNotFoundError as error:
    missing = str(error)

PROGRAM = """
import json
from mpi4py import MPI
from nnbrain.distributed import fit_alpha_beta, ping_pong, seconds_a_step
from nnbrain.mlp import MLP
sizes = [0, 1000, 1000000]
seconds = ping_pong(MPI.COMM_WORLD, sizes, 5)
step = seconds_a_step(MPI.COMM_WORLD, MLP((8, 4, 3)), 6, steps=3, repeats=1)
print(json.dumps([list(seconds), step, fit_alpha_beta(sizes, seconds)]))
"""


@pytest.mark.skipif(bool(missing), reason=missing)
def test_on_processes_a_message_takes_time_and_all_ranks_agree():
    command = [*mpiexec(2), sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (seconds, step, (alpha, beta)), theirs = (json.loads(line) for line in done.stdout.splitlines())
    assert seconds == theirs[0]
    assert min(seconds) > 0
    assert step > 0
    assert alpha >= 0
    assert beta > 0


# ---- predicting ----


def simulated_ring(p, n_bytes, alpha, beta):
    """Return when the last rank is done, message by message: a rank goes on when sent and received."""
    clock = np.zeros(p)
    for _ in range(2 * (p - 1)):
        start = np.maximum(clock, np.roll(clock, 1))  # both ends of the message from the left are ready
        clock = np.maximum(start, np.roll(start, -1)) + alpha + beta * n_bytes / p
    return clock.max()


@pytest.mark.parametrize("p", [1, 2, 3, 8])
def test_a_step_is_computing_and_then_a_ring(p):
    """eq-step-time: the formula against a clock for each rank; the largest part sets the pace."""
    fixed, per_sample, alpha, beta, n_bytes = 3e-4, 2e-5, 1e-5, 1e-9, 4 * 840 * p
    expected = fixed + per_sample * max(map(len, np.array_split(np.arange(100), p)))
    expected += simulated_ring(p, n_bytes, alpha, beta)
    found = step_time(p, 100, n_bytes, fixed=fixed, per_sample=per_sample, alpha=alpha, beta=beta)
    assert found == pytest.approx(expected, rel=1e-12)


def test_when_more_ranks_are_faster_than_one():
    """eq-worth-it: the inequality against the step's time, for settings on both sides of it."""
    rng, answers = np.random.default_rng(0), []
    for _ in range(200):
        p, alpha, beta = int(rng.integers(2, 65)), 10 ** rng.uniform(-7, -3), 10 ** rng.uniform(-11, -8)
        n_bytes, batch, per_sample = 10 ** rng.uniform(3, 8), p * int(rng.integers(1, 100)), 1e-5
        costs = {"fixed": 1e-4, "per_sample": per_sample, "alpha": alpha, "beta": beta}
        worth = per_sample * batch > 2 * p * alpha + 2 * n_bytes * beta
        faster = step_time(p, batch, n_bytes, **costs) < step_time(1, batch, n_bytes, **costs)
        assert worth == faster
        answers.append(worth)
    assert 20 < sum(answers) < 180


def test_the_best_number_of_ranks():
    """eq-best-ranks: against the smallest of all step times, for a batch that divides."""
    batch, n_bytes, alpha, beta, per_sample = 2**20, 1e6, 1e-5, 1e-10, 1e-6
    costs = {"fixed": 1e-4, "per_sample": per_sample, "alpha": alpha, "beta": beta}
    best = np.sqrt((per_sample * batch - 2 * n_bytes * beta) / (2 * alpha))
    times = {p: step_time(p, batch, n_bytes, **costs) for p in range(1, 1000)}
    assert min(times, key=times.get) == pytest.approx(best, rel=0.01)


def test_the_two_cuts_send_what_the_chapter_says():
    """eq-bytes-of-cuts: counted for a gradient, and for the logits of a batch, on a ring of 5."""
    mlp, batch, p = MLP((64, 40, 10)), 50, 5
    for numbers in (mlp.size, batch * mlp.sizes[-1]):

        def program(comm, numbers=numbers):
            metered = Metered(comm)
            ring_allreduce(metered, np.ones(numbers, np.float32))
            return metered.bytes_sent

        assert run_ranks(p, program) == [2 * (p - 1) / p * numbers * 4] * p


# ---- laws ----


def test_laws_by_hand():
    """eq-amdahl, eq-gustafson: a tenth that is not divided, on nine ranks and on very many."""
    assert amdahl(9, 0.1) == pytest.approx(5.0, rel=1e-14)
    assert amdahl(1e12, 0.1) == pytest.approx(10.0, rel=1e-9)
    assert gustafson(9, 0.1) == pytest.approx(8.2, rel=1e-14)
    p = np.arange(1, 100)
    np.testing.assert_allclose(amdahl(p, 0), p)
    np.testing.assert_allclose(gustafson(p, 1), 1)
    np.testing.assert_allclose(amdahl(1, np.pi / 4), 1)


def test_the_two_laws_are_one():
    """eq-gustafson is eq-amdahl for the larger work, of which a smaller share is not divided."""
    p = np.arange(1, 100)
    for b in (0.0, 0.01, 0.5, 1.0):
        a = b / (b + (1 - b) * p)
        np.testing.assert_allclose([amdahl(q, s) for q, s in zip(p, a, strict=True)], gustafson(p, b))


def test_gustafson_s_three_applications():
    """Gustafson (1988): shares of 0.4 to 0.8% on 1,024 processors, speed-ups of 1,016 to 1,021."""
    low, high = gustafson(1024, 0.008), gustafson(1024, 0.004)
    assert round(float(low)) == 1016
    assert 1019 < float(high) < 1021


@pytest.mark.parametrize("law", [amdahl, gustafson])
@pytest.mark.parametrize(
    ("p", "serial", "message"),
    [(0, 0.1, "p must be at least 1, got 0"), (4, 1.1, "serial must be"), (4, -0.1, "serial must be")],
)
def test_laws_refuse(law, p, serial, message):
    with pytest.raises(ValueError, match=message):
        law(p, serial)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p": 0}, "p must be an integer >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"n_bytes": -1}, "n_bytes must be finite and >= 0, got -1"),
        ({"fixed": -1.0}, "fixed must be finite and >= 0, got -1.0"),
        ({"per_sample": np.inf}, "per_sample must be finite"),
        ({"alpha": -1.0}, "alpha must be"),
        ({"beta": -1.0}, "beta must be"),
    ],
)
def test_step_time_refuses(change, message):
    good = {"p": 2, "batch_size": 8, "n_bytes": 100, "fixed": 1, "per_sample": 1, "alpha": 1, "beta": 1}
    with pytest.raises(ValueError, match=message):
        step_time(**{**good, **change})
