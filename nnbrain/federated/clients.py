"""Clients, who own data, and the ways in which a data set can be dealt out to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats, Ints, Seed
from nnbrain.mlp.network import MLP

Memory = dict[str, npt.NDArray[Any]]
Transform = Callable[[Floats, np.random.Generator], Floats]


@dataclass(frozen=True)
class Client:
    """An owner of some rows of X and y; nobody else may read them.

    Attributes
    ----------
    id : int
        Its number in the federation.
    X, y : arrays
        The data that all clients' rows lie in, shared and not copied: ten thousand clients cost no
        more memory than one.
    index : array of int
        Which rows are this client's.
    memory : dict of arrays
        What it kept from the last round it took part in, by name; empty before its first. The server
        never sees it.
    weights : array (n_samples,), optional
        How much each of its samples counts in the mean loss of a batch, in the order of `index`; all alike
        if it is None.
    """

    id: int
    X: Floats
    y: npt.NDArray[Any]
    index: Ints
    memory: Memory = field(default_factory=dict)
    weights: Floats | None = None

    @property
    def n_samples(self) -> int:
        """How many samples the client has: n_k."""
        return len(self.index)

    def with_memory(self, memory: Memory) -> "Client":
        """Return the same client with this memory."""
        return replace(self, memory=memory)


def make_clients(X: npt.ArrayLike, y: npt.ArrayLike, parts: Sequence[Ints]) -> list[Client]:
    """Return one client for each entry of `parts`, the indices of its rows of X (n, features) and y (n,).

    Raises
    ------
    ValueError
        If a part is empty, indexes outside the data, or two parts share a row.
    """
    X = checks.floats("X", X, getattr(X, "dtype", np.float64))
    y = np.asarray(y)
    if X.ndim != 2 or len(y) != len(X):
        raise ValueError(f"X must have shape (n, features) and y n entries, got {X.shape} and {y.shape}")
    if len(parts) == 0:
        raise ValueError("parts must have at least one client's indices, got none")
    owner = np.full(len(X), -1)
    for k, index in enumerate(parts):
        if len(index) == 0:
            raise ValueError(f"parts[{k}] must have at least one sample, got none: leave such a client out")
        if np.asarray(index).dtype.kind not in "iu":
            raise TypeError(f"parts[{k}] must hold integer indices, got dtype {np.asarray(index).dtype}")
        if np.min(index) < 0 or np.max(index) >= len(X):
            raise ValueError(
                f"parts[{k}] must index rows 0..{len(X) - 1}, got {np.min(index)}..{np.max(index)}"
            )
        if np.any(owner[index] >= 0) or len(np.unique(index)) < len(index):
            raise ValueError(f"parts[{k}] must own its rows alone, got a row that is already owned")
        owner[index] = k
    return [Client(k, X, y, np.asarray(index)) for k, index in enumerate(parts)]


def partition_iid(n_samples: int, n_clients: int, rng: Seed) -> list[Ints]:
    """Deal out the samples 0..n_samples-1 at random, in parts whose sizes differ by at most one.

    Raises
    ------
    ValueError
        If there are more clients than samples.
    """
    _check_enough("n_clients", n_clients, n_samples)
    return np.array_split(checks.generator("rng", rng).permutation(n_samples), n_clients)


def partition_shards(y: npt.ArrayLike, n_clients: int, rng: Seed, shards_per_client: int = 2) -> list[Ints]:
    """Sort the samples by label, cut them in shards, and deal each client a few of them at random.

    With two shards a client, most clients see two classes only: the pathological non-IID partition of
    McMahan et al. (2017).

    Raises
    ------
    ValueError
        If there are more shards than samples.
    """
    labels = checks.labels("y", y, np.size(y))
    checks.integer("n_clients", n_clients)
    n_shards = n_clients * checks.integer("shards_per_client", shards_per_client)
    _check_enough("n_clients * shards_per_client", n_shards, len(labels))
    shards = np.array_split(np.argsort(labels, kind="stable"), n_shards)
    dealt = checks.generator("rng", rng).permutation(n_shards).reshape(n_clients, -1)
    return [np.concatenate([shards[s] for s in row]) for row in dealt]


def partition_dirichlet(
    y: npt.ArrayLike, n_clients: int, concentration: float, rng: Seed, min_samples: int = 1
) -> list[Ints]:
    """Deal each label's samples out in shares of its own, drawn from a Dirichlet distribution.

    A small concentration gives nearly all samples of a label to one client; a large one gives all clients
    nearly the same mixture. The clients' numbers of samples come out unequal too.

    Parameters
    ----------
    y : array of int (n,)
        Labels.
    n_clients : int
    concentration : float
        Parameter of the symmetric Dirichlet distribution, above 0.
    rng : int or Generator
    min_samples : int
        Clients that have fewer get some from those that have most, at random.

    Returns
    -------
    list of array of int
        The rows of each client: none is lost, and none is with two.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or there are fewer than `min_samples` samples a client.

    Notes
    -----
    Yurochkin et al. (2019). Hsu et al. (2019) draw shares of labels for each client instead,
    so that all clients get equally many samples.
    """
    labels = checks.labels("y", y, np.size(y))
    checks.number("concentration", concentration, above=0)
    _check_enough("n_clients", n_clients, len(labels), min_samples)
    rng = checks.generator("rng", rng)
    owner = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(n_clients, concentration))
        ends = np.rint(np.cumsum(shares) * len(rows)).astype(int)
        owner[rows] = np.searchsorted(ends[:-1], np.arange(len(rows)), side="right")
    sizes = np.bincount(owner, minlength=n_clients)
    while sizes.min() < min_samples:
        poorest, richest = sizes.argmin(), sizes.argmax()
        owner[rng.choice(np.flatnonzero(owner == richest))] = poorest
        sizes[poorest] += 1
        sizes[richest] -= 1
    return [np.flatnonzero(owner == k) for k in range(n_clients)]


def partition_quantity(
    n_samples: int, n_clients: int, spread: float, rng: Seed, min_samples: int = 1
) -> list[Ints]:
    """Deal out the samples 0..n_samples-1 at random, in parts of log-normally distributed sizes.

    Parameters
    ----------
    n_samples, n_clients : int
    spread : float
        Standard deviation of the logarithm of a part's size before rounding, at least 0. With 0, sizes
        differ by at most one; with 1, a third of the parts are at least e times larger or smaller than the
        middle one.
    rng : int or Generator
    min_samples : int
        What each part has, before the rest is dealt out.

    Returns
    -------
    list of array of int
        The rows of each client: none is lost, and none is with two.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or there are fewer than `min_samples` samples a client.
    """
    checks.number("spread", spread, minimum=0)
    _check_enough("n_clients", n_clients, n_samples, min_samples)
    rng = checks.generator("rng", rng)
    logs = spread * rng.standard_normal(n_clients)
    weights = np.exp(logs - logs.max())
    rest = n_samples - n_clients * min_samples
    ends = np.rint(np.cumsum(weights / weights.sum()) * rest).astype(int)
    ends += min_samples * np.arange(1, n_clients + 1)
    return np.split(rng.permutation(n_samples), ends[:-1])


def transform_clients(clients: Sequence[Client], transform: Transform, rng: Seed) -> list[Client]:
    """Return the same clients, each with its samples seen through its own eyes: feature skew.

    Each client gets a copy of its own rows, so that all of them together cost the memory of the data once
    more. `nnbrain.data` has transforms; the clients given are not changed.

    Parameters
    ----------
    clients : sequence of Client
    transform : callable
        ``transform(X, rng)`` returns the changed rows X (n_k, features) of one client. `rng` is the
        client's own generator: what is drawn from it once holds for this client alone.
    rng : int or Generator
        What the clients' generators are spawned from.

    Raises
    ------
    ValueError
        If `transform` returns an array of another shape.
    """
    transformed = []
    for client, own in zip(clients, checks.generator("rng", rng).spawn(len(clients)), strict=True):
        rows = client.X[client.index]
        X = checks.floats("transform's answer", transform(rows.copy(), own), rows.dtype)
        if X.shape != rows.shape:
            raise ValueError(f"transform must return an array of shape {rows.shape}, got {X.shape}")
        index = np.arange(client.n_samples)
        transformed.append(replace(client, X=X, y=client.y[client.index], index=index))
    return transformed


def check_clients(mlp: MLP, clients: Sequence[Client], theta: Floats) -> list[Client]:
    """Return the clients, their data checked once against the network and in θ's type, still shared.

    Raises
    ------
    TypeError, ValueError
        If there are no clients, two have the same id, or the data of one are none, are not in its X or do not
        fit the network.
    """
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
                checked[key] = mlp.check_data(theta, client.X, client.y)
            except (TypeError, ValueError) as error:
                raise type(error)(f"client {client.id}: {error}") from error
        X, y = checked[key]
        if np.min(client.index) < 0 or np.max(client.index) >= len(X):
            raise ValueError(
                f"clients must index rows 0..{len(X) - 1} of X, got others for client {client.id}"
            )
        result.append(replace(client, X=X, y=y))
    return result


def _check_enough(name: str, parts: int, n_samples: int, min_samples: int = 1) -> None:
    checks.integer("n_samples", n_samples)
    if checks.integer(name, parts) > n_samples:
        raise ValueError(f"{name} must be at most the {n_samples} samples there are, got {parts}")
    if checks.integer("min_samples", min_samples) * parts > n_samples:
        raise ValueError(
            f"min_samples must be at most {n_samples // parts}, as {parts} parts share {n_samples} samples, "
            f"got {min_samples}"
        )
