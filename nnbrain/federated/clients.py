"""Clients, who own data."""

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
        What it kept from the last round it took part in, by name; before its first, what it brings along,
        as a rule nothing. The server never sees it.
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

    @property
    def rows(self) -> tuple[Floats, npt.NDArray[Any]]:
        """Its own rows of X and y, copied."""
        return self.X[self.index], self.y[self.index]

    def with_memory(self, memory: Memory) -> "Client":
        """Return the same client with this memory."""
        return replace(self, memory=memory)

    def with_data(self, X: Floats, y: npt.NDArray[Any]) -> "Client":
        """Return the same client with other samples, all rows of X and y, which it shares with nobody."""
        return replace(self, X=X, y=y, index=np.arange(len(y)))


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
        rows, y = client.rows
        X = checks.floats("transform's answer", transform(rows.copy(), own), rows.dtype)
        if X.shape != rows.shape:
            raise ValueError(f"transform must return an array of shape {rows.shape}, got {X.shape}")
        transformed.append(client.with_data(X, y))
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
    sharing: dict[tuple[int, int], list[Client]] = {}
    for client in clients:
        sharing.setdefault((id(client.X), id(client.y)), []).append(client)
    checked = {key: _check_shared(mlp, group, theta) for key, group in sharing.items()}
    result = []
    for client in clients:
        X, y = checked[id(client.X), id(client.y)]
        if np.min(client.index) < 0 or np.max(client.index) >= len(X):
            raise ValueError(
                f"clients must index rows 0..{len(X) - 1} of X, got others for client {client.id}"
            )
        result.append(replace(client, X=X, y=y))
    return result


def _check_shared(mlp: MLP, clients: Sequence[Client], theta: Floats) -> tuple[Floats, npt.NDArray[Any]]:
    """Return the X and y that these clients share, checked; an error names those whose own rows are bad."""
    try:
        return mlp.check_data(theta, clients[0].X, clients[0].y)
    except (TypeError, ValueError) as error:
        bad = [client.id for client in clients if _misfits(mlp, client, theta)]
        others = f" and {len(bad) - 10} others" if len(bad) > 10 else ""
        who = f"client {bad[0]}" if len(bad) == 1 else f"clients {bad[:10]}{others}"
        raise type(error)(f"{who if bad else 'rows that no client owns'}: {error}") from error


def _misfits(mlp: MLP, client: Client, theta: Floats) -> bool:
    try:
        mlp.check_data(theta, *client.rows)
    except (TypeError, ValueError, IndexError):
        return True
    return len(client.X) != len(client.y)
