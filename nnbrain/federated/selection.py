"""Selection: which clients take part in a round, and how long such a round takes.

A rule is called with what the server knows: ``select(state, clients, n, rng, history)`` returns the positions
in `clients` of those to ask, n of them as a rule, in any order. Rules remember nothing: what they need of the
past is in the state or in the history, so that a run that goes on from a checkpoint has the same bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.random import Generator

from nnbrain import checks
from nnbrain.checks import Floats, Ints
from nnbrain.distributed.asynchrony import Cluster
from nnbrain.federated.algorithms import State
from nnbrain.federated.clients import Client
from nnbrain.federated.contributions import check_ids
from nnbrain.federated.rounds import Round
from nnbrain.mlp.network import MLP

Clients = Sequence[Client]
History = Sequence[Round]
Positions = Sequence[int] | Ints

# Takes the state, all clients, how many are wanted, a generator, and the rounds so far.
Select = Callable[[State, Clients, int, Generator, History], Positions]


def number_asked(client_fraction: float, n_clients: int) -> int:
    """Return max(1, round(C K)): how many of K clients a share C of them is."""
    return max(1, round(client_fraction * n_clients))


def draw(n_clients: int, n: int, rng: Generator) -> Ints:
    """Return `n` of the positions 0 … n_clients-1, ascending, each set of `n` as likely as any other."""
    return np.sort(rng.choice(n_clients, n, replace=False))


def positions(chosen: Positions, n_clients: int) -> list[int]:
    """Return what a rule has returned, ascending, if it is positions of different clients."""
    given = sorted(checks.integer("select's answer", k, minimum=0) for k in chosen)
    if len(set(given)) < len(given) or max(given, default=0) >= n_clients:
        raise ValueError(
            f"select must return positions of different clients in 0..{n_clients - 1}, got {given}"
        )
    return given


def uniform(state: State, clients: Clients, n: int, rng: Generator, history: History) -> Positions:
    """Return the positions of `n` of the clients, each set of `n` as likely as any other."""
    return draw(len(clients), n, rng)


@dataclass(frozen=True)
class PowerOfChoice:
    """Of some candidates, those for whom the present model is worst.

    Candidates are drawn one after the other in proportion to their data, and each tells its mean loss at θ;
    the n with the highest are asked to train. For that θ must be sent to all candidates; what comes back is
    one number of each.

    Parameters
    ----------
    mlp : MLP
        Computes the losses.
    candidates : int
        d, from n to the number of clients. With n, the losses play no role; with all, chance plays none.
    remembered : bool
        Instead of asking for it, take the loss that a client last reported, when it took part, and infinity
        for those that never did. That costs nothing, and is as old as it is.

    Raises
    ------
    ValueError
        If `candidates` is out of range.

    Notes
    -----
    Cho, Wang & Joshi (2022): π_pow-d and, remembered, π_rpow-d. They give the n clients equal weights in the
    mean, since n_k is in the drawing already. Where clients have the same number of samples, it is the same.
    """

    mlp: MLP
    candidates: int
    remembered: bool = False

    def __post_init__(self) -> None:
        checks.integer("candidates", self.candidates)

    def __call__(self, state: State, clients: Clients, n: int, rng: Generator, history: History) -> Positions:
        """Return the positions of the n candidates with the highest losses."""
        if not n <= self.candidates <= len(clients):
            raise ValueError(
                f"candidates must be at least the {n} clients asked in a round and at most all "
                f"{len(clients)}, got {self.candidates}"
            )
        sizes = np.array([client.n_samples for client in clients])
        p = sizes / sizes.sum()
        drawn = rng.choice(len(clients), self.candidates, replace=False, p=p)
        if self.candidates == n:
            return drawn
        if self.remembered:
            last = last_losses(history)
            losses = [last.get(clients[k].id, np.inf) for k in drawn]
        else:
            theta = state["theta"]
            losses = [local_loss(self.mlp, theta, clients[k]) for k in drawn]
        return drawn[np.argsort(losses, kind="stable")[::-1][:n]]


def local_loss(mlp: MLP, theta: Floats, client: Client) -> float:
    """Return F_k(θ), the mean loss over the client's own data."""
    return mlp.mean_loss(theta, *client.rows, client.weights)


def last_losses(history: Sequence[Round]) -> dict[int, float]:
    """Return, by id, the loss that each client reported when it last took part."""
    return {
        k: loss for round in history for k, loss in zip(round.clients, round.per_client["loss"], strict=True)
    }


