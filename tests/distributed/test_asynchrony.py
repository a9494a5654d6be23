"""A cluster in virtual time and its parameter server: closed forms, counts, and the serial run."""

from itertools import islice, pairwise

import numpy as np
import pytest
from scipy import stats

from nnbrain.data import load_digits
from nnbrain.distributed import (
    Cluster,
    exponential,
    gradient_of_shares,
    parameter_server,
    pareto,
    run_ranks,
    steady,
    straggler,
    train,
)
from nnbrain.mlp import MLP, SGD, fit

BUSY = {
    "steady": steady(1.0),
    "exponential": exponential(1.0),
    "pareto": pareto(1.0, 1.5),
    "hiccups": straggler(steady(1.0), 10, chance=0.1),
    "slow": straggler(exponential([1, 2, 1, 3]), 8, workers=[3]),
}
every_kind = pytest.mark.parametrize("kind", BUSY)


def zero(theta, worker, clock):
    return np.zeros_like(theta)


def run(duration, n, *, workers=4, bound=None, seed=0, gradient=zero, rate=1.0, damping=None, start=1.0):
    """Return the first n applied gradients, without θ, and θ after them."""
    cluster = Cluster(workers, duration, seed=seed)
    options = {"learning_rate": rate, "bound": bound, "damping": damping}
    applied = list(islice(parameter_server(cluster, np.full(1, start), gradient, **options), n))
    return [a._replace(theta=None) for a in applied], applied[-1].theta


# ---- the cluster ----


def test_completions_come_in_order_once_each_and_the_same_every_time():
    def journey(seed):
        cluster, seen, tasks = Cluster(3, pareto([1.0, 2.0, 0.5]), seed=seed), [], iter(range(50))
        for worker in range(3):
            cluster.start(worker, next(tasks))
        for done in cluster:
            assert cluster.now == done.time > done.started
            seen.append(done)
            task = next(tasks, None)
            if task is not None:
                cluster.start(done.worker, task)
        assert not cluster.busy
        return seen

    seen = journey(5)
    assert sorted(done.task for done in seen) == list(range(50))
    assert all(a.time <= b.time for a, b in pairwise(seen))
    assert seen == journey(5) != journey(6)


def test_a_worker_s_times_do_not_depend_on_the_others():
    """The same draws for each worker, whoever waits for whom."""

    def seconds(bound):
        applied, _ = run(BUSY["slow"], 400, bound=bound)
        return [a.time - a.started for a in applied if a.worker == 2][:40]

    assert len(seconds(None)) == 40
    np.testing.assert_allclose(seconds(0), seconds(None), rtol=1e-9)
    np.testing.assert_allclose(seconds(2), seconds(None), rtol=1e-9)


def test_latency_work_and_cancelling():
    cluster = Cluster(3, steady([1.0, 2.0, 4.0]), latency=0.25)
    for worker, work in enumerate((2.0, 1.0, 1.0)):
        cluster.start(worker, work=work)
    cluster.cancel(0)
    assert cluster.busy == {1, 2}
    cluster.start(0, "again")
    assert [(d.time, d.worker, d.task) for d in cluster] == [
        (1.25, 0, "again"),
        (2.25, 1, None),
        (4.25, 2, None),
    ]


@pytest.mark.parametrize(
    ("duration", "distribution"),
    [
        (exponential(2.0), stats.expon(scale=2)),
        (pareto(2.0, 3.0), stats.pareto(3.0, scale=4 / 3)),
        (pareto([2.0], 1.2), stats.pareto(1.2, scale=2 * 0.2 / 1.2)),
    ],
)
def test_durations_have_the_distribution_they_promise(duration, distribution):
    rng = np.random.default_rng(0)
    sample = [duration(0, rng) for _ in range(2000)]
    assert stats.kstest(sample, distribution.cdf).pvalue > 0.001
    assert distribution.mean() == pytest.approx(2.0)


def test_stragglers_are_as_often_and_as_slow_as_asked():
    rng = np.random.default_rng(0)
    duration = straggler(steady([1.0, 2.0]), 10, chance=0.2)
    sample = np.array([duration(1, rng) for _ in range(2000)])
    assert set(sample) == {2.0, 20.0}
    assert np.mean(sample == 20) == pytest.approx(0.2, abs=0.03)
    only = straggler(steady(1.0), 10, workers=[1])
    assert [only(w, rng) for w in range(3)] == [1.0, 10.0, 1.0]


def test_throughput_with_and_without_a_barrier():
    """eq-throughput: steady workers deliver Σ 1/d a second, and p / max d if all wait for all."""
    d = [1.0, 2.0, 4.0, 8.0]
    for bound, rate in ((None, sum(1 / x for x in d)), (0, 4 / 8)):
        applied, _ = run(steady(d), 4000, bound=bound)
        seconds = 8 * 100
        delivered = sum(a.time <= seconds for a in applied)
        assert delivered == rate * seconds


