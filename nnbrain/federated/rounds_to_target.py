"""How many rounds FedAvg takes to an accuracy: the measure of McMahan et al. (2017), one cell at a time."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from time import perf_counter

import numpy as np

from nnbrain import checks
from nnbrain.checks import Floats, Ints
from nnbrain.data import Split
from nnbrain.federated.algorithms import FedAvg
from nnbrain.federated.clients import make_clients
from nnbrain.federated.partitions import partition_iid, partition_shards
from nnbrain.federated.rounds import Metrics, Round
from nnbrain.federated.simulation import simulate
from nnbrain.mlp.network import MLP, Workspace

PARTITIONS: dict[str, Callable[[Ints, int, int], list[Ints]]] = {
    "iid": lambda y, n_clients, seed: partition_iid(len(y), n_clients, seed),
    "shards": partition_shards,
}

FARTHEST = 8  # how many times the greatest rate that was given, or what part of the least, is still tried


@dataclass(frozen=True)
class Cell:
    """A cell of the table: the federation and what its clients do.

    Parameters
    ----------
    partition : {"iid", "shards"}
    fraction : float
        C in [0, 1]; 0 is one client a round, as in the paper.
    batch_size : int or None
        B; None is ∞.
    epochs : int
        E.
    n_clients : int
    sizes : tuple of int
        Of the network.
    target : float
        The accuracy on the test data that is to be reached, in (0, 1).
    """

    partition: str = "iid"
    fraction: float = 0.1
    batch_size: int | None = 10
    epochs: int = 1
    n_clients: int = 100
    sizes: tuple[int, ...] = (784, 200, 200, 10)
    target: float = 0.97

    def __post_init__(self) -> None:
        checks.choice("partition", self.partition, PARTITIONS)
        checks.number("fraction", self.fraction, minimum=0, maximum=1)
        checks.number("target", self.target, above=0, below=1)
        checks.integer("n_clients", self.n_clients)


@dataclass(frozen=True)
class Run:
    """What came of a cell with one learning rate and one seed.

    Attributes
    ----------
    cell : Cell
    learning_rate : float
    seed : int
        Of the first weights, the partition, the selection and the batches.
    limit : int
        Rounds after which it was given up.
    rounds : float or None
        To the target, between two rounds by interpolation; None if it was not reached.
    best_accuracy : float
    diverged : bool
        Whether θ ceased to be finite.
    seconds : float
        How long it took; the part before an interruption is not in it.
    """

    cell: Cell
    learning_rate: float
    seed: int
    limit: int
    rounds: float | None
    best_accuracy: float
    diverged: bool
    seconds: float

    def settings(self) -> dict[str, object]:
        """Return all that decides about the result, the limit left out."""
        return {**asdict(self.cell), "learning_rate": self.learning_rate, "seed": self.seed}


class Curve:
    """The best accuracy so far, round by round: a learning curve that never falls.

    To know whether θ is better than the best so far, it is mostly enough to look at a part of the test data:
    the rest is left out once there are more mistakes than the best had in all. The curve is the same.
    """

    def __init__(self, mlp: MLP, theta: Floats, X: Floats, y: Ints, block: int = 500) -> None:
        self._X, self._y = mlp.check_data(theta, X, y)
        self._workspace = Workspace(mlp, theta.copy(), block)
        self._block, self._mistakes = block, len(y) + 1
        self.values = [self.evaluate(theta)["best_accuracy"]]

    def evaluate(self, theta: Floats) -> Metrics:
        """Return the best accuracy, θ's included."""
        self._workspace.theta[:] = theta
        mistakes = 0
        for start in range(0, len(self._y), self._block):
            rows = slice(start, start + self._block)
            answers = self._workspace.forward(self._X[rows]).argmax(axis=1)
            mistakes += int(np.count_nonzero(answers != self._y[rows]))
            if mistakes >= self._mistakes:
                break
        self._mistakes = min(mistakes, self._mistakes)
        return {"best_accuracy": 1 - self._mistakes / len(self._y)}

    def take_over(self, history: Sequence[Round]) -> None:
        """Add the rounds that are not in it yet, which may be those of a run that was interrupted."""
        self.values += [round.metrics["best_accuracy"] for round in history[len(self.values) - 1 :]]
        self._mistakes = min(self._mistakes, round((1 - self.values[-1]) * len(self._y)))


def rounds_to_target(curve: Sequence[float], target: float) -> float | None:
    """Return where a curve that never falls reaches `target`, between two rounds on a straight line.

    Parameters
    ----------
    curve : sequence of float
        Best accuracies after 0, 1, 2, … rounds.
    target : float

    Returns
    -------
    float or None
        None if it does not.
    """
    for number, value in enumerate(curve):
        if value >= target:
            before = curve[max(number - 1, 0)]
            return number - (value - target) / (value - before) if value > before else float(number)
    return None


