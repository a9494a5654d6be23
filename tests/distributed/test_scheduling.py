"""Dividing work and serving arrivals: brute force, bounds and formulas of queueing."""

from collections import deque
from itertools import pairwise, product

import numpy as np
import pytest

from nnbrain.distributed import Cluster, exponential, fair_shares, serve, steady, work_off


def finished(queues, duration, work=None, **options):
    return list(work_off(Cluster(len(queues), duration, **options), queues, work))


def makespan(queues, duration, work=None, **options):
    return finished(queues, duration, work, **options)[-1].time


def pulled(tasks, workers):
    return [deque(tasks)] * workers


@pytest.mark.parametrize("dynamic", [True, False])
def test_each_task_is_done_once(dynamic):
    tasks = range(40)
    queues = pulled(tasks, 3) if dynamic else [deque(part) for part in np.array_split(tasks, 3)]
    done = finished(queues, exponential([1.0, 2.0, 5.0]), latency=0.1)
    assert sorted(d.task for d in done) == list(tasks)
    for worker in range(3):
        mine = [d for d in done if d.worker == worker]
        assert all(a.time == b.started for a, b in pairwise(mine))  # one after the other, no gaps
    if not dynamic:
        assert [sum(d.worker == w for d in done) for w in range(3)] == [14, 13, 13]


@pytest.mark.parametrize("seconds", [(1.0, 1.0, 1.0), (1.0, 2.0, 5.0), (0.3, 0.7, 1.9)])
@pytest.mark.parametrize("n", [0, 1, 7, 12])
def test_fair_shares_against_all_divisions(n, seconds):
    """eq-fair-shares: no division of n equal tasks ends earlier; and no work is done faster than by all."""
    shares = fair_shares(n, seconds)
    ours = max(k * d for k, d in zip(shares, seconds, strict=True))
    best = min(
        max(k * d for k, d in zip(division, seconds, strict=True))
        for division in product(range(n + 1), repeat=3)
        if sum(division) == n
    )
    assert sum(shares) == n
    assert ours == pytest.approx(best, abs=1e-12)
    assert n / sum(1 / d for d in seconds) <= ours + 1e-12
    if n:
        assert makespan([deque([None] * k) for k in shares], steady(seconds)) == pytest.approx(ours)


@pytest.mark.parametrize("seed", range(20))
def test_pulling_ends_at_most_one_task_after_the_best(seed):
    """eq-pull-bound: T ≤ T* + max d, for uneven workers and equal tasks."""
    rng = np.random.default_rng(seed)
    seconds = rng.uniform(0.5, 5, rng.integers(1, 6))
    n = int(rng.integers(1, 40))
    best = max(k * d for k, d in zip(fair_shares(n, seconds), seconds, strict=True))
    assert (
        best <= makespan(pulled(range(n), len(seconds)), steady(seconds)) + 1e-9 <= best + max(seconds) + 2e-9
    )


def best_makespan(sizes, p):
    return min(
        max(sum(c for c, w in zip(sizes, who, strict=True) if w == r) for r in range(p))
        for who in product(range(p), repeat=len(sizes))
    )


@pytest.mark.parametrize("seed", range(12))
def test_graham_s_bound(seed):
    """eq-graham: T ≤ Σc/p + (1 - 1/p) max c ≤ (2 - 1/p) T*, by brute force."""
    rng = np.random.default_rng(seed)
    p, sizes = int(rng.integers(2, 4)), rng.uniform(0.1, 4, 8)
    ours = makespan(pulled(range(8), p), steady(1.0), sizes.__getitem__)
    best = best_makespan(sizes, p)
    bound = sizes.sum() / p + (1 - 1 / p) * sizes.max()
    assert best - 1e-9 <= ours <= bound + 1e-9 <= (2 - 1 / p) * best + 2e-9


