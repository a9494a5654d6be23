"""Differential privacy for whole clients: clip, add up, add noise, divide.

Two federations are neighbours if one has a client more. A run is (ε, δ)-private if, whatever it may give
out, neighbours give it out with probabilities p and p' that keep p <= e^ε p' + δ. `DifferentiallyPrivate`
sees to it in training; `accounting` says which ε it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.federated.aggregation import weighted_mean
from nnbrain.federated.algorithms import Algorithm, State, Update, Wrapper
from nnbrain.federated.clients import Client
from nnbrain.federated.randomness import NOISE, generator
from nnbrain.federated.selection import Clients, History, Positions

Total = Callable[[Sequence[Floats]], Floats]
ROUND, BOUND = "privacy.round", "privacy.clip"  # what the state has besides the algorithm's own


def clip(vector: Floats, bound: float) -> Floats:
    """Return `vector` if it is at most `bound` long, else shortened to that length."""
    norm = float(np.linalg.norm(vector))
    return vector if norm <= bound else vector * (bound / norm)


def plain_sum(vectors: Sequence[Floats]) -> Floats:
    """Return the sum of one or more vectors, in the order given and in their own type."""
    return sum(vectors[1:], start=vectors[0])


def poisson(state: State, clients: Clients, n: int, rng: Generator, history: History) -> Positions:
    """Select each client independently with probability n/K: `n` of the K come on average.

    It is the selection that `epsilon` counts on. It may draw nobody, with probability (1 - n/K)^K, about
    e⁻ⁿ: then the round of `DifferentiallyPrivate` is one of noise alone, as it must be.
    """
    return np.flatnonzero(rng.random(len(clients)) < n / len(clients)).tolist()


@dataclass(frozen=True)
class DifferentiallyPrivate(Wrapper):
    """An algorithm whose server learns, of each round, a noisy mean of clipped updates and no more.

    A client shortens its update to the clipping bound R, and the server does so once more, for those that did
    not. It adds up what came, adds normal noise of standard deviation z R to each entry, divides by the
    number m of clients that it *expected*, and hands the result to the algorithm as if one client had sent
    it. Neighbouring federations then differ, before the noise, by R/m at most: the sum by one clipped vector,
    the divisor not at all. For the same reason all clients count alike, however many samples they have.

    A round in which nobody came is a round of noise alone.

    Parameters
    ----------
    algorithm : Algorithm
        One whose server needs only the mean of the clients' vectors, as it will see nothing else: its
        `aggregate` is the `weighted_mean`, and what is wrapped around it changes the clients' side alone, as
        `Ditto` and `Altered` do. What changes the server's side, such as `FedOpt`, goes around this.
    clients_per_round : int
        m, how many clients come on average: what `simulate` asks `poisson` for.
    clip : float
        R, in the first round and, unless `quantile` is given, in all.
    noise_multiplier : float
        z, at least 0. 0 is no privacy.
    quantile : float, optional
        Share γ of updates that R should leave unclipped: then R follows it, R ← R exp(-rate (b - γ)), where
        b is the share of updates that were short enough, counted with noise of standard deviation m/20. The
        vectors get a little more noise, so that both together spend what z alone would.
    clip_rate : float
        The rate of that.
    seed : int
        Of the noise, which depends on it and the number of the round only: a run can be repeated and
        resumed. Who knows the seed can subtract the noise, so a real server must not know it, nor use this
        generator, which is not cryptographic.
    total : callable
        Adds up a round's vectors, one at least. With a `SecureSum` the server sees their sum alone, and need
        be trusted with no more; its rounding may lengthen a clipped vector of d entries by
        √d 2**-(fraction_bits + 1), for which `clip` must leave room.

    Raises
    ------
    ValueError
        If a setting is out of range, the algorithm's server needs more than a mean, or its clients send more
        than a vector; in a round, if a client says whether its update was short by other than 0 or 1.

    Notes
    -----
    McMahan et al. (2018), Algorithm 1, with Poisson sampling and the fixed denominator; Andrew et al. (2021)
    for `quantile`. The losses that `simulate` notes in its history are not covered: they are for the
    experimenter, and not to be published.
    """

    clients_per_round: int
    clip: float
    noise_multiplier: float
    quantile: float | None = None
    clip_rate: float = 0.2
    seed: int = 0
    total: Total = plain_sum

    def __post_init__(self) -> None:
        _check_needs_a_mean(self.algorithm)
        checks.integer("clients_per_round", self.clients_per_round)
        checks.number("clip", self.clip, above=0)
        checks.number("noise_multiplier", self.noise_multiplier, minimum=0)
        checks.number("clip_rate", self.clip_rate, above=0)
        checks.integer("seed", self.seed, minimum=0)
        if self.quantile is not None:
            checks.number("quantile", self.quantile, above=0, below=1)
            if self.noise_multiplier >= 2 * self.count_noise:
                raise ValueError(
                    f"noise_multiplier must be below clients_per_round / 10 where quantile is given, got "
                    f"{self.noise_multiplier} for {self.clients_per_round} clients"
                )

    @property
    def count_noise(self) -> float:
        """Standard deviation of the noise in the count of short updates."""
        return self.clients_per_round / 20

    @property
    def vector_noise(self) -> float:
        """The noise of the sum in units of R: with it and the noise of the count, z is spent.

        The count is of ±½, so a client changes it by ½, and noise of σ is one of multiplier 2σ. Of two
        releases the inverse squares of the multipliers add up.
        """
        if self.quantile is None or self.noise_multiplier == 0:
            return self.noise_multiplier
        return float((self.noise_multiplier**-2 - (2 * self.count_noise) ** -2) ** -0.5)

    def init(self, theta: Floats) -> State:
        """Return the algorithm's state, the number of rounds so far, and the clipping bound."""
        return {**self.algorithm.init(theta), ROUND: np.array(0), BOUND: np.array(float(self.clip))}

    def client_update(self, state: State, client: Client, rng: np.random.Generator) -> Update:
        """Return the algorithm's update, clipped; and, if R adapts, whether it was short enough."""
        update = _alone(self.algorithm.client_update(state, client, rng))
        bound = float(state[BOUND])
        short = np.array(np.linalg.norm(update.vector) <= bound, np.int8)
        more = {} if self.quantile is None else {"short": short}
        return update._replace(vector=clip(update.vector, bound), more=more)

    def server_update(self, state: State, updates: Sequence[Update]) -> State:
        """Return the state after the algorithm has taken the noisy mean for an update."""
        number, bound, m = int(state[ROUND]) + 1, float(state[BOUND]), self.clients_per_round
        theta, rng = state["theta"], generator(self.seed, NOISE, number)
        vectors = [clip(u.vector, bound) for u in updates]
        total = self.total(vectors) if vectors else np.zeros_like(theta)
        noise = rng.normal(0, self.vector_noise * bound, theta.shape)
        mean = ((total + noise) / m).astype(theta.dtype)
        if self.quantile is not None:
            count = sum(_bit(u) - 0.5 for u in updates)
            share = 0.5 + (count + rng.normal(0, self.count_noise)) / m
            bound *= float(np.exp(-self.clip_rate * (share - self.quantile)))
        one = Update(client=-1, vector=mean, n_samples=1, loss=0.0)
        following = self.algorithm.server_update(state, [one])
        return {**following, ROUND: np.array(number), BOUND: np.array(bound)}