def run(
    cell: Cell,
    data: Split,
    *,
    learning_rate: float,
    seed: int,
    limit: int,
    theta: Floats | None = None,
    workers: int = 1,
    checkpoint: Path | None = None,
    progress: bool = False,
) -> Run:
    """Train until the cell's target is reached, but `limit` rounds at most.

    Parameters
    ----------
    cell : Cell
    data : Split
    learning_rate : float
    seed, limit : int
    theta : array, optional
        Where to start, if not at the weights that `MLP.init` draws with the seed.
    workers, checkpoint, progress
        As for `simulate`.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range, or does not fit the data.
    """
    start = perf_counter()
    mlp = MLP(cell.sizes)
    theta = mlp.init(seed) if theta is None else theta
    parts = PARTITIONS[cell.partition](data.y_train, cell.n_clients, seed)
    curve = Curve(mlp, theta, data.X_test, data.y_test)

    def reached(history: Sequence[Round]) -> bool:
        curve.take_over(history)
        return curve.values[-1] >= cell.target

    diverged = False
    try:
        _, history = simulate(
            FedAvg(mlp, cell.epochs, cell.batch_size, learning_rate),
            make_clients(data.X_train, data.y_train, parts),
            theta,
            rounds=limit,
            client_fraction=max(cell.fraction, 1 / cell.n_clients),
            seed=seed,
            workers=workers,
            evaluate=curve.evaluate,
            stop=reached,
            checkpoint=checkpoint,
            progress=progress,
        )
        curve.take_over(history)
    except FloatingPointError:
        diverged = True
    rounds = rounds_to_target(curve.values, cell.target)
    seconds = perf_counter() - start
    return Run(cell, learning_rate, seed, limit, rounds, curve.values[-1], diverged, seconds)


def tune(
    learning_rates: Sequence[float],
    seeds: Sequence[int],
    limit: int,
    train: Callable[[float, int, int], Run],
    *,
    extend: bool = False,
) -> list[Run]:
    """Return the runs of a cell: all rates with the first seed, then the best of them with the others.

    A rate is given up when it is clear that another one is better.

    Parameters
    ----------
    learning_rates : sequence of float
        The likeliest first.
    seeds : sequence of int
    limit : int
        Rounds that a run has at most.
    train : callable
        Takes a rate, a seed and a limit.
    extend : bool
        Whether to go beyond the rates as long as the best is the least or the greatest of those tried, up to
        `FARTHEST` times.

    Raises
    ------
    ValueError
        If there is but one rate to go beyond.
    """
    runs: list[Run] = []

    def attempt(rate: float) -> None:
        allowed = min([limit, *(ceil(r.rounds) for r in runs if r.rounds is not None)])
        runs.append(train(rate, seeds[0], allowed))

    for rate in learning_rates:
        attempt(rate)
    while extend and (beyond := rate_beyond(learning_rates, runs)) is not None:
        attempt(beyond)
    best = min(runs, key=ranking).learning_rate
    return [*runs, *(train(best, seed, limit) for seed in seeds[1:])]


def rate_beyond(learning_rates: Sequence[float], runs: Sequence[Run]) -> float | None:
    """Return the rate to try after `runs`, if the best of theirs has no worse one on one of its sides.

    It goes on by the ratio of the last two, rounded to twelve digits, so that it is the number that one would
    type. None if the best lies inside, or the next would be more than `FARTHEST` times outside the
    `learning_rates` that were given.

    Raises
    ------
    ValueError
        If only one rate was tried.
    """
    tried = sorted({run.learning_rate for run in runs})
    if len(tried) < 2:
        raise ValueError(f"learning_rates must be two or more to go beyond them, got {list(learning_rates)}")
    neighbour = {tried[0]: tried[1], tried[-1]: tried[-2]}
    best = min(runs, key=ranking).learning_rate
    if best not in neighbour:
        return None
    beyond = float(f"{best * best / neighbour[best]:.12g}")
    least, greatest = min(learning_rates) / FARTHEST, FARTHEST * max(learning_rates)
    return beyond if least <= beyond <= greatest else None


def ranking(run: Run) -> tuple[float, float]:
    """Return a key by which the run that reached the target first, or else came nearest, is the smallest."""
    return (np.inf if run.rounds is None else run.rounds), -run.best_accuracy


def runs_at_best_rate(runs: Sequence[Run]) -> list[Run]:
    """Return of `tune`'s runs those with the best learning rate, one a seed."""
    best = min((r for r in runs if r.seed == runs[0].seed), key=ranking)
    return [r for r in runs if r.learning_rate == best.learning_rate]
