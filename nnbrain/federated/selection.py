"""Selection: which clients take part in a round."""

from collections.abc import Callable, Sequence

import numpy as np

from nnbrain.federated.algorithms import State
from nnbrain.federated.clients import Client
from nnbrain.federated.rounds import Round

# Takes the state, all clients, how many are wanted, a generator, and the rounds so far; returns positions.
Select = Callable[[State, Sequence[Client], int, np.random.Generator, Sequence[Round]], Sequence[int]]


def uniform(
    state: State, clients: Sequence[Client], n: int, rng: np.random.Generator, history: Sequence[Round]
) -> Sequence[int]:
    """Return the positions of `n` of the clients, each set of `n` as likely as any other."""
    return np.sort(rng.choice(len(clients), n, replace=False)).tolist()  # type: ignore[no-any-return]
