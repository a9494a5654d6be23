"""Not waiting: a cluster in virtual time, and a parameter server that applies gradients as they come.

Time is a number that jumps from one completion to the next; nothing sleeps and no clock is read, so the
same seed gives the same run.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats, Seed

Duration = Callable[[int, np.random.Generator], float]
Gradient = Callable[[Floats, int, int], Floats]


class Finished(NamedTuple):
    """A worker has finished a task: when (in virtual seconds), who, since when, and the task itself."""

    time: float
    worker: int
    started: float
    task: Any


class Cluster:
    """Workers 0..workers-1, busy or idle, in virtual time.

    Iterating over a cluster takes it from one completion to the next, in the order of their times, until
    all workers are idle; equal times come in the order in which the tasks were started. Whoever iterates
    decides what a completion means, and may start new tasks before asking for the next one.

    Parameters
    ----------
    workers : int
    duration : callable
        ``duration(worker, rng)`` is the time in seconds, above 0, that the worker needs for a task of
        work 1. Ready-made: `steady`, `exponential`, `pareto`, `straggler`.
    latency : float
        Seconds that every task costs besides, whatever its work: for fetching it and handing in the
        result.
    seed : int or Generator
        Each worker draws from a generator of its own, so the times of its first, second, … task do not
        depend on what the others do or on who waits for whom.

    Attributes
    ----------
    now : float
        Time of the last completion.
    busy : set of int
        Workers that have a task.

    Raises
    ------
    TypeError, ValueError
        If an argument, or a duration when it is drawn, is out of its range.

    Examples
    --------
    >>> cluster = Cluster(2, steady([1.0, 2.5]))
    >>> for worker in range(2):
    ...     cluster.start(worker, task="first")
    >>> for done in cluster:
    ...     print(done.time, done.worker, done.task)
    ...     if done.time < 2:
    ...         cluster.start(done.worker, task="another")
    1.0 0 first
    2.0 0 another
    2.5 1 first
    """

    def __init__(self, workers: int, duration: Duration, *, latency: float = 0.0, seed: Seed = 0) -> None:
        self.workers = checks.integer("workers", workers)
        if not callable(duration):
            raise TypeError(f"duration must be a function of a worker and a generator, got {duration!r}")
        self.latency = checks.number("latency", latency, minimum=0)
        self.now = 0.0
        self.busy: set[int] = set()
        self._duration = duration
        self._rngs = checks.generator("seed", seed).spawn(workers)
        self._running: list[tuple[float, int, Finished]] = []  # a heap: the next to finish is first
        self._tickets = count()

    def start(self, worker: int, task: Any = None, work: float = 1.0) -> None:
        """Give an idle worker a task that is `work` (above 0) times a task of work 1."""
        if worker not in range(self.workers) or worker in self.busy:
            idle = sorted(set(range(self.workers)) - self.busy)
            raise ValueError(f"worker must be an idle one, of {idle}, got {worker}")
        checks.number("work", work, above=0)
        drawn = self._duration(worker, self._rngs[worker])
        seconds = checks.number("duration", drawn, above=0)
        end = self.now + self.latency + work * seconds
        done = Finished(end, worker, self.now, task)
        heapq.heappush(self._running, (end, next(self._tickets), done))
        self.busy.add(worker)

    def cancel(self, worker: int) -> None:
        """Take a busy worker's task away: it is idle again, and the task will not be finished."""
        if worker not in self.busy:
            raise ValueError(f"worker must be a busy one, of {sorted(self.busy)}, got {worker}")
        self._running = [entry for entry in self._running if entry[2].worker != worker]
        heapq.heapify(self._running)
        self.busy.remove(worker)

    def __iter__(self) -> Iterator[Finished]:
        return self

    def __next__(self) -> Finished:
        if not self._running:
            raise StopIteration
        self.now, _, done = heapq.heappop(self._running)
        self.busy.remove(done.worker)
        return done


def steady(seconds: float | Sequence[float]) -> Duration:
    """Return a duration that is always the same: one number for all workers, or one for each."""
    of = _per_worker("seconds", seconds)
    return lambda worker, rng: of(worker)


def exponential(mean: float | Sequence[float]) -> Duration:
    """Return exponentially distributed durations: how long one has run says nothing about the rest."""
    of = _per_worker("mean", mean)
    return lambda worker, rng: of(worker) * rng.exponential()


def pareto(mean: float | Sequence[float], shape: float = 2.0) -> Duration:
    """Return durations with a heavy tail: longer than t with a probability in proportion to t^-shape.

    The shortest is ``mean * (shape - 1) / shape``; `shape` is above 1, and up to 2 the variance is
    infinite.
    """
    of = _per_worker("mean", mean)
    checks.number("shape", shape, above=1)
    return lambda worker, rng: of(worker) * (shape - 1) / shape * (1 + rng.pareto(shape))