def _check_needs_a_mean(algorithm: Algorithm) -> None:
    """Refuse an algorithm whose server would look for single updates where it gets their noisy mean."""
    while isinstance(algorithm, Wrapper):
        if type(algorithm).server_update is not Wrapper.server_update:
            raise ValueError(
                f"algorithm must leave the server's side as it is, got {type(algorithm).__name__}, whose "
                "server would see one mean instead of the clients' updates: put it around this"
            )
        algorithm = algorithm.algorithm
    aggregate = getattr(algorithm, "aggregate", weighted_mean)
    if aggregate is not weighted_mean:
        raise ValueError(
            f"algorithm must have weighted_mean for its aggregate, got {aggregate}, which would see one mean "
            "instead of the clients' updates (a SecureSum may be the total of DifferentiallyPrivate)"
        )


def _alone(update: Update) -> Update:
    """Return the update if its vector is all that is sent."""
    if update.more:
        besides = ", ".join(sorted(update.more))
        raise ValueError(f"algorithm must send one vector a client, got besides, without noise: {besides}")
    return update


def _bit(update: Update) -> float:
    """Return whether the client's update was short, as it says: 0 or 1."""
    short = float(update.sent("short", ()))
    if short not in (0, 1):
        raise ValueError(f"short must be 0 or 1, got {short} from client {update.client}")
    return short


@dataclass(frozen=True)
class LocalNoise:
    """Clip and add noise on the client: an `alter` for `Altered`, for those who do not trust the server.

    Parameters
    ----------
    clip : float
        R.
    noise_multiplier : float
        z: each entry of what is sent has noise of standard deviation z R. Another client's data would have
        moved the vector by 2R at most, so one message spends what z/2 does; see `epsilon`.
    """

    clip: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        checks.number("clip", self.clip, above=0)
        checks.number("noise_multiplier", self.noise_multiplier, minimum=0)

    def __call__(self, update: Update, state: State, client: Client, rng: np.random.Generator) -> Update:
        """Return the update with its vector clipped and noisy.

        Raises
        ------
        ValueError
            If it has more than a vector, which would be sent without noise.
        """
        vector = clip(_alone(update).vector, self.clip)
        noise = rng.normal(0, self.noise_multiplier * self.clip, vector.shape)
        return update._replace(vector=(vector + noise).astype(vector.dtype))