@pytest.mark.parametrize("k", [1, 5, 8])
def test_the_kth_of_p_exponential_workers(k):
    """eq-barrier: the mean time until the k-th of p has come is the mean times H_p - H_(p-k)."""
    rounds = []
    cluster = Cluster(8, exponential(2.0), seed=1)
    for _ in range(4000):
        begun = cluster.now
        for worker in range(8):
            cluster.start(worker)
        *_, last = islice(cluster, k)
        rounds.append(last.time - begun)
        for worker in list(cluster.busy):
            cluster.cancel(worker)
    expected = 2.0 * sum(1 / j for j in range(8 - k + 1, 9))
    error = np.std(rounds) / np.sqrt(len(rounds))
    assert np.mean(rounds) == pytest.approx(expected, abs=4 * error)
    assert error < 0.03 * expected


# ---- the parameter server ----


@pytest.mark.parametrize("kind", ["hiccups", "pareto"])
@pytest.mark.parametrize("workers", [1, 3, 7])
def test_a_bound_of_zero_is_synchronous_training(kind, workers):
    """eq-part-of-gradient once more: the serial run and data-parallel ranks, to 1e-12, uneven parts."""
    X, y, *_ = load_digits()
    X, y, mlp = X[:144].astype(float), y[:144], MLP((64, 16, 10))
    theta = mlp.init(0, np.float64)
    options = {"optimizer": SGD(0.1), "epochs": 3, "batch_size": 10, "rng": 3}  # the last batch has 4
    serial, _ = fit(mlp, theta, X, y, **options)
    shares = gradient_of_shares(mlp, X, y, workers=workers, batch_size=10, rng=3)
    server = parameter_server(Cluster(workers, BUSY[kind], seed=1), theta, shares, learning_rate=0.1, bound=0)
    *_, last = islice(server, 3 * 15 * workers)
    np.testing.assert_allclose(last.theta, serial, rtol=0, atol=1e-12)
    ranks, _ = run_ranks(workers, train, mlp, theta, X, y, **options)[0]
    np.testing.assert_allclose(last.theta, ranks, rtol=0, atol=1e-12)
    assert np.abs(serial - theta).max() > 0.05


def test_each_gradient_is_applied_to_a_later_theta_than_it_was_computed_at():
    """eq-stale-step, replayed from the record: θ(t+1) = θ(t) - η damping(τ) g(θ(t - τ))."""

    def gradient(theta, worker, clock):
        return 0.5 * theta + np.sin(worker + 3 * clock)

    def damping(tau):
        return 1 / max(tau, 1)

    applied, theta = run(BUSY["slow"], 300, gradient=gradient, rate=0.1, damping=damping, start=2.0, bound=5)
    history = [np.full(1, 2.0)]
    for t, a in enumerate(applied):
        stale = history[t - a.staleness]
        history.append(history[t] - 0.1 * damping(a.staleness) * gradient(stale, a.worker, a.clock))
    np.testing.assert_allclose(history[-1], theta, rtol=0, atol=1e-12)
    for worker in range(4):
        clocks = [a.clock for a in applied if a.worker == worker]
        assert clocks == list(range(len(clocks)))


@every_kind
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_mean_staleness_is_one_less_than_the_workers(kind, workers):
    """eq-mean-staleness: Σ (τ + 1) = p T, up to the p gradients that are on their way at the end."""
    n = 2000
    applied, _ = run(BUSY[kind], n, workers=workers)
    total = sum(a.staleness + 1 for a in applied)
    last_read = {a.worker: t + 1 for t, a in enumerate(applied)}  # version that each is at work on now
    on_the_way = sum(n - last_read.get(worker, 0) for worker in range(workers))
    assert total + on_the_way == workers * n
    if kind != "pareto":  # where a single task may be on its way for as long as all others together
        assert total / n - 1 == pytest.approx(workers - 1, rel=0.05, abs=1e-12)


def test_staleness_of_steady_and_of_exponential_workers():
    """p - 1 always, and geometric: the next to deliver is each of p with the same chance."""
    steadily, _ = run(steady(1.0), 100)
    assert [a.staleness for a in steadily] == [0, 1, 2] + [3] * 97
    at_random, _ = run(exponential(1.0), 12_000)
    tau = np.array([a.staleness for a in at_random[100:]])
    for k in range(8):
        assert np.mean(tau == k) == pytest.approx(1 / 4 * (3 / 4) ** k, abs=0.015)


