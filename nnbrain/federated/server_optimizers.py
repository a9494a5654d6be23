"""Optimisers on the server: the mean move of the clients, taken for minus a gradient."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.federated.algorithms import State, Update, Wrapper
from nnbrain.mlp.optimizers import Optimizer

PREFIX = "server_"  # of what the optimiser keeps, in the state


@dataclass(frozen=True)
class FedOpt(Wrapper):
    """An algorithm whose server does not go where the clients' moves say, but where an optimiser does.

    Let the algorithm move θ by Δ. The optimiser takes a step with -Δ in place of the gradient. With
    ``SGD(1.0)`` nothing is changed, and

    - ``FedOpt(FedAvg(mlp), SGD(1.0, momentum=0.9))`` is FedAvgM,
    - ``FedOpt(FedAvg(mlp), Adaptive("adam"))`` is FedAdam, and likewise FedYogi and FedAdagrad.

    Parameters
    ----------
    algorithm : Algorithm
        Any. With `FedSGD`, Δ is -η times the gradient.
    optimizer : Optimizer
        One of `nnbrain.mlp`, or `Adaptive`. What it keeps is in the server's state, under names that begin
        with ``server_``.

    Notes
    -----
    Reddi et al. (2021), Algorithm 1. FedAvgM: Hsu et al. (2019).
    """

    optimizer: Optimizer

    def init(self, theta: Floats) -> State:
        state = self.algorithm.init(theta)
        kept = self.optimizer.init(state["theta"])  # of shared layers, it is a part of `theta`
        return state | {PREFIX + name: array for name, array in kept.items()}

    def server_update(self, state: State, updates: Sequence[Update]) -> State:
        following = self.algorithm.server_update(state, updates)
        minus_move = state["theta"] - following["theta"]
        theta = state["theta"].copy()
        kept = {name: state[PREFIX + name].copy() for name in self.optimizer.init(theta)}
        self.optimizer.update(theta, minus_move, kept)
        return {**following, "theta": theta, **{PREFIX + name: array for name, array in kept.items()}}


@dataclass(frozen=True)
class Adaptive:
    """Adagrad, Yogi and Adam as servers use them: steps divided by the size that moves have had so far.

    With Δ the mean move (minus the gradient),

    - m ← β₁ m + (1 - β₁) Δ, from 0,
    - v ← v + Δ² (adagrad), v - (1 - β₂) Δ² sign(v - Δ²) (yogi), or β₂ v + (1 - β₂) Δ² (adam), from τ²,
    - θ ← θ + η m / (√v + τ).

    Nothing is corrected for having begun at zero, as it is in `nnbrain.mlp.Adam`: so the first step of adam
    is η (1 - β₁) Δ / (√(β₂ τ² + (1 - β₂) Δ²) + τ).

    Parameters
    ----------
    rule : {"adagrad", "yogi", "adam"}
    learning_rate : float
        η of the server, above 0.
    beta_1, beta_2 : float
        Shares of the old averages that are kept, in [0, 1). Adagrad has no use for `beta_2`.
    tau : float
        τ, above 0: moves much smaller than it are all treated alike; the smaller, the more adaptive.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of its range.

    Notes
    -----
    Reddi et al. (2021), Algorithm 2, with the weighted mean of the moves, and v begun at its least value.
    """

    rule: str
    learning_rate: float = 0.03
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        checks.choice("rule", self.rule, ("adagrad", "adam", "yogi"))
        checks.number("learning_rate", self.learning_rate, above=0)
        checks.number("beta_1", self.beta_1, minimum=0, below=1)
        checks.number("beta_2", self.beta_2, minimum=0, below=1)
        checks.number("tau", self.tau, above=0)

    def init(self, theta: Floats) -> State:
        return {"mean": np.zeros_like(theta), "square": np.full_like(theta, float(self.tau) ** 2)}

    def update(self, theta: Floats, grad: Floats, state: State) -> None:
        mean, square = state["mean"], state["square"]
        mean *= self.beta_1
        mean -= (1 - self.beta_1) * grad
        new = grad * grad
        if self.rule == "adagrad":
            square += new
        elif self.rule == "yogi":
            square -= (1 - self.beta_2) * new * np.sign(square - new)
        else:
            square *= self.beta_2
            square += (1 - self.beta_2) * new
        theta += self.learning_rate * mean / (np.sqrt(square) + self.tau)
