"""The round loop: synchronise, update, fuse, as many times as asked."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from nnbrain import checks
from nnbrain.checkpoint import digest, load_if_there, save_checkpoint
from nnbrain.checks import Floats
from nnbrain.federated.algorithms import NOTHING, Algorithm, State
from nnbrain.federated.clients import Client, Memory, check_clients
from nnbrain.federated.rounds import Evaluate, Round, concluded
from nnbrain.federated.selection import Select, uniform
from nnbrain.federated.workers import SELECTION, Task, generator, updater
from nnbrain.mlp.training import settings_of


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
        Who takes part: ``select(state, clients, n, rng, history)`` returns positions in `clients`, by
        default of `n` at random. It may return none, if the algorithm can do without updates, as
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
    `multiprocessing`.
    """
    checks.integer("rounds", rounds, minimum=0)
    checks.number("client_fraction", client_fraction, above=0, maximum=1)
    checks.integer("seed", seed, minimum=0)
    checks.integer("workers", workers)
    if memories:
        raise ValueError(f"memories must be empty, to be filled, got those of {len(memories)} clients")
    federation = _Federation(algorithm.init(theta), {} if memories is None else memories)
    clients = check_clients(algorithm.mlp, clients, theta)
    n_selected = max(1, round(client_fraction * len(clients)))
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
        tqdm(total=rounds, desc="simulate", unit="round", disable=not progress) as bar,
    ):
        bar.update(len(federation.history))
        for number in range(len(federation.history) + 1, rounds + 1):
            if stop is not None and stop(federation.history):
                break
            rng = generator(seed, SELECTION, number)
            chosen = select(federation.state, clients, n_selected, rng, federation.history)
            selected = [clients[k].id for k in _positions(chosen, len(clients))]
            tasks = [Task(k, federation.memories.get(k, {})) for k in selected]
            updates = update_all(federation.state, tasks, number)
            federation.memories |= {u.client: dict(u.memory) for u in updates if u.memory}
            updates = [u._replace(memory=NOTHING) for u in updates]  # which the server never sees
            federation.state = algorithm.server_update(federation.state, updates)
            federation.history.append(concluded(number, federation.state["theta"], updates, evaluate))
            if checkpoint is not None:
                federation.save(Path(checkpoint), run)
            bar.update()
    return federation.state["theta"], federation.history


@dataclass
class _Federation:
    """All that is remembered from one round to the next, and so all that a checkpoint holds."""

    state: State
    memories: dict[int, Memory] = field(default_factory=dict)
    history: list[Round] = field(default_factory=list)

    def save(self, path: Path, run: Mapping[str, Any]) -> None:
        text = json.dumps([asdict(round) for round in self.history])  # floats come back with all their bits
        arrays = {"history": np.frombuffer(text.encode(), np.uint8)}
        arrays |= {f"state.{name}": array for name, array in self.state.items()}
        for client, memory in self.memories.items():
            arrays |= {f"memory.{client}.{name}": array for name, array in memory.items()}
        save_checkpoint(path, arrays, run)

    def resume(self, path: Path, run: Mapping[str, Any], rounds: int) -> None:
        """Take over what the checkpoint at `path` holds, if there is one."""
        saved = load_if_there(path, run)
        if saved is None:
            return
        self.history = [Round(**fields) for fields in json.loads(saved.pop("history").tobytes())]
        if len(self.history) > rounds:
            raise ValueError(
                f"rounds must be at least the {len(self.history)} that {str(path)!r} has, got {rounds}"
            )
        for name, array in saved.items():
            kind, rest = name.split(".", 1)
            if kind == "state":
                self.state[rest] = array
            else:
                client, of = rest.split(".", 1)
                self.memories.setdefault(int(client), {})[of] = array


def _positions(chosen: Sequence[int], n_clients: int) -> list[int]:
    positions = [checks.integer("select's answer", k, minimum=0) for k in chosen]
    if len(set(positions)) < len(positions) or max(positions, default=0) >= n_clients:
        raise ValueError(
            f"select must return positions of different clients in 0..{n_clients - 1}, got {positions}"
        )
    return positions


def _fingerprint(clients: Sequence[Client]) -> str:
    shared = {id(array): array for client in clients for array in (client.X, client.y)}
    data = {key: digest(array) for key, array in shared.items()}  # each once, however many clients share it
    own = [digest(c.index) if c.weights is None else digest(c.index, c.weights) for c in clients]
    owned = [f"{c.id} {data[id(c.X)]} {data[id(c.y)]} {o}" for c, o in zip(clients, own, strict=True)]
    return digest(np.frombuffer("\n".join(owned).encode(), np.uint8))
