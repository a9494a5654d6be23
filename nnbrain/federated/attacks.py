"""Attacks: what clients that lie do to their data, or to what they send. For experiments and tests.

- Poisoned data: `flip_labels` and `plant_trigger` return other clients. They train honestly, on lies.
- A poisoned update: ``Altered(algorithm, Scaled(attackers, factor))``.
- A conspiracy: ``Colluding(algorithm, attackers, forge)``; its members compare what they honestly would
  send, and all send one forged vector.

All of these lie about the vector only: its sample count, its loss and what else an update has stay.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats, Ints
from nnbrain.federated.algorithms import State, Update, Wrapper
from nnbrain.federated.clients import Client
from nnbrain.mlp.network import MLP


def flip_labels(
    clients: Sequence[Client], attackers: Collection[int], new_labels: npt.ArrayLike
) -> list[Client]:
    """Return the clients, the attackers with wrong labels on their samples, of which they get a copy.

    Parameters
    ----------
    clients : sequence of Client
        Not changed.
    attackers : collection of int
        Ids of those that lie. One that no client has attacks nobody.
    new_labels : array of int
        What an attacker calls class c: ``new_labels[c]``. ``range(9, -1, -1)`` turns all digits round.

    Raises
    ------
    ValueError
        If an attacker is not among the clients, or has a label that `new_labels` does not say.
    """
    _check_attackers(attackers, [client.id for client in clients])
    new = checks.labels("new_labels", new_labels, np.size(new_labels))
    flipped = []
    for client in clients:
        if client.id in attackers:
            X, old = client.rows
            if old.max() >= len(new):
                raise ValueError(
                    f"new_labels must have an entry for each label, got {len(new)} and label {old.max()}"
                )
            client = client.with_data(X, new[old])
        flipped.append(client)
    return flipped


@dataclass(frozen=True)
class Trigger:
    """A mark that is put on an input, and the class that a network with the backdoor then answers.

    Parameters
    ----------
    features : tuple of int
        Which features, for example pixels, the mark sets.
    target : int
    value : float
        What they are set to.
    """

    features: tuple[int, ...]
    target: int
    value: float = 1.0

    def mark(self, X: Floats) -> Floats:
        """Return a copy of the rows X (n, d) with the mark on each."""
        marked = X.copy()
        marked[:, list(self.features)] = self.value
        return marked

    def success_rate(self, mlp: MLP, theta: Floats, X: Floats, y: Ints) -> float:
        """Return the share of the rows that, with the mark on, are classified as the target.

        Rows of the target class are left out: of them it would be no success.
        """
        others = y != self.target
        if not np.any(others):
            raise ValueError(f"y must have labels other than the target {self.target}, got none")
        return float(np.mean(mlp.predict(theta, self.mark(X[others])) == self.target))


def plant_trigger(
    clients: Sequence[Client], attackers: Collection[int], trigger: Trigger, share: float = 0.5
) -> list[Client]:
    """Return the clients, the attackers with the mark and the target label on a share of their samples.

    The other samples stay as they are, so that the network goes on to answer well where there is no mark.
    Each attacker gets a copy of its own rows; it has as many as before.

    Raises
    ------
    ValueError
        If an attacker is not among the clients, or the share is not in (0, 1].

    Notes
    -----
    Bagdasaryan et al. (2020), who let each of the attacker's batches have samples of both kinds.
    """
    _check_attackers(attackers, [client.id for client in clients])
    checks.number("share", share, above=0, maximum=1)
    planted = []
    for client in clients:
        if client.id in attackers:
            X, y = client.rows
            n = max(1, round(share * client.n_samples))
            X[:n], y[:n] = trigger.mark(X[:n]), trigger.target
            client = client.with_data(X, y)
        planted.append(client)
    return planted


@dataclass(frozen=True)
class Scaled:
    """What attackers send, times a factor; for `Altered`.

    A factor below 0 is a sign flip: it leads away from where the data point. One equal to the sum of all
    weights over the attacker's own makes the mean go where the attacker's model is: model replacement.

    Parameters
    ----------
    attackers : collection of int
        Ids of those that lie. One that no client has attacks nobody.
    factor : float

    Notes
    -----
    Model replacement: Bagdasaryan et al. (2020).
    """

    attackers: Collection[int]
    factor: float

    def __post_init__(self) -> None:
        checks.number("factor", self.factor)

    def __call__(self, update: Update, state: State, client: Client, rng: np.random.Generator) -> Update:
        """Return the update, scaled if the client is an attacker."""
        if client.id not in self.attackers:
            return update
        return update._replace(vector=update.vector * float(self.factor))


Forge = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Colluding(Wrapper):
    """An algorithm some of whose clients agree on one vector before they send.

    They know each other's updates and nobody else's: fewer know less. What they do on the way to the
    server is done here at its door, before the algorithm's own `server_update`.

    Parameters
    ----------
    algorithm : Algorithm
    attackers : collection of int
        Their ids. Those that take part in a round collude in it.
    forge : callable
        Takes what they would honestly send, the rows of an array (attackers, d), and returns the one
        vector (d,) that all of them send: `ALittle` or `InnerProduct`.
    """

    attackers: Collection[int]
    forge: Forge

    def server_update(self, state: State, updates: Sequence[Update]) -> State:
        """Return the state after the algorithm got the forged updates with the honest ones."""
        own = [update.vector for update in updates if update.client in self.attackers]
        if own:
            forged = np.asarray(self.forge(np.stack(own)), own[0].dtype)
            updates = [u._replace(vector=forged) if u.client in self.attackers else u for u in updates]
        return self.algorithm.server_update(state, updates)


@dataclass(frozen=True)
class ALittle:
    """The mean of what colluders would send, minus z standard deviations of each coordinate.

    So near to what honest clients send that some of these are farther out, but all on one side. A single
    colluder knows no deviation, and sends what it is to send.

    Parameters
    ----------
    z : float
        How many standard deviations.

    Notes
    -----
    Baruch, Baruch & Goldberg (2019).
    """

    z: float

    def __post_init__(self) -> None:
        checks.number("z", self.z)

    def __call__(self, vectors: Floats) -> Floats:
        """Return the forged vector (d,)."""
        return np.asarray(vectors.mean(axis=0) - float(self.z) * vectors.std(axis=0), vectors.dtype)


@dataclass(frozen=True)
class InnerProduct:
    """The mean of what colluders would send, turned round and made as long as wanted.

    If the aggregate comes to have a negative inner product with the honest mean, training goes uphill. A
    small factor suffices where the honest vectors scatter widely, and is hard to tell from them.

    Parameters
    ----------
    factor : float
        Above 0.

    Notes
    -----
    Xie, Koyejo & Gupta (2020).
    """

    factor: float

    def __post_init__(self) -> None:
        checks.number("factor", self.factor, above=0)

    def __call__(self, vectors: Floats) -> Floats:
        """Return the forged vector (d,)."""
        return np.asarray(-float(self.factor) * vectors.mean(axis=0), vectors.dtype)


def _check_attackers(attackers: Collection[int], ids: Collection[int]) -> None:
    strangers = set(attackers) - set(ids)
    if strangers:
        raise ValueError(f"attackers must be ids of clients, got {sorted(strangers)} besides")
