"""The ways in which a data set can be dealt out to clients."""

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Ints, Seed


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


def _check_enough(name: str, parts: int, n_samples: int, min_samples: int = 1) -> None:
    checks.integer("n_samples", n_samples)
    if checks.integer(name, parts) > n_samples:
        raise ValueError(f"{name} must be at most the {n_samples} samples there are, got {parts}")
    if checks.integer("min_samples", min_samples) * parts > n_samples:
        raise ValueError(
            f"min_samples must be at most {n_samples // parts}, as {parts} parts share {n_samples} samples, "
            f"got {min_samples}"
        )
