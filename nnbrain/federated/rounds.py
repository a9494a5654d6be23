"""What a round did, as the history keeps it: the same whether simulated, asynchronous or real."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nnbrain.checks import Floats
from nnbrain.federated.algorithms import Update

Metrics = dict[str, float]
Evaluate = Callable[[Floats], Metrics]  # takes θ, returns named metrics


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
        "loss" is the mean of the clients' local losses, weighted by their samples, and NaN if nobody took
        part; the others are what `evaluate` returned after the round.
    per_client : dict of str to list of float
        "loss", "n_samples" and "bytes_sent" of each, in the order of `clients`.
    """

    number: int
    clients: list[int]
    metrics: Metrics = field(default_factory=dict)
    per_client: dict[str, list[float]] = field(default_factory=dict)


def concluded(
    number: int,
    theta: Floats,
    updates: Sequence[Update],
    evaluate: Evaluate | None = None,
    *,
    metrics: Metrics | None = None,
    per_client: Mapping[str, list[float]] | None = None,
) -> Round:
    """Return the record of a round that has moved the server's θ to `theta`.

    Parameters
    ----------
    number : int
    theta : array (mlp.size,)
    updates : sequence of Update
        Those that moved it.
    evaluate : callable, optional
    metrics, per_client : mapping, optional
        What there is to note besides.

    Raises
    ------
    FloatingPointError
        If θ is NaN or infinite somewhere.
    """
    if not np.all(np.isfinite(theta)):
        raise FloatingPointError(f"theta is no longer finite in round {number}; try a smaller learning_rate")
    noted = {
        "loss": [u.loss for u in updates],
        "n_samples": [float(u.n_samples) for u in updates],
        "bytes_sent": [float(u.bytes_sent) for u in updates],
        **(per_client or {}),
    }
    loss = float(np.average(noted["loss"], weights=noted["n_samples"])) if updates else float("nan")
    found = {"loss": loss, **(metrics or {}), **(evaluate(theta.copy()) if evaluate else {})}
    return Round(number, [u.client for u in updates], found, noted)
