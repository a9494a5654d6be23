"""The round loop: synchronise, update, fuse, as many times as asked."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from nnbrain import checks
from nnbrain.checkpoint import digest, load_checkpoint, save_checkpoint
from nnbrain.checks import Floats
from nnbrain.federated.algorithms import NOTHING, Algorithm, State
from nnbrain.federated.clients import Client, Memory
from nnbrain.federated.selection import Select, uniform
from nnbrain.federated.workers import SELECTION, Task, generator, updater
from nnbrain.mlp.training import settings_of

Metrics = dict[str, float]


@dataclass(frozen=True)
class Round:
    """What one round did.

    Attributes
    ----------
    number : int
        From 1.
    clients : list of int
        The ids of those who took part.
    metrics : dict of str to float
        "loss" is the mean of the clients' local losses, weighted by their samples; the others are what
        `evaluate` returned after the round.
    per_client : dict of str to list of float
        "loss", "n_samples" and "bytes_sent" of each, in the order of `clients`.
    """

    number: int
    clients: list[int]
    metrics: Metrics = field(default_factory=dict)
    per_client: dict[str, list[float]] = field(default_factory=dict)


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
    evaluate: Callable[[Floats], Metrics] | None = None,
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
        default of `n` at random.
    evaluate : callable, optional
        Takes θ after each round and returns named metrics for the history.
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
    federation = _Federation(algorithm.init(theta))
    clients = _checked(algorithm, clients, theta)
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
            if not np.all(np.isfinite(federation.state["theta"])):
                raise FloatingPointError(
                    f"theta is no longer finite in round {number}; try a smaller learning_rate"
                )
            per_client = {
                "loss": [u.loss for u in updates],
                "n_samples": [float(u.n_samples) for u in updates],
                "bytes_sent": [float(u.bytes_sent) for u in updates],
            }
            metrics = {"loss": float(np.average(per_client["loss"], weights=per_client["n_samples"]))}
            if evaluate is not None:
                metrics |= evaluate(federation.state["theta"].copy())
            federation.history.append(Round(number, selected, metrics, per_client))
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
        if not path.exists():
            if not path.parent.is_dir():
                raise ValueError(f"checkpoint must be in an existing folder, got {str(path)!r}")
            return
        saved = load_checkpoint(path, run)
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
    if not positions or len(set(positions)) < len(positions) or max(positions) >= n_clients:
        raise ValueError(
            f"select must return positions of different clients in 0..{n_clients - 1}, at least one, got "
            f"{positions}"
        )
    return positions


def _fingerprint(clients: Sequence[Client]) -> str:
    data = {id(array): digest(array) for client in clients for array in (client.X, client.y)}
    owned = [f"{c.id} {data[id(c.X)]} {data[id(c.y)]} {digest(c.index)}" for c in clients]
    return digest(np.frombuffer("\n".join(owned).encode(), np.uint8))


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
            try:
                checked[key] = algorithm.mlp.check_data(theta, client.X, client.y)
            except (TypeError, ValueError) as error:
                raise type(error)(f"client {client.id}: {error}") from error
        X, y = checked[key]
        if np.min(client.index) < 0 or np.max(client.index) >= len(X):
            raise ValueError(
                f"clients must index rows 0..{len(X) - 1} of X, got others for client {client.id}"
            )
        result.append(replace(client, X=X, y=y))
    return result
