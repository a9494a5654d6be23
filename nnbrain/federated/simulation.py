"""The round loop: synchronise, update, fuse, as many times as asked."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from nnbrain import checks
from nnbrain.checkpoint import digest
from nnbrain.checks import Floats
from nnbrain.federated.algorithms import NOTHING, Algorithm
from nnbrain.federated.clients import Client, Memory, check_clients
from nnbrain.federated.randomness import SELECTION, generator
from nnbrain.federated.rounds import Evaluate, Federation, Round, noting, record_round
from nnbrain.federated.selection import Select, number_asked, positions, uniform
from nnbrain.federated.workers import Task, updater
from nnbrain.settings import settings_of


def simulate(
    algorithm: Algorithm,
    clients: Sequence[Client],
    theta: Floats,
    *,
    rounds: int,
    client_fraction: float = 1.0,
    seed: int = 0,
    workers: int = 1,
    select: Select = uniform,
    evaluate: Evaluate | None = None,
    memories: dict[int, Memory] | None = None,
    stop: Callable[[Sequence[Round]], bool] | None = None,
    checkpoint: str | Path | None = None,
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
        C in (0, 1]: max(1, round(C K)) of the K clients take part in a round.
    seed : int
        Of the selection and of every client's batches.
    workers : int
        Processes that compute the clients' updates. Any number gives the same bits: a client's randomness
        depends on seed, round and client only, and updates are fused in the clients' order.
    select : callable
        Who takes part: ``select(state, clients, n, rng, history)`` returns positions in `clients`, in any
        order, by default of `n` at random. It may return none, if the algorithm can do without updates, as
        `DifferentiallyPrivate` can.
    evaluate : callable, optional
        Takes θ after each round and returns named metrics for the history.
    memories : dict, optional
        Empty; filled round by round, before `evaluate` is called, with what clients have kept, by id: their
        own layers or models. It is for the experimenter: the server never sees it.
    stop : callable, optional
        Takes the rounds so far, before each round; if it returns True, there is none any more.
    checkpoint : path, optional
        A ``.npz`` file, written anew after each round. If it is there already, the run goes on from it
        and ends with the very bits that it would have ended with.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    theta : array (mlp.size,)
    history : list of Round

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, a client's data do not fit the network, `select` returns other
        than positions of different clients, or the checkpoint is damaged or of another run.
    FloatingPointError
        If θ becomes NaN or infinite: the steps were too large.
    RuntimeError
        If worker processes die again and again in one round.

    Notes
    -----
    With several workers, a script must call this under ``if __name__ == "__main__":``, as always with
    `multiprocessing`, and classes and functions of its own must be in a module that the processes can
    import: not in a notebook. An error that does not survive pickling comes as a RuntimeError that tells it.
    """
    checks.integer("rounds", rounds, minimum=0)
    checks.number("client_fraction", client_fraction, above=0, maximum=1)
    checks.integer("seed", seed, minimum=0)
    checks.integer("workers", workers)
    if memories:
        raise ValueError(f"memories must be empty, to be filled, got those of {len(memories)} clients")
    federation = Federation(algorithm.init(theta), {} if memories is None else memories)
    clients = check_clients(algorithm.mlp, clients, theta)
    n_selected = number_asked(client_fraction, len(clients))
    if checkpoint is not None:
        run = {
            "algorithm": settings_of(algorithm),
            "theta": digest(theta),
            "clients": _fingerprint(clients),
            "client_fraction": client_fraction,
            "seed": seed,
            "select": settings_of(select),
        }
        federation.resume(Path(checkpoint), run, rounds)
    by_id = {client.id: client for client in clients}
    with (
        threadpool_limits(limits=1, user_api="blas"),
        updater(algorithm, by_id, seed, workers) as update_all,
        tqdm(
            total=rounds,
            initial=len(federation.history),
            desc="simulate",
            unit="round",
            disable=not progress,
        ) as bar,
    ):
        for number in range(len(federation.history) + 1, rounds + 1):
            if stop is not None and stop(federation.history):
                break
            rng = generator(seed, SELECTION, number)
            with noting(f"raised by select in round {number}"):
                chosen = select(federation.state, clients, n_selected, rng, federation.history)
                selected = [clients[k] for k in positions(chosen, len(clients))]
            tasks = [
                Task(client.id, federation.memories.get(client.id, client.memory)) for client in selected
            ]
            updates = update_all(federation.state, tasks, number)
            federation.memories |= {u.client: dict(u.memory) for u in updates if u.memory}
            updates = [u._replace(memory=NOTHING) for u in updates]  # which the server never sees
            with noting(f"raised by server_update, of {len(updates)} updates, in round {number}"):
                federation.state = algorithm.server_update(federation.state, updates)
            federation.history.append(record_round(number, federation.state["theta"], updates, evaluate))
            if checkpoint is not None:
                federation.save(Path(checkpoint), run)
            bar.update()
    return federation.state["theta"], federation.history


def _fingerprint(clients: Sequence[Client]) -> str:
    shared = {id(array): array for client in clients for array in (client.X, client.y)}
    data = {key: digest(array) for key, array in shared.items()}  # each once, however many clients share it
    owned = [f"{c.id} {data[id(c.X)]} {data[id(c.y)]} {_own(c)}" for c in clients]
    return digest(np.frombuffer("\n".join(owned).encode(), np.uint8))


def _own(client: Client) -> str:
    weights = () if client.weights is None else (client.weights,)
    kept = [f" {name} {digest(array)}" for name, array in client.memory.items()]
    return digest(client.index, *weights) + "".join(kept)
