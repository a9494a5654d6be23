"""The clients' updates of one round, computed here or in processes, one of which may die."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from nnbrain.federated.algorithms import Algorithm, State, Update
from nnbrain.federated.clients import Client, Memory


class Task(NamedTuple):
    """Which client is to compute its update, and what it kept from the last time."""

    client: int
    memory: Memory


UpdateAll = Callable[[State, Sequence[Task], int], list[Update]]
SELECTION, UPDATE = 0, 1  # each purpose has random numbers of its own


def generator(seed: int, *key: int) -> np.random.Generator:
    """Return the generator for one purpose, round and client: independent of all others' of the seed."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


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

    def start() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(workers, get_context("spawn"), _start, (algorithm, clients, seed))

    others = set(active_children())
    pool = start()

    def update_all(state: State, tasks: Sequence[Task], number: int) -> list[Update]:
        nonlocal pool
        shares = _shares(tasks, clients, workers)
        for _ in range(2):
            unfinished = {task.client for task in tasks}
            updates: dict[int, Update] = {}
            try:
                for future in [pool.submit(_work, state, share, number) for share in shares]:
                    updates |= {update.client: update for update in future.result()}
                    unfinished -= set(updates)
                return [updates[task.client] for task in tasks]
            except BrokenProcessPool:
                # The pool has ended its processes, but overlooks one that was just being started, and would
                # wait for it in vain.
                for process in set(active_children()) - others:
                    process.kill()
                pool.shutdown(cancel_futures=True)
                pool = start()
        raise RuntimeError(
            f"a worker process died twice in round {number}; clients not finished: {sorted(unfinished)}"
        )

    try:
        yield update_all
    finally:
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
        try:
            updates.append(algorithm.client_update(state, client, generator(seed, UPDATE, number, client.id)))
        except Exception as error:
            error.add_note(f"raised by client {client.id} in round {number}")
            raise
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


_worker: tuple[Algorithm, Mapping[int, Client], int]  # set in a worker process only, when it starts


def _start(algorithm: Algorithm, clients: Mapping[int, Client], seed: int) -> None:
    global _worker
    _worker = algorithm, clients, seed
    threadpool_limits(limits=1, user_api="blas")


def _work(state: State, tasks: Sequence[Task], number: int) -> list[Update]:
    return _compute(*_worker, state, tasks, number)
