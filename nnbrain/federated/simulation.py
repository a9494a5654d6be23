"""The round loop: synchronise, update, fuse, as many times as asked."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.federated.algorithms import Algorithm, State, Update
from nnbrain.federated.clients import Client

Metrics = dict[str, float]
UpdateAll = Callable[[State, Sequence[Client], int], list[Update]]


@dataclass(frozen=True)
class Round:
    """What one round did: its number from 1, who took part, and the metrics measured after it.

    The metric "loss" is the mean of the clients' local losses, weighted by their samples.
    """

    number: int
    clients: list[int]
    metrics: Metrics = field(default_factory=dict)


def simulate(
    algorithm: Algorithm,
    clients: Sequence[Client],
    theta: Floats,
    *,
    rounds: int,
    client_fraction: float = 1.0,
    seed: int = 0,
    workers: int = 1,
    evaluate: Callable[[Floats], Metrics] | None = None,
    progress: bool = False,
) -> tuple[Floats, list[Round]]:
    """Return θ after some rounds of federated training, and the history of the rounds.

    Parameters
    ----------
    algorithm : Algorithm
        For example `FedAvg`.
    clients : sequence of Client
    theta : array (mlp.size,)
        Where to start; not changed. Data are computed on in its type.
    rounds : int
    client_fraction : float
        C in (0, 1]: max(1, round(C K)) of the K clients, drawn at random, take part in a round.
    seed : int
        Of the draws and of every client's batches.
    workers : int
        Processes that compute the clients' updates. Any number gives the same bits: a client's randomness
        depends on seed, round and client only, and updates are fused in the clients' order.
    evaluate : callable, optional
        Takes θ after each round and returns named metrics for the history.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    theta : array (mlp.size,)
    history : list of Round

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or a client's data do not fit the network.
    FloatingPointError
        If θ becomes NaN or infinite: the steps were too large.

    Notes
    -----
    With several workers, a script must call this under ``if __name__ == "__main__":``, as always with
    `multiprocessing`.
    """
    checks.integer("rounds", rounds, minimum=0)
    checks.number("client_fraction", client_fraction, above=0, maximum=1)
    checks.integer("seed", seed, minimum=0)
    checks.integer("workers", workers)
    state = algorithm.init(theta)
    clients = _checked(algorithm, clients, theta)
    n_selected = max(1, round(client_fraction * len(clients)))
    history = []
    with (
        threadpool_limits(limits=1, user_api="blas"),
        _updater(algorithm, clients, seed, workers) as update_all,
    ):
        for number in tqdm(range(1, rounds + 1), desc="simulate", unit="round", disable=not progress):
            draw = _generator(seed, SELECTION, number)
            selected = np.sort(draw.choice(len(clients), n_selected, replace=False))
            updates = update_all(state, [clients[k] for k in selected], number)
            state = algorithm.server_update(state, updates)
            if not np.all(np.isfinite(state["theta"])):
                raise FloatingPointError(
                    f"theta is no longer finite in round {number}; try a smaller learning_rate"
                )
            loss = float(np.average([u.loss for u in updates], weights=[u.n_samples for u in updates]))
            metrics = {"loss": loss, **(evaluate(state["theta"].copy()) if evaluate else {})}
            history.append(Round(number, [clients[k].id for k in selected], metrics))
    return state["theta"], history


def _checked(algorithm: Algorithm, clients: Sequence[Client], theta: Floats) -> list[Client]:
    """Return the clients, their data checked once against the network and in θ's type, still shared."""
    if len(clients) == 0:
        raise ValueError("clients must be at least one, got none")
    if any(client.n_samples == 0 for client in clients):
        empty = [client.id for client in clients if client.n_samples == 0]
        raise ValueError(f"clients must have at least one sample each, got none for clients {empty}")
    ids = [client.id for client in clients]
    if len(set(ids)) < len(ids):
        raise ValueError(f"clients must have ids of their own, got {len(ids) - len(set(ids))} repeated")
    checked: dict[tuple[int, int], tuple[Floats, Floats]] = {}
    result = []
    for client in clients:
        key = id(client.X), id(client.y)
        if key not in checked:
            checked[key] = algorithm.mlp.check_data(theta, client.X, client.y)
        X, y = checked[key]
        if np.min(client.index) < 0 or np.max(client.index) >= len(X):
            raise ValueError(
                f"clients must index rows 0..{len(X) - 1} of X, got others for client {client.id}"
            )
        result.append(Client(client.id, X, y, client.index))
    return result


def _update(algorithm: Algorithm, state: State, client: Client, seed: int, number: int) -> Update:
    return algorithm.client_update(state, client, _generator(seed, UPDATE, number, client.id))


SELECTION, UPDATE = 0, 1  # each purpose has random numbers of its own


def _generator(seed: int, *key: int) -> np.random.Generator:
    """Return the generator for one purpose, round and client: independent of all others' of the seed."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@contextmanager
def _updater(algorithm: Algorithm, clients: Sequence[Client], seed: int, workers: int) -> Iterator[UpdateAll]:
    """Give a function that computes the updates of one round's clients, here or in processes.

    BLAS has one thread here and there: its results depend on their number, and processes that share cores
    are faster so.
    """
    if workers == 1:
        yield lambda state, selected, number: [
            _update(algorithm, state, client, seed, number) for client in selected
        ]
        return
    by_id = {client.id: client for client in clients}
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (algorithm, by_id, seed))
    try:
        yield lambda state, selected, number: list(
            pool.map(_worker_update, [(state, client.id, number) for client in selected])
        )
    finally:
        pool.shutdown(cancel_futures=True)


_worker: tuple[Algorithm, dict[int, Client], int]  # set in a worker process only, when it starts


def _start_worker(algorithm: Algorithm, clients: dict[int, Client], seed: int) -> None:
    global _worker
    _worker = algorithm, clients, seed
    threadpool_limits(limits=1, user_api="blas")


def _worker_update(task: tuple[State, int, int]) -> Update:
    state, client_id, number = task
    algorithm, clients, seed = _worker
    return _update(algorithm, state, clients[client_id], seed, number)