@every_kind
@pytest.mark.parametrize("s", [0, 1, 3])
def test_nobody_begins_more_than_the_bound_ahead(kind, s):
    """eq-staleness-bound: τ ≤ (2s + 1)(p - 1), and clocks at the begin of a task at most s apart."""
    began = []

    def gradient(theta, worker, clock):
        began.append((worker, clock))
        return np.zeros_like(theta)

    applied, _ = run(BUSY[kind], 3000, bound=s, gradient=gradient)
    assert max(a.staleness for a in applied) <= (2 * s + 1) * 3
    clocks = np.zeros(4, int)
    for a in applied:
        assert a.clock == clocks[a.worker] <= clocks.min() + s
        clocks[a.worker] += 1
    assert np.ptp(clocks) <= s + 1
    assert len(began) <= 3000 + 4


def test_the_bound_on_staleness_is_reached():
    """(2s + 1)(p - 1) cannot be improved: two workers, s = 1, and durations that make it happen."""
    scripts = {0: iter([1.0, 1.0, 8.0, *[1.0] * 99]), 1: iter([2.5, 1.0, 1.0, 1.0, *[1.0] * 99])}
    applied, _ = run(lambda worker, rng: next(scripts[worker]), 30, workers=2, bound=1)
    assert max(a.staleness for a in applied) == 3


@pytest.mark.parametrize("tau", [0, 1, 2, 10])
def test_where_constant_delay_becomes_unstable(tau):
    """eq-delay-limit: by the roots of its polynomial, and by p = τ + 1 workers in turn; eq-on-the-circle."""
    angle = np.linspace(0.01, np.pi, 50)
    z = np.exp(1j * angle)
    on_the_circle = 2 * np.sin(angle / 2) * np.exp(0.5j * ((2 * tau + 1) * angle - np.pi))
    np.testing.assert_allclose(on_the_circle, z**tau * (1 - z), rtol=0, atol=1e-12)
    limit = 2 * np.sin(np.pi / (2 * (2 * tau + 1)))
    for factor, stable in ((0.97, True), (1.03, False)):
        polynomial = np.zeros(tau + 2)
        polynomial[0], polynomial[1] = 1, -1
        polynomial[-1] += factor * limit  # z^(τ+1) - z^τ + ηλ
        assert bool(np.abs(np.roots(polynomial)).max() < 1) is stable
        _, theta = run(
            steady(1.0),
            600 * (tau + 1),
            workers=tau + 1,
            gradient=lambda t, w, c: 5 * t,
            rate=factor * limit / 5,
        )
        assert bool(abs(theta[0]) < 1e-3) is stable
        assert bool(abs(theta[0]) > 1e3) is not stable


# ---- bad input ----


@pytest.mark.parametrize(
    ("error", "words", "make"),
    [
        (ValueError, "workers must be", lambda: Cluster(0, steady(1.0))),
        (TypeError, "duration must be a function", lambda: Cluster(2, 1.0)),
        (ValueError, "latency must be", lambda: Cluster(2, steady(1.0), latency=-1)),
        (ValueError, "seconds must be", lambda: steady(0.0)),
        (ValueError, r"mean\[1\] must be", lambda: exponential([1.0, -2.0])),
        (ValueError, "seconds must have an entry for worker 1", lambda: Cluster(2, steady([1.0])).start(1)),
        (ValueError, "shape must be", lambda: pareto(1.0, 1.0)),
        (ValueError, "chance must be", lambda: straggler(steady(1.0), 2, chance=1.5)),
        (ValueError, "worker must be an idle one", lambda: Cluster(2, steady(1.0)).start(2)),
        (ValueError, "worker must be a busy one", lambda: Cluster(2, steady(1.0)).cancel(0)),
        (ValueError, "duration must be", lambda: Cluster(1, lambda w, rng: -1.0).start(0)),
        (ValueError, "work must be", lambda: Cluster(1, steady(1.0)).start(0, work=0)),
        (ValueError, "bound must be", lambda: run(steady(1.0), 1, bound=-1)),
        (ValueError, "learning_rate must be", lambda: run(steady(1.0), 1, rate=0)),
        (
            ValueError,
            r"gradient must return .* \(1,\)",
            lambda: run(steady(1.0), 1, gradient=lambda t, w, c: 0),
        ),
        (
            FloatingPointError,
            "no longer finite",
            lambda: run(steady(1.0), 400, gradient=lambda t, w, c: -1e9 * t),
        ),
        (TypeError, "theta must be", lambda: next(parameter_server(None, [1.0], zero, learning_rate=1))),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_what_is_refused(error, words, make):
    with pytest.raises(error, match=words):
        make()


def test_a_cluster_at_work_is_refused():
    cluster = Cluster(2, steady(1.0))
    cluster.start(1)
    with pytest.raises(ValueError, match=r"cluster must have idle workers only, got \[1\]"):
        next(parameter_server(cluster, np.ones(1), zero, learning_rate=1))
    with pytest.raises(ValueError, match=r"idle one, of \[0\], got 1"):
        cluster.start(1)
