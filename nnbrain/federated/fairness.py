"""How evenly a federation serves its clients, and asks them."""

from collections.abc import Sequence
from math import ceil

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.federated.clients import Client
from nnbrain.mlp.network import MLP


def client_accuracies(mlp: MLP, theta: Floats, clients: Sequence[Client]) -> Floats:
    """Return the accuracy of one common θ on each client's data (K,): of clients made of held-out samples.

    Rows that many clients share are classified once.

    Raises
    ------
    ValueError
        If the network has no accuracy, a client no samples, or one's data do not fit the network.
    """
    if mlp.loss == "mse":
        raise ValueError("loss must be a cross-entropy for accuracy to have a meaning, got 'mse'")
    if any(client.n_samples == 0 for client in clients):
        raise ValueError("clients must have at least one sample each, got one with none")
    shared = {(id(c.X), id(c.y)): mlp.check_data(theta, c.X, c.y) for c in clients}
    right = {key: mlp.predict(theta, X) == y for key, (X, y) in shared.items()}
    return np.array([right[id(c.X), id(c.y)][c.index].mean() for c in clients])


def worst_share(values: npt.ArrayLike, share: float = 0.1) -> float:
    """Return the mean of the smallest values, those of the given share of clients and of one at least.

    Parameters
    ----------
    values : array (K,)
        For example accuracies, as `client_accuracies` returns them.
    share : float
        In (0, 1]; 0.1 is the worst decile. Parts of a client count as one.

    Raises
    ------
    ValueError
        If there are no values, or the share is out of range.
    """
    checks.number("share", share, above=0, maximum=1)
    array = np.sort(_values(values))
    return float(array[: ceil(round(share * len(array), 9))].mean())


def gini(values: npt.ArrayLike) -> float:
    """Return the Gini coefficient: half the mean absolute difference of two values, over their mean.

    It is 0 if all are equal, and 1 - 1/K if one of K has everything.

    Parameters
    ----------
    values : array (K,)
        At least 0, for example each client's accuracy, or how often it was asked. If all are 0, so is the
        result: it tells how even the values are, and not how high.

    Raises
    ------
    ValueError
        If there are no values, or a negative one.

    Notes
    -----
    In ascending order the sum over all pairs is a single sum, G = Σᵢ (2i - K - 1) x₍ᵢ₎ / (K Σᵢ xᵢ).
    """
    x = np.sort(_values(values))
    if x[0] < 0:
        raise ValueError(f"values must be at least 0, got {x[0]:g}")
    K = len(x)
    if not x.any():
        return 0.0
    return float((2 * np.arange(1, K + 1) - K - 1) @ x / (K * x.sum()))


def _values(values: npt.ArrayLike) -> Floats:
    array = checks.floats("values", values)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"values must have one dimension and an entry, got shape {array.shape}")
    return array
