"""Dividing work among uneven workers, and serving what arrives, in virtual time."""

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.distributed.asynchrony import Cluster, Finished


def work_off(
    cluster: Cluster,
    queues: Sequence[deque[Any]],
    work: Callable[[Any], float] | None = None,
) -> Iterator[Finished]:
    """Let each worker take the first task of its queue whenever it is idle; yield what gets finished.

    Queues of their own are a *static* division of the job: who is done early goes home. One queue given
    to all is a *dynamic* one: who is done early takes more.

    Parameters
    ----------
    cluster : Cluster
        Its workers must be idle.
    queues : sequence of deque
        One for each worker, perhaps the same; they are emptied.
    work : callable, optional
        Size of a task, in units of the cluster's duration; 1 by default.

    Yields
    ------
    Finished
        In the order of time. Every task of every queue once; the last one's time is the *makespan*.

    Raises
    ------
    ValueError
        With the first task: if there is not one queue for each worker.
    """
    p = cluster.workers
    if len(queues) != p:
        raise ValueError(f"queues must be one for each of {p} workers, got {len(queues)}")

    def take(worker: int) -> None:
        if queues[worker]:
            task = queues[worker].popleft()
            cluster.start(worker, task, 1.0 if work is None else work(task))

    for worker in range(p):
        take(worker)
    for done in cluster:
        yield done
        take(done.worker)


def fair_shares(n: int, seconds: Sequence[float]) -> list[int]:
    """Return how many of n equal tasks each worker should do for all to be done as soon as possible.

    Each task goes to whoever would be done with it first. No division ends earlier, provided that worker r
    does need ``seconds[r]`` for a task.

    Raises
    ------
    TypeError, ValueError
        If n is negative, or there are no workers, or one does not need more than 0 seconds.
    """
    checks.integer("n", n, minimum=0)
    if len(seconds) == 0:
        raise ValueError("seconds must have at least one entry, one a worker, got none")
    for i, value in enumerate(seconds):
        checks.number(f"seconds[{i}]", value, above=0)
    shares = [0] * len(seconds)
    ends = [(value, worker) for worker, value in enumerate(seconds)]  # were it given one task more
    heapq.heapify(ends)
    for _ in range(n):
        _, worker = ends[0]
        shares[worker] += 1
        heapq.heapreplace(ends, ((shares[worker] + 1) * seconds[worker], worker))
    return shares


class Served(NamedTuple):
    """Arrivals first .. first + size - 1 were served together, from `begun` to `finished`."""

    begun: float
    finished: float
    first: int
    size: int


def serve(
    arrivals: npt.ArrayLike, seconds: Callable[[int], float], *, smallest: int = 1, largest: int = 1
) -> Iterator[Served]:
    """Serve arrivals in their order, by one server, in batches; yield each batch when it is served.

    The server begins as soon as it is free and `smallest` are waiting, or fewer if no more will come; it
    takes all that wait by then, but at most `largest`.

    Parameters
    ----------
    arrivals : array (n,)
        Times of arrival in seconds, none before the one that precedes it.
    seconds : callable
        Time that a batch of a given size takes, at least 0.
    smallest, largest : int
        1 <= smallest <= largest.

    Yields
    ------
    Served
        Each arrival is in one of them. The latency of arrival i is ``finished - arrivals[i]``.

    Raises
    ------
    TypeError, ValueError
        With the first batch: if an argument is out of its range.
    """
    times = checks.floats("arrivals", arrivals)
    if times.ndim != 1 or np.any(np.diff(times) < 0):
        raise ValueError("arrivals must be one row of times in increasing order")
    checks.integer("smallest", smallest)
    checks.integer("largest", largest, minimum=smallest)
    free, first = -np.inf, 0
    while first < len(times):
        begun = max(free, float(times[min(first + smallest, len(times)) - 1]))
        waiting = int(np.searchsorted(times, begun, side="right")) - first
        size = min(waiting, largest)
        free = begun + checks.number("seconds", seconds(size), minimum=0)
        yield Served(begun, free, first, size)
        first += size