@dataclass(frozen=True)
class Deadline:
    """Of some candidates, at most n of those who would be done in time.

    With as many candidates as clients it asks the fast ones only; with n it drops the late ones of n clients
    drawn at random, so that fewer take part. If no candidate would be in time, the fastest is asked.

    Parameters
    ----------
    seconds : sequence of float
        How long a round takes clients 0, 1, …, by id, with all that is to be sent.
    deadline : float
        In seconds.
    candidates : int, optional
        Drawn at random; all clients by default.

    Raises
    ------
    ValueError
        If a number is out of range, or a client's seconds are missing.

    Notes
    -----
    After FedCS of Nishio & Yonetani (2019), in which candidates tell what they can do, and the server asks as
    many as can be done by the deadline. It also plans when each of them computes and sends, as the radio link
    allows; here clients do not get into each other's way.
    """

    seconds: Sequence[float]
    deadline: float
    candidates: int | None = None

    def __post_init__(self) -> None:
        seconds = tuple(checks.number(f"seconds[{k}]", t, above=0) for k, t in enumerate(self.seconds))
        object.__setattr__(self, "seconds", seconds)  # no array: the text of a long one lacks its middle
        checks.number("deadline", self.deadline, above=0)
        if self.candidates is not None:
            checks.integer("candidates", self.candidates)

    def __call__(self, state: State, clients: Clients, n: int, rng: Generator, history: History) -> Positions:
        """Return the positions of at most n candidates who would be in time, and of one at least."""
        d = len(clients) if self.candidates is None else self.candidates
        if d > len(clients):
            raise ValueError(f"candidates must be at most the {len(clients)} clients there are, got {d}")
        if any(not 0 <= client.id < len(self.seconds) for client in clients):
            raise ValueError(f"seconds must have an entry for each client's id, got {len(self.seconds)}")
        drawn = rng.choice(len(clients), d, replace=False)
        times = np.array([self.seconds[clients[k].id] for k in drawn])
        in_time = drawn[times <= self.deadline][:n]
        return in_time if len(in_time) else drawn[[times.argmin()]]


@dataclass(frozen=True)
class Useful:
    """Those at random whose updates, on the whole, have been of use.

    Parameters
    ----------
    trials : int
        How often a client's update must have been valued before it may be left out.

    Notes
    -----
    The values are in the state, under "value" and "valued", where `nnbrain.federated.contributions.Valued`
    puts them. A client is left out if the sum of its values is below 0. If fewer than n are left, the best
    of the others are asked too.
    """

    trials: int = 2

    def __post_init__(self) -> None:
        checks.integer("trials", self.trials)

    def __call__(self, state: State, clients: Clients, n: int, rng: Generator, history: History) -> Positions:
        """Return the positions of n clients."""
        if "value" not in state:
            raise ValueError(f"state must have 'value', of Valued, got {sorted(state)}")
        ids = [client.id for client in clients]
        check_ids(ids, len(state["value"]))
        tried, value = state["valued"][ids], state["value"][ids]
        order = rng.permutation(len(clients))
        out = ((tried >= self.trials) & (value < 0))[order]
        best_first = sorted(order[out], key=lambda k: -value[k])
        return np.array([*order[~out], *best_first][:n])


def round_ends(history: Sequence[Round], cluster: Cluster, *, deadline: float | None = None) -> Floats:
    """Return when each round ends, in virtual seconds, if the server waits for all whom it asked.

    Parameters
    ----------
    history : sequence of Round
    cluster : Cluster
        Says how long client k, by its id, works in a round. All its workers must be idle; its clock runs on.
    deadline : float, optional
        If it is given, each round lasts as long, neither more nor less: the server cannot know that nobody
        else will come.

    Returns
    -------
    array (rounds,)

    Raises
    ------
    ValueError
        If the cluster has no worker for a client, or one is busy.
    """
    if cluster.busy:
        raise ValueError(f"cluster must have idle workers only, got {sorted(cluster.busy)} at work")
    if deadline is not None:
        return checks.number("deadline", deadline, above=0) * np.arange(1, len(history) + 1)
    ends = []
    for round in history:
        for client in round.clients:
            cluster.start(client)
        for _ in cluster:
            pass
        ends.append(cluster.now)
    return np.array(ends)


def expected_slowest(seconds: Sequence[float], n: int) -> float:
    """Return the mean time of the slowest of `n` clients who are drawn at random from all.

    With t₍₁₎ ≤ … ≤ t₍K₎ it is Σⱼ t₍ⱼ₎ C(j-1, n-1) / C(K, n): client j is the slowest if the others are
    among the j-1 faster ones.

    Raises
    ------
    ValueError
        If there are fewer than `n`.
    """
    times = sorted(checks.number(f"seconds[{k}]", t, above=0) for k, t in enumerate(seconds))
    if checks.integer("n", n) > len(times):
        raise ValueError(f"n must be at most the {len(times)} clients there are, got {n}")
    return sum(t * comb(j, n - 1) for j, t in enumerate(times)) / comb(len(times), n)
