"""Differential privacy for whole clients: clip, average, add noise; and what the run has spent.

Two federations are neighbours if one has a client more. A run is (ε, δ)-private if, whatever it may give
out, neighbours give it out with probabilities p and p' that keep p <= e^ε p' + δ. `DifferentiallyPrivate`
sees to it in training; `epsilon` says which ε it was, and leaves the arithmetic to ``dp-accounting``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.federated.algorithms import State, Update, Wrapper
from nnbrain.federated.clients import Client
from nnbrain.federated.rounds import Round
from nnbrain.federated.workers import generator

NOISE = 2  # a purpose of random numbers, beside those of `workers`
ROUND, BOUND = "privacy.round", "privacy.clip"  # what the state has besides the algorithm's own


def clip(vector: Floats, bound: float) -> Floats:
    """Return `vector` if it is at most `bound` long, else shortened to that length."""
    norm = float(np.linalg.norm(vector))
    return vector if norm <= bound else vector * (bound / norm)


def poisson(
    state: State, clients: Sequence[Client], n: int, rng: np.random.Generator, history: Sequence[Round]
) -> Sequence[int]:
    """Select each client independently with probability n/K: `n` of the K come on average.

    It is the selection that `epsilon` counts on. It may draw nobody, with probability (1 - n/K)^K, about
    e⁻ⁿ: then the round of `DifferentiallyPrivate` is one of noise alone, as it must be.
    """
    return np.flatnonzero(rng.random(len(clients)) < n / len(clients)).tolist()


@dataclass(frozen=True)
class DifferentiallyPrivate(Wrapper):
    """An algorithm whose server learns, of each round, a noisy mean of clipped updates and no more.

    A client shortens its update to the clipping bound R. The server adds up what came, adds normal noise of
    standard deviation z R to each entry, divides by the number m of clients that it *expected*, and hands
    the result to the algorithm as if one client had sent it. Neighbouring federations then differ, before
    the noise, by R/m at most: the sum by one clipped vector, the divisor not at all. For the same reason
    all clients count alike, however many samples they have.

    A round in which nobody came is a round of noise alone.

    Parameters
    ----------
    algorithm : Algorithm
        Any whose server needs only a mean of the clients' vectors, such as `FedAvg` and `FedSGD`.
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

    Raises
    ------
    ValueError
        If a setting is out of range, or the algorithm's clients send more than a vector.

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

    def __post_init__(self) -> None:
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
        update = self.algorithm.client_update(_inner(state), client, rng)
        if update.more:
            besides = ", ".join(sorted(update.more))
            raise ValueError(
                f"algorithm must send one vector a client, got besides, without noise: {besides}"
            )
        bound = float(state[BOUND])
        short = np.array(np.linalg.norm(update.vector) <= bound, np.int8)
        more = {} if self.quantile is None else {"short": short}
        return update._replace(vector=clip(update.vector, bound), more=more)

    def server_update(self, state: State, updates: Sequence[Update]) -> State:
        """Return the state after the algorithm has taken the noisy mean for an update."""
        number, bound, m = int(state[ROUND]) + 1, float(state[BOUND]), self.clients_per_round
        theta, rng = state["theta"], generator(self.seed, NOISE, number)
        total = sum((u.vector for u in updates), np.zeros_like(theta))
        noise = rng.normal(0, self.vector_noise * bound, theta.shape)
        mean = ((total + noise) / m).astype(theta.dtype)
        if self.quantile is not None:
            count = sum(float(u.more["short"]) - 0.5 for u in updates)
            share = 0.5 + (count + rng.normal(0, self.count_noise)) / m
            bound *= float(np.exp(-self.clip_rate * (share - self.quantile)))
        one = Update(client=-1, vector=mean, n_samples=1, loss=0.0)
        following = self.algorithm.server_update(_inner(state), [one])
        return {**following, ROUND: np.array(number), BOUND: np.array(bound)}


def _inner(state: State) -> State:
    return {name: array for name, array in state.items() if name not in (ROUND, BOUND)}


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
        """Return the update with its vector clipped and noisy."""
        vector = clip(update.vector, self.clip)
        noise = rng.normal(0, self.noise_multiplier * self.clip, vector.shape)
        return update._replace(vector=(vector + noise).astype(vector.dtype))


def epsilon(
    noise_multiplier: float,
    *,
    clients: int,
    clients_per_round: int,
    rounds: int,
    delta: float,
    sampling: str = "poisson",
) -> float:
    """Return ε of a run, so that it is (ε, δ)-private for each client.

    Parameters
    ----------
    noise_multiplier : float
        z: noise of standard deviation z R on a sum of vectors that are R long at most.
    clients, clients_per_round : int
        K and m. What one client sends under `LocalNoise` is a sum over 1 of 1, with sampling="fixed".
    rounds : int
    delta : float
        δ in (0, 1). It should be well below 1/K.
    sampling : {"poisson", "fixed"}
        How clients are selected, and with it what is hidden. With "poisson", as `poisson` selects, it is
        whether a client is there at all, which moves a sum by R. With "fixed", exactly m in each round, as
        `uniform` selects, K is known, and what is hidden is which client it is: that moves a sum by 2R.

    Returns
    -------
    float
        0 for no rounds, infinity for no noise.

    Raises
    ------
    ValueError
        If an argument is out of range.
    ImportError
        If dp-accounting is not there.

    Notes
    -----
    ``dp_accounting`` computes it: from privacy-loss distributions, which bound ε closely; for fixed sizes
    below K from Rényi divergences, with Theorem 27 of Wang et al. (2019). Both bound it from above.
    """
    checks.number("noise_multiplier", noise_multiplier, minimum=0)
    clients, m = checks.integer("clients", clients), checks.integer("clients_per_round", clients_per_round)
    if m > clients:
        raise ValueError(f"clients_per_round must be at most the {clients} clients, got {m}")
    rounds = checks.integer("rounds", rounds, minimum=0)
    checks.number("delta", delta, above=0, below=1)
    checks.choice("sampling", sampling, ("poisson", "fixed"))
    dp = _library()
    if rounds == 0 or noise_multiplier == 0:
        return float(np.inf) if rounds else 0.0
    # The library's multipliers are of the largest change of the sum: R, or 2R.
    z = noise_multiplier if sampling == "poisson" else noise_multiplier / 2
    event, everybody = dp.GaussianDpEvent(z), m == clients
    # Losses are rounded up to steps: where there is no sampling, they are large, and so may the steps be.
    step = max(5e-4, 5e-5 * rounds / z**2 if everybody else 0.0)
    accountant = dp.pld.PLDAccountant(value_discretization_interval=step)
    if sampling == "poisson" and not everybody:
        event = dp.PoissonSampledDpEvent(m / clients, event)
    elif not everybody:
        event = dp.SampledWithoutReplacementDpEvent(clients, m, event)
        accountant = dp.rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
    accountant.compose(event, rounds)
    return float(accountant.get_epsilon(delta))


def _library() -> Any:
    try:
        import_module("dp_accounting.pld"), import_module("dp_accounting.rdp")
        return import_module("dp_accounting")
    except ImportError as error:
        raise ImportError(
            "epsilon needs dp-accounting; to install it: pip install 'nnbrain[privacy]'"
        ) from error
