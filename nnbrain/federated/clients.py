"""Clients, who own data, and the ways in which a data set can be dealt out to them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats, Ints, Seed

Memory = dict[str, npt.NDArray[Any]]


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
    """

    id: int
    X: Floats
    y: npt.NDArray[Any]
    index: Ints
    memory: Memory = field(default_factory=dict)

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


def _check_enough(name: str, parts: int, n_samples: int) -> None:
    checks.integer("n_samples", n_samples)
    if checks.integer(name, parts) > n_samples:
        raise ValueError(f"{name} must be at most the {n_samples} samples there are, got {parts}")
