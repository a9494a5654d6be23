"""What each client's update is worth: to a server that has a few samples of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import comb

import numpy as np

from nnbrain import checks
from nnbrain.checkpoint import digest
from nnbrain.checks import Floats, Ints
from nnbrain.federated.algorithms import State, Update, Wrapper

MOST_PLAYERS = 12  # 4,096 subsets


def shapley(worth: Callable[[tuple[int, ...]], float], n: int) -> Floats:
    """Return what each of `n` players adds to the worth of a group, on average over all orders of arrival.

    φₖ is the sum, over all subsets A without k, of (worth(A and k) - worth(A)) / (n C(n-1, number in A)). All
    φ sum to worth(all) - worth(nobody).

    Parameters
    ----------
    worth : callable
        Takes a tuple of players in ascending order, from () to (0, …, n-1). It is called once for each.
    n : int
        At most 12.

    Returns
    -------
    array (n,)

    Raises
    ------
    ValueError
        If `n` is out of range.

    Notes
    -----
    Shapley (1953).
    """
    if checks.integer("n", n) > MOST_PLAYERS:
        raise ValueError(f"n must be at most {MOST_PLAYERS}, as 2**n groups are looked at, got {n}")
    value = np.zeros(n)
    worths = {A: worth(A) for size in range(n + 1) for A in combinations(range(n), size)}
    for A, with_all in worths.items():
        for k in A:
            without = tuple(j for j in A if j != k)
            value[k] += (with_all - worths[without]) / (n * comb(n - 1, len(without)))
    return value


@dataclass(frozen=True)
class Valued(Wrapper):
    """An algorithm whose server notes what each update is worth, on held-out samples.

    The worth of a group of updates is minus the mean loss on the held-out samples after a server update with
    these alone; an update's value is its Shapley value among those of its round. The values of a client are
    summed over rounds in the state, under "value", and counted under "valued". θ goes the same way as
    without.

    Parameters
    ----------
    algorithm : Algorithm
        Its `server_update` is called for each subset of a round's updates: 2**12 of them at most. Where it
        can do without updates, as `DifferentiallyPrivate` can, a round without any values nobody.
    X : array (n, features)
    y : array (n,)
        The held-out samples. What they do not ask for has no value.
    n_clients : int
        Clients have ids 0 … n_clients-1.

    Raises
    ------
    ValueError
        If there are more than 12 updates in a round, or a client's id is out of range.

    Notes
    -----
    The federated Shapley value of Wang, Rausch, Zhang, Jia & Song (2020). It needs each update in the clear:
    under secure aggregation there is nothing to be valued.
    """

    X: Floats = field(repr=False, compare=False)
    y: Ints = field(repr=False, compare=False)
    n_clients: int
    samples: str = field(init=False)  # stands for X and y among the settings of a run

    def __post_init__(self) -> None:
        checks.integer("n_clients", self.n_clients)
        object.__setattr__(self, "samples", digest(self.X, self.y))

    def init(self, theta: Floats) -> State:
        self.mlp.check_data(theta, self.X, self.y)
        zeros = np.zeros(self.n_clients)
        return {**self.algorithm.init(theta), "value": zeros, "valued": zeros.astype(int)}

    def server_update(self, state: State, updates: Sequence[Update]) -> State:
        after = self.algorithm.server_update(state, updates)  # first: what it refuses is worth nothing
        ids = [update.client for update in updates]
        check_ids(ids, self.n_clients)

        def worth(group: tuple[int, ...]) -> float:
            some = [updates[i] for i in group]
            moved = self.algorithm.server_update(state, some) if some else state
            return -self.mlp.mean_loss(moved["theta"], self.X, self.y)

        value, valued = state["value"].copy(), state["valued"].copy()
        if ids:
            value[ids] += shapley(worth, len(ids))
            valued[ids] += 1
        return {**after, "value": value, "valued": valued}


def check_ids(ids: Sequence[int], n_clients: int) -> None:
    """Raise a ValueError if one of the clients has no place among the values of so many."""
    outside = [k for k in ids if not 0 <= k < n_clients]
    if outside:
        raise ValueError(
            f"clients must have ids in 0..{n_clients - 1}, as n_clients of Valued says, got {outside}"
        )
