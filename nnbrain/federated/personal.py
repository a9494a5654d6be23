"""Personal models: each client ends with a θ of its own, near the common one, or partly made of it.

The simplest needs nothing of this file: `local_sgd` from the common θ on, after training, is fine-tuning.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.federated.algorithms import FedAvg, State, Update, Wrapper
from nnbrain.federated.clients import Client
from nnbrain.mlp.network import MLP

OWN, DITTO = "own", "ditto"  # names in a client's memory; in the server's state, OWN is what all begin with


@dataclass(frozen=True)
class PersonalLayers(FedAvg):
    """Federated averaging of all layers but the last ones, which stay with each client.

    θ is cut in two. The server's θ is the first part, the layers that all share, and nothing else: a
    client sends how far that part moved. The second part, its own layers, is in its memory. It trains both
    together. Before its first round a client's own layers are those of the θ that the run began with.

    Parameters
    ----------
    mlp, epochs, batch_size, learning_rate, aggregate
        As for `FedAvg`.
    own_layers : int
        How many of the last layers are the client's own: at least 1, and fewer than there are.

    Raises
    ------
    ValueError
        If a setting is out of range.

    Notes
    -----
    Arivazhagan et al. (2019), "FedPer".
    """

    own_layers: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        layers = len(self.mlp.sizes) - 1
        if checks.integer("own_layers", self.own_layers) >= layers:
            raise ValueError(
                f"own_layers must be below the {layers} layers of mlp, so that one is shared, got "
                f"{self.own_layers}"
            )

    @property
    def shared_size(self) -> int:
        """The length of the server's θ: that of the network of the shared layers alone."""
        return MLP(self.mlp.sizes[: -self.own_layers], loss="mse").size

    def init(self, theta: Floats) -> State:
        """Return the shared part of `theta` (mlp.size,) as the server's θ, and the rest, where all begin."""
        shared, own = np.split(checks.theta(theta, self.mlp.size).copy(), [self.shared_size])
        return {"theta": shared, OWN: own}

    def client_update(self, state: State, client: Client, rng: np.random.Generator) -> Update:
        theta = np.concatenate([state["theta"], client.memory.get(OWN, state[OWN])])
        update = super().client_update({"theta": theta}, client, rng)
        move, own_move = np.split(update.vector, [self.shared_size])
        own = theta[self.shared_size :] + own_move
        return update._replace(vector=move, memory={OWN: own})

    def server_update(self, state: State, updates: Sequence[Update]) -> State:
        return {**super().server_update(state, updates), OWN: state[OWN]}

    def personal(self, theta: Floats, client: Client) -> Floats:
        """Return the client's model (mlp.size,): the server's θ, and its own layers after it.

        Raises
        ------
        ValueError
            If the client has not taken part yet, and so has no layers of its own.
        """
        if OWN not in client.memory:
            raise ValueError(f"client must have taken part in a round, got client {client.id} without memory")
        return np.concatenate([theta, client.memory[OWN]])


@dataclass(frozen=True)
class Ditto(Wrapper):
    """An algorithm whose clients keep a second model each, held near the common one.

    What the clients send, and so the common θ, is the algorithm's own, bit for bit. Besides, client k goes
    on with a model θₖ of its own, which it never sends, by SGD on

        Fₖ(θₖ) + (λ/2) ‖θₖ - θ‖²,

    where θ is what it was sent in this round. With λ = 0 it learns alone; the larger λ, the nearer θₖ stays
    to θ. Before its first round θₖ is the θ that it is sent.

    Parameters
    ----------
    algorithm : Algorithm
        Of the common model: any whose θ is all of the network's.
    lam : float
        λ, at least 0. Steps are stable only while learning_rate · λ < 2.
    epochs, batch_size, learning_rate
        Of the training of θₖ, as for `FedAvg`.

    Raises
    ------
    ValueError
        If a setting is out of range.

    Notes
    -----
    Li et al. (2021), Algorithm 1. There all θₖ begin as the first θ of all.
    """

    lam: float = 0.1
    epochs: int = 1
    batch_size: int | None = 10
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        checks.number("lam", self.lam, minimum=0)
        _ = self.own  # which checks the other settings

    @property
    def own(self) -> FedAvg:
        """How a client trains θₖ: as it would for `FedAvg`, with these settings."""
        return FedAvg(self.mlp, self.epochs, self.batch_size, self.learning_rate)

    def init(self, theta: Floats) -> State:
        state = self.algorithm.init(theta)
        if state["theta"].shape != theta.shape:
            raise ValueError(
                f"algorithm must learn all {theta.size} numbers of theta in common, got one that shares "
                f"{state['theta'].size}"
            )
        return state

    def client_update(self, state: State, client: Client, rng: np.random.Generator) -> Update:
        update = self.algorithm.client_update(state, client, rng)
        theta = state["theta"]
        start = self.personal(theta, client)
        # λ (θₖ - θ) = λ (θₖ - start) + λ (start - θ)
        drift = float(self.lam) * (start - theta)
        theta_k, _ = self.own.train(start, client, rng, proximal=self.lam, drift=drift)
        return update._replace(memory={**update.memory, DITTO: theta_k})

    def personal(self, theta: Floats, client: Client) -> Floats:
        """Return the client's model (mlp.size,): the common `theta`, if it has not taken part yet."""
        return client.memory.get(DITTO, theta)
