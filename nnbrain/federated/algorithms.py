"""Federated algorithms: what a client computes, and what the server makes of it.

An algorithm holds its settings and no state. It is two pure functions over plain state, and a third that
makes the first state:

- ``client_update(state, client, rng)`` runs where the data are and returns an `Update`;
- ``server_update(state, updates)`` returns the next state and never sees data.

State is a dictionary of arrays; under "theta" it has the model that all clients start a round from. What a
client keeps for its next round is in its update's `memory`, and comes back to it as `client.memory`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.federated.aggregation import Aggregate, aggregated, weighted_mean
from nnbrain.federated.clients import Client
from nnbrain.federated.local import local_gradient, local_sgd
from nnbrain.mlp.network import MLP

State = dict[str, npt.NDArray[Any]]


NOTHING: Mapping[str, npt.NDArray[Any]] = {}


class Update(NamedTuple):
    """What comes of a client's work.

    Attributes
    ----------
    client : int
        Who it is.
    vector : array
        What it sends: of θ's shape.
    n_samples : float
        For how many samples it speaks; where samples are weighted, this need not be a whole number.
    loss : float
        Its mean loss.
    more : mapping of str to array
        What else it sends.
    memory : mapping of str to array
        What it keeps for its next round; it does not reach the server.
    """

    client: int
    vector: Floats
    n_samples: float
    loss: float
    more: Mapping[str, npt.NDArray[Any]] = NOTHING
    memory: Mapping[str, npt.NDArray[Any]] = NOTHING

    @property
    def bytes_sent(self) -> int:
        """What the client sends, in bytes, without who it is, its number of samples and its loss."""
        return self.vector.nbytes + sum(array.nbytes for array in self.more.values())

    def sent(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return what the client sent under that name besides its vector.

        Raises
        ------
        ValueError
            If there is nothing of that name, or it has another shape.
        """
        got = np.shape(self.more[name]) if name in self.more else "nothing"
        if got != shape:
            raise ValueError(f"client {self.client} must send {name!r} of shape {shape}, got {got}")
        return self.more[name]


class Algorithm(Protocol):
    """Two pure functions over plain state."""

    @property
    def mlp(self) -> MLP:
        """The network whose θ is learnt."""

    def init(self, theta: Floats) -> State:
        """Return the server's state before the first round, which starts from `theta`."""

    def client_update(self, state: State, client: Client, rng: np.random.Generator) -> Update:
        """Return what the client sends after it received `state`."""

    def server_update(self, state: State, updates: Sequence[Update]) -> State:
        """Return the state after the round, given the updates of those clients that took part."""


@dataclass(frozen=True)
class FedAvg:
    """Federated averaging: train locally for some epochs, then average the models.

    A client sends how far it moved, Δₖ = θₖ - θ; the server adds the mean of the moves, weighted by
    nₖ. As the weights sum to 1, θ + Σ (nₖ/n) Δₖ is the weighted mean of the clients' models θₖ.

    Parameters
    ----------
    mlp : MLP
    epochs : int
        E, passes through the client's data in a round.
    batch_size : int or None
        B, at most what a client has; None is B = ∞: all the client's data in one batch.
    learning_rate : float
        η of the clients' plain SGD.
    aggregate : callable
        What the server makes of the moves: ``aggregate(vectors, numbers of samples)``.

    Raises
    ------
    ValueError
        If a setting is out of range.

    Notes
    -----
    McMahan et al. (2017), Algorithm 1.
    """

    mlp: MLP
    epochs: int = 1
    batch_size: int | None = 10
    learning_rate: float = 0.1
    aggregate: Aggregate = weighted_mean

    def __post_init__(self) -> None:
        checks.integer("epochs", self.epochs)
        if self.batch_size is not None:
            checks.integer("batch_size", self.batch_size)
        checks.number("learning_rate", self.learning_rate, above=0)

    def init(self, theta: Floats) -> State:
        return {"theta": checks.theta(theta, self.mlp.size).copy()}

    def client_update(self, state: State, client: Client, rng: np.random.Generator) -> Update:
        theta = state["theta"]
        theta_k, loss = self.train(theta, client, rng)
        return Update(client.id, theta_k - theta, client.n_samples, loss)

    def server_update(self, state: State, updates: Sequence[Update]) -> State:
        move = aggregated(self.aggregate, [u.vector for u in updates], [u.n_samples for u in updates])
        return {"theta": state["theta"] + move}

    def train(
        self,
        theta: Floats,
        client: Client,
        rng: np.random.Generator,
        *,
        proximal: float = 0.0,
        drift: Floats | None = None,
    ) -> tuple[Floats, float]:
        """Return what `local_sgd` does with these settings."""
        return local_sgd(
            self.mlp,
            theta,
            client,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            rng=rng,
            proximal=proximal,
            drift=drift,
        )


@dataclass(frozen=True)
class FedSGD:
    """Federated SGD: each client sends the gradient over all its data, the server takes one step.

    With all clients, it is a step of gradient descent on all their data, whose gradient is
    Σ (nₖ/n) gₖ.

    Parameters
    ----------
    mlp : MLP
    learning_rate : float
        η of the server's step.
    aggregate : callable
        What the server makes of the gradients, as for `FedAvg`.

    Raises
    ------
    ValueError
        If the learning rate is not above 0.

    Notes
    -----
    McMahan et al. (2017), section 2.
    """

    mlp: MLP
    learning_rate: float = 0.1
    aggregate: Aggregate = weighted_mean

    def __post_init__(self) -> None:
        checks.number("learning_rate", self.learning_rate, above=0)

    def init(self, theta: Floats) -> State:
        return {"theta": checks.theta(theta, self.mlp.size).copy()}

    def client_update(self, state: State, client: Client, rng: np.random.Generator) -> Update:
        gradient, loss = local_gradient(self.mlp, state["theta"], client)
        return Update(client.id, gradient, client.n_samples, loss)

    def server_update(self, state: State, updates: Sequence[Update]) -> State:
        gradient = aggregated(self.aggregate, [u.vector for u in updates], [u.n_samples for u in updates])
        return {"theta": state["theta"] - float(self.learning_rate) * gradient}


@dataclass(frozen=True)
class Wrapper:
    """An algorithm around another, which it is itself but for what it says otherwise.

    Parameters
    ----------
    algorithm : Algorithm
    """

    algorithm: Algorithm

    @property
    def mlp(self) -> MLP:
        return self.algorithm.mlp

    def init(self, theta: Floats) -> State:
        return self.algorithm.init(theta)

    def client_update(self, state: State, client: Client, rng: np.random.Generator) -> Update:
        return self.algorithm.client_update(state, client, rng)

    def server_update(self, state: State, updates: Sequence[Update]) -> State:
        return self.algorithm.server_update(state, updates)


Alter = Callable[[Update, State, Client, np.random.Generator], Update]


@dataclass(frozen=True)
class Altered(Wrapper):
    """An algorithm whose clients' updates are altered before they are sent.

    Compressing, clipping, adding noise and lying are all this; it composes with any algorithm.

    Parameters
    ----------
    algorithm : Algorithm
    alter : callable
        Takes the update that the algorithm made, the state, the client and its random generator, and
        returns what is sent instead. With several workers it must pickle: a function of a module, or a
        dataclass with ``__call__``.
    """

    alter: Alter

    def client_update(self, state: State, client: Client, rng: np.random.Generator) -> Update:
        return self.alter(self.algorithm.client_update(state, client, rng), state, client, rng)
