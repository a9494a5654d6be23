"""The clients' updates of one round, computed here or in processes, one of which may die."""

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from threadpoolctl import threadpool_limits

from nnbrain.federated.algorithms import Algorithm, State, Update
from nnbrain.federated.clients import Client, Memory
from nnbrain.federated.randomness import UPDATE, generator
from nnbrain.federated.rounds import noting


class Task(NamedTuple):
    """Which client is to compute its update, and what it kept from the last time."""

    client: int
    memory: Memory


UpdateAll = Callable[[State, Sequence[Task], int], list[Update]]
Setting = tuple[Algorithm, Mapping[int, Client], int]  # the last is the seed


@contextmanager
def updater(
    algorithm: Algorithm, clients: Mapping[int, Client], seed: int, workers: int
) -> Iterator[UpdateAll]:
    """Give a function that takes the state, a round's tasks and its number, and returns the updates.

    BLAS has one thread here and there: its results depend on their number, and processes that share cores
    are faster so. If a process dies, new ones compute the round again; if one dies again in the same round,
    a RuntimeError names the clients that were not finished.
    """
    if workers == 1:
        yield lambda state, tasks, number: _compute(algorithm, clients, seed, state, tasks, number)
        return
    with TemporaryDirectory(prefix="nnbrain-") as folder:
        # In a file, of which processes are told the name: what they are given when they start goes through
        # a pipe, and to fill the pipe of one that is dead already takes for ever.
        path = Path(folder) / "setting"
        with path.open("wb") as file:
            pickle.dump((algorithm, clients, seed), file)
        pool = _new_pool(workers)

        def update_all(state: State, tasks: Sequence[Task], number: int) -> list[Update]:
            nonlocal pool
            shares = _shares(tasks, clients, workers)
            for _ in range(2):
                unfinished = {task.client for task in tasks}
                updates: dict[int, Update] = {}
                try:
                    for future in [pool.submit(_work, path, state, share, number) for share in shares]:
                        updates |= {update.client: update for update in future.result()}
                        unfinished -= set(updates)
                    return [updates[task.client] for task in tasks]
                except BrokenProcessPool:
                    _end(pool)
                    pool = _new_pool(workers)
            raise RuntimeError(
                f"a worker process died twice in round {number}; clients not finished: {sorted(unfinished)}. "
                "If it died at its start: does the script call simulate under "
                'if __name__ == "__main__", and are its classes in a module?'
            )

        try:
            yield update_all
        finally:
            pool.shutdown(cancel_futures=True)


def _new_pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, get_context("spawn"))


def _end(pool: ProcessPoolExecutor) -> None:
    """Shut a broken pool down, which by itself may wait for ever.

    It ends its processes when it breaks, but overlooks one that is just being started. No public name says
    which processes are the pool's; where the private one is missing, none is killed here.
    """
    for process in list(getattr(pool, "_processes", {}).values()):
        process.kill()
    pool.shutdown(cancel_futures=True)


def _compute(
    algorithm: Algorithm,
    clients: Mapping[int, Client],
    seed: int,
    state: State,
    tasks: Sequence[Task],
    number: int,
) -> list[Update]:
    updates = []
    for task in tasks:
        client = clients[task.client].with_memory(task.memory)
        with noting(f"raised by client {client.id} in round {number}"):
            updates.append(algorithm.client_update(state, client, generator(seed, UPDATE, number, client.id)))
    return updates


def _shares(tasks: Sequence[Task], clients: Mapping[int, Client], workers: int) -> list[list[Task]]:
    """Deal the tasks out, the largest first, each to the worker that has the fewest samples so far."""
    shares: list[list[Task]] = [[] for _ in range(min(workers, len(tasks)))]
    load = [0] * len(shares)
    for task in sorted(tasks, key=lambda task: -clients[task.client].n_samples):
        least = load.index(min(load))
        shares[least].append(task)
        load[least] += clients[task.client].n_samples
    return shares


# ---- in a worker process ----


@cache
def _load(path: Path) -> Setting:
    threadpool_limits(limits=1, user_api="blas")
    note = "raised when a worker process read the algorithm and the clients: are their classes in a module?"
    with noting(note), path.open("rb") as file:
        setting: Setting = pickle.load(file)
    return setting


def _work(path: Path, state: State, tasks: Sequence[Task], number: int) -> list[Update]:
    try:
        return _compute(*_load(path), state, tasks, number)
    except Exception as error:
        raise _portable(error) from None


def _portable(error: Exception) -> Exception:
    """Return the error or, if it would not survive the way to the caller, another that tells of it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        notes = getattr(error, "__notes__", [])
        return RuntimeError("; ".join([f"{type(error).__qualname__}: {error}", *notes]))
    return error