@pytest.mark.parametrize("p", [2, 3, 6])
def test_graham_s_bound_is_reached(p):
    """p(p - 1) tasks of size 1 and then one of size p: 2p - 1 against p."""
    sizes = [1] * (p * (p - 1)) + [p]
    assert makespan(pulled(range(len(sizes)), p), steady(1.0), sizes.__getitem__) == 2 * p - 1
    assert makespan(pulled(range(len(sizes)), p), steady(1.0), sizes[::-1].__getitem__) == p


# ---- serving ----


def latencies(arrivals, seconds, **options):
    waits, sojourns, at = [], [], 0
    for s in serve(arrivals, seconds, **options):
        assert s.first == at
        at += s.size
        waits.extend(s.begun - arrivals[s.first : at])
        sojourns.extend(s.finished - arrivals[s.first : at])
    assert at == len(arrivals)
    return np.array(waits), np.array(sojourns)


@pytest.mark.parametrize("load", [0.3, 0.7])
@pytest.mark.parametrize("service", ["constant", "exponential"])
def test_mean_wait_for_one_server(load, service):
    """eq-queue-wait: a E[S²] / (2 (1 - a E[S])), with M/D/1 and M/M/1, and against Lindley's recursion."""
    rng, draws = np.random.default_rng(3), np.random.default_rng(4)
    n = 30_000
    times = np.full(n, 1.0) if service == "constant" else draws.exponential(1.0, n)
    arrivals = np.cumsum(rng.exponential(1 / load, n))
    left = iter(times)
    waits, _ = latencies(arrivals, lambda size: next(left))
    second_moment = 1.0 if service == "constant" else 2.0
    expected = load * second_moment / (2 * (1 - load))
    assert np.mean(waits) == pytest.approx(expected, rel=0.1)
    lindley = np.zeros(2000)
    for i in range(1999):
        lindley[i + 1] = max(0.0, lindley[i] + times[i] - (arrivals[i + 1] - arrivals[i]))
    np.testing.assert_allclose(waits[:2000], lindley, rtol=0, atol=1e-8)


def test_batches_by_hand():
    arrivals = [0.0, 0.1, 0.2, 5.0, 5.1, 9.0]
    greedy = [tuple(s) for s in serve(arrivals, lambda size: 1.0 * size, largest=2)]
    assert greedy == [(0, 1, 0, 1), (1, 3, 1, 2), (5, 6, 3, 1), (6, 7, 4, 1), (9, 10, 5, 1)]
    full = [tuple(s) for s in serve(arrivals, lambda size: 1.0, smallest=4, largest=4)]
    assert full == [(5.0, 6.0, 0, 4), (9.0, 10.0, 4, 2)]  # the last two know that nobody else will come


def test_waiting_for_a_full_batch():
    """Where the server is never busy, the mean wait is that for the batch to fill: (b - 1) / 2a."""
    rng = np.random.default_rng(0)
    arrivals = np.cumsum(rng.exponential(0.1, 20_000))
    for b in (1, 4, 8):
        waits, _ = latencies(arrivals, lambda size: 0.0, smallest=b, largest=b)
        assert np.mean(waits) == pytest.approx((b - 1) / 2 * 0.1, rel=0.03, abs=1e-12)


@pytest.mark.parametrize(
    ("error", "words", "make"),
    [
        (ValueError, "queues must be one for each of 3", lambda: next(work_off(Cluster(3, steady(1.0)), []))),
        (ValueError, "n must be", lambda: fair_shares(-1, [1.0])),
        (ValueError, "seconds must have at least one", lambda: fair_shares(1, [])),
        (ValueError, r"seconds\[1\] must be", lambda: fair_shares(1, [1.0, 0.0])),
        (ValueError, "increasing order", lambda: next(serve([1.0, 0.5], float))),
        (ValueError, "arrivals must be finite", lambda: next(serve([np.nan], float))),
        (
            ValueError,
            "largest must be an integer >= 3",
            lambda: next(serve([1.0], float, smallest=3, largest=2)),
        ),
        (ValueError, "seconds must be", lambda: next(serve([1.0], lambda size: -1.0))),
    ],
)
def test_what_is_refused(error, words, make):
    with pytest.raises(error, match=words):
        make()