def straggler(
    usual: Duration, factor: float, chance: float = 1.0, workers: Sequence[int] | None = None
) -> Duration:
    """Return the `usual` durations, some of them `factor` times as long.

    Each task is slowed with probability `chance`; where `workers` are given, only theirs are.
    """
    checks.number("factor", factor, above=0)
    checks.number("chance", chance, minimum=0, maximum=1)

    def duration(worker: int, rng: np.random.Generator) -> float:
        seconds, slow = usual(worker, rng), rng.random() < chance
        return seconds * factor if slow and (workers is None or worker in workers) else seconds

    return duration


def _per_worker(name: str, seconds: float | Sequence[float]) -> Callable[[int], float]:
    if isinstance(seconds, Sequence | np.ndarray):
        each = [checks.number(f"{name}[{i}]", value, above=0) for i, value in enumerate(seconds)]

        def of(worker: int) -> float:
            if worker >= len(each):
                raise ValueError(f"{name} must have an entry for worker {worker}, got {len(each)} entries")
            return each[worker]

        return of
    value = checks.number(name, seconds, above=0)
    return lambda worker: value


class Applied(NamedTuple):
    """A gradient that the server has applied: when, whose, and since when it was being computed.

    `clock` is how many gradients the worker had delivered before this one; `staleness`, how many (of
    anybody) were applied between its reading of θ and this. `theta` is the server's own vector, which
    moves on: copy what you keep.
    """

    time: float
    worker: int
    started: float
    clock: int
    staleness: int
    theta: Floats


def parameter_server(
    cluster: Cluster,
    theta: Floats,
    gradient: Gradient,
    *,
    learning_rate: float,
    bound: int | None = None,
    damping: Callable[[int], float] | None = None,
) -> Iterator[Applied]:
    """Train without end: apply each gradient the moment it arrives, and yield what was applied.

    A worker reads θ, computes a gradient for the time that the cluster says, delivers it, and reads
    again. It has to wait only while it has delivered more than `bound` gradients more than the slowest.

    Parameters
    ----------
    cluster : Cluster
        All of its workers must be idle.
    theta : array (n,)
        Where to start; not changed.
    gradient : callable
        ``gradient(theta, worker, clock)`` is the vector (n,) that the worker delivers for its task number
        `clock`, from 0. It must not change theta. See `gradient_of_shares`.
    learning_rate : float
        η: θ ← θ - η damping(staleness) gradient.
    bound : int, optional
        s of stale synchronous parallel training; 0 makes all workers wait for all, and None nobody.
    damping : callable, optional
        Factor of the step as a function of its staleness; 1 by default.

    Yields
    ------
    Applied
        In the order of their times.

    Raises
    ------
    TypeError, ValueError
        With the first step: if an argument is out of range, or a gradient is not of θ's shape.
    FloatingPointError
        If θ becomes NaN or infinite: the steps were too large, for gradients so stale.

    Notes
    -----
    The bound: Ho et al. (2013). A step divided by the staleness, ``damping=lambda tau: 1 / max(tau, 1)``:
    Zhang et al. (2016).
    """
    theta = checks.theta(theta, np.size(theta)).copy()
    _check_settings(cluster, learning_rate, bound)
    clocks, version = [0] * cluster.workers, 0
    while True:
        for worker in sorted(set(range(cluster.workers)) - cluster.busy):
            if bound is None or clocks[worker] - min(clocks) <= bound:
                # known at once, but delivered when the worker's time has passed
                grad = _checked(gradient(theta, worker, clocks[worker]), theta)
                cluster.start(worker, task=(version, grad))
        done = next(cluster)
        read, grad = done.task
        staleness, clock = version - read, clocks[done.worker]
        theta -= learning_rate * (damping(staleness) if damping else 1.0) * grad
        _check_finite(theta)
        version += 1
        clocks[done.worker] += 1
        yield Applied(*done[:3], clock, staleness, theta)


def _check_settings(cluster: Cluster, learning_rate: float, bound: int | None) -> None:
    checks.number("learning_rate", learning_rate, above=0)
    if bound is not None:
        checks.integer("bound", bound, minimum=0)
    if cluster.busy:
        raise ValueError(f"cluster must have idle workers only, got {sorted(cluster.busy)} at work")


def _check_finite(theta: Floats) -> None:
    if not np.all(np.isfinite(theta)):
        raise FloatingPointError("theta is no longer finite; try a smaller learning_rate, or a bound")


def _checked(grad: npt.ArrayLike, theta: Floats) -> Floats:
    copy: Floats = np.array(grad, theta.dtype)  # a copy: it must not change with θ until it is applied
    if copy.shape != theta.shape:
        raise ValueError(f"gradient must return a vector of shape {theta.shape}, got {copy.shape}")
    return copy
