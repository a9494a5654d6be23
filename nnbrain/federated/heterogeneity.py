"""Algorithms for clients that differ: in their data, in how much of it they have, in how much they can do."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.federated.aggregation import aggregated, check_vectors
from nnbrain.federated.algorithms import FedAvg, State, Update, Wrapper
from nnbrain.federated.clients import Client


@dataclass(frozen=True)
class FedProx(FedAvg):
    """Federated averaging on a leash: a client that goes away from θ is drawn back.

    Client k trains on Fₖ(θₖ) + (μ/2) ‖θₖ - θ‖², where θ is what it was sent. With μ = 0 it is `FedAvg`.

    Parameters
    ----------
    mlp, epochs, batch_size, learning_rate, aggregate
        As for `FedAvg`.
    mu : float
        μ, at least 0. Steps are stable only while learning_rate · μ < 2.

    Raises
    ------
    ValueError
        If a setting is out of range.

    Notes
    -----
    Li et al. (2020), "Federated optimization in heterogeneous networks", Algorithm 2, the subproblem solved
    inexactly by SGD.
    """

    mu: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("mu", self.mu, minimum=0)

    def client_update(self, state: State, client: Client, rng: np.random.Generator) -> Update:
        theta = state["theta"]
        theta_k, loss = self.train(theta, client, rng, proximal=self.mu)
        return Update(client.id, theta_k - theta, client.n_samples, loss)


@dataclass(frozen=True)
class Scaffold(FedAvg):
    """Federated averaging in which each client knows where it drifts, and steers against it.

    A client keeps cₖ, the mean gradient of its own last round; the server keeps c = Σ (nₖ/n) cₖ. A client
    steps along -(g + c - cₖ): away from its own direction, and into that of all. Afterwards

        cₖ ← cₖ - c + (θ - θₖ) / (η · steps),

    which is the mean of the g it saw (option II). It sends its move and the change of cₖ: two vectors.

    Parameters
    ----------
    mlp, epochs, batch_size, learning_rate, aggregate
        As for `FedAvg`. `aggregate` also makes the mean of the changes.
    total_samples : int
        n, the samples of all clients, also of those that have not taken part yet.

    Raises
    ------
    ValueError
        If a setting is out of range, or the updates of a round speak for more than `total_samples`.

    Notes
    -----
    Karimireddy et al. (2020), Algorithm 1 with a global step of 1. There all clients weigh the same; here
    each weighs as much as it has samples, so that θ stands still where the loss over all data does.
    """

    total_samples: int = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.integer("total_samples", self.total_samples)

    def init(self, theta: Floats) -> State:
        return {**super().init(theta), "variate": np.zeros_like(theta)}

    def client_update(self, state: State, client: Client, rng: np.random.Generator) -> Update:
        theta, c = state["theta"], state["variate"]
        c_k = client.memory.get("variate", np.zeros_like(c))
        theta_k, loss = self.train(theta, client, rng, drift=c - c_k)
        move = theta_k - theta
        change = -c - move / (float(self.learning_rate) * local_steps(self, client))
        more, memory = {"change": change}, {"variate": c_k + change}
        return Update(client.id, move, client.n_samples, loss, more, memory)

    def server_update(self, state: State, updates: Sequence[Update]) -> State:
        n = [update.n_samples for update in updates]
        if sum(n) > self.total_samples * (1 + 1e-9):  # weights that add up to it do so but for rounding
            raise ValueError(
                f"total_samples must count all clients, got {self.total_samples}, and {sum(n)} in a round"
            )
        shape = state["variate"].shape
        change = aggregated(self.aggregate, [update.sent("change", shape) for update in updates], n)
        variate = state["variate"] + sum(n) / self.total_samples * change
        return {**super().server_update(state, updates), "variate": variate}


@dataclass(frozen=True)
class FedNova(FedAvg):
    """Federated averaging in which a client that took more steps does not count for more.

    The server averages Δₖ / sₖ, the mean step of each client, and takes as many of these as the clients did
    on average:

        θ ← θ + s Σ (nₖ/n) Δₖ / sₖ,   s = Σ (nₖ/n) sₖ.

    Where all took equally many steps it is `FedAvg`. A client sends its number of steps besides.

    Parameters
    ----------
    mlp, epochs, batch_size, learning_rate, aggregate
        As for `FedAvg`.

    Raises
    ------
    ValueError
        If a setting is out of range; in a round, if a client does not say how many steps it took, or fewer
        than one.

    Notes
    -----
    Wang et al. (2020), for clients that take plain SGD steps.
    """

    def client_update(self, state: State, client: Client, rng: np.random.Generator) -> Update:
        steps = np.array(local_steps(self, client), np.float64)
        return super().client_update(state, client, rng)._replace(more={"steps": steps})

    def server_update(self, state: State, updates: Sequence[Update]) -> State:
        n = [update.n_samples for update in updates]
        check_vectors([update.vector for update in updates], n)
        steps = [
            checks.number(f"steps of client {u.client}", u.sent("steps", ())[()], minimum=1) for u in updates
        ]
        mean_steps = float(np.average(steps, weights=n))
        vectors = [u.vector * (mean_steps / own) for u, own in zip(updates, steps, strict=True)]
        return {"theta": state["theta"] + aggregated(self.aggregate, vectors, n)}


@dataclass(frozen=True)
class UnequalWork(Wrapper):
    """An algorithm in which each client does as many epochs as it can.

    Parameters
    ----------
    algorithm : FedAvg, FedProx, Scaffold or FedNova
    epochs : sequence of int
        Of client 0, 1, …, by its id.

    Raises
    ------
    ValueError
        If a number of epochs is below 1, or a client's is missing when it takes part.
    """

    algorithm: FedAvg
    epochs: Sequence[int]

    def __post_init__(self) -> None:
        epochs = tuple(checks.integer(f"epochs[{k}]", number) for k, number in enumerate(self.epochs))
        object.__setattr__(self, "epochs", epochs)  # no array: the text of a long one lacks its middle

    def client_update(self, state: State, client: Client, rng: np.random.Generator) -> Update:
        if not 0 <= client.id < len(self.epochs):
            raise ValueError(f"epochs must have an entry for client {client.id}, got {len(self.epochs)}")
        own = replace(self.algorithm, epochs=self.epochs[client.id])
        return own.client_update(state, client, rng)


def local_steps(algorithm: FedAvg, client: Client) -> int:
    """Return how many steps of SGD the client takes in a round: E ⌈nₖ/B⌉."""
    batch_size = algorithm.batch_size or client.n_samples
    return algorithm.epochs * ceil(client.n_samples / batch_size)
