"""Optimisers: rules that move θ against the gradient.

An optimiser holds its settings and no state. Its state is a plain dictionary of arrays, so that it can
be saved, sent and compared like θ itself. Every `learning_rate` may be a number or one of `schedules`.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import daxpy, saxpy

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.mlp.schedules import Schedule, check_learning_rate, rate_at

State = dict[str, npt.NDArray[Any]]


class Optimizer(Protocol):
    """Two functions over plain state."""

    def init(self, theta: Floats) -> State:
        """Return the state before the first step."""

    def update(self, theta: Floats, grad: Floats, state: State) -> None:
        """Move θ one step against `grad`. Changes theta and state in place and uses up grad."""


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent, with momentum and Nesterov's momentum.

    At step t = 0, 1, …, with learning rate η_t and gradient g:

    - v ← momentum v - η_t g, and then
    - θ ← θ + v, or with `nesterov` θ ← θ + momentum v - η_t g.

    Parameters
    ----------
    learning_rate : float or Schedule
        η, above 0.
    momentum : float
        Share of the last move that is kept, in [0, 1).
    nesterov : bool
        Look one step ahead; needs momentum above 0.

    Raises
    ------
    ValueError
        If a setting is out of its range.

    Notes
    -----
    Momentum: Polyak (1964); Nesterov's as in Sutskever et al. (2013).
    """

    learning_rate: float | Schedule = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
        checks.number("momentum", self.momentum, minimum=0, below=1)
        if checks.flag("nesterov", self.nesterov) and self.momentum == 0:
            raise ValueError("momentum must be above 0 where nesterov=True, got 0")

    def init(self, theta: Floats) -> State:
        state: State = {"step": np.zeros((), np.int64)}
        if self.momentum:
            state["velocity"] = np.zeros_like(theta)
        return state

    def update(self, theta: Floats, grad: Floats, state: State) -> None:
        rate = rate_at(self.learning_rate, int(state["step"]))
        state["step"] += 1
        if not self.momentum:
            add_multiple(theta, -rate, grad)
            return
        grad *= rate
        velocity = state["velocity"]
        velocity *= self.momentum
        velocity -= grad
        if self.nesterov:
            theta -= grad
            add_multiple(theta, self.momentum, velocity)
        else:
            theta += velocity


@dataclass(frozen=True)
class RMSprop:
    """Each parameter's step is divided by the recent size of its own gradient.

    v ← ρ v + (1 - ρ) g², then θ ← θ - η_t g / (√v + ε).

    Parameters
    ----------
    learning_rate : float or Schedule
        η, above 0.
    rho : float
        Share of the old average that is kept, in [0, 1).
    epsilon : float
        Keeps the quotient finite, above 0.

    Raises
    ------
    ValueError
        If a setting is out of its range.

    Notes
    -----
    Tieleman & Hinton (2012), Lecture 6.5; ε stands where PyTorch has it.
    """

    learning_rate: float | Schedule = 0.001
    rho: float = 0.9
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
        checks.number("rho", self.rho, minimum=0, below=1)
        checks.number("epsilon", self.epsilon, above=0)

    def init(self, theta: Floats) -> State:
        return {"step": np.zeros((), np.int64), "square": np.zeros_like(theta)}

    def update(self, theta: Floats, grad: Floats, state: State) -> None:
        rate = rate_at(self.learning_rate, int(state["step"]))
        state["step"] += 1
        square = state["square"]
        square *= self.rho
        add_multiple(square, 1 - self.rho, grad * grad)
        root = np.sqrt(square)
        root += self.epsilon
        grad /= root
        add_multiple(theta, -rate, grad)


@dataclass(frozen=True)
class Adam:
    """Momentum and RMSprop together, both corrected for having begun at zero.

    With t counted from 1:

    - m ← β₁ m + (1 - β₁) g and v ← β₂ v + (1 - β₂) g²,
    - θ ← θ - η m̂ / (√v̂ + ε) with m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ).

    Parameters
    ----------
    learning_rate : float or Schedule
        η, above 0: about how far a parameter moves in a step.
    beta_1, beta_2 : float
        Shares of the old averages that are kept, in [0, 1).
    epsilon : float
        Keeps the quotient finite, above 0.

    Raises
    ------
    ValueError
        If a setting is out of its range.

    Notes
    -----
    Kingma & Ba (2015), Algorithm 1.
    """

    learning_rate: float | Schedule = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
        checks.number("beta_1", self.beta_1, minimum=0, below=1)
        checks.number("beta_2", self.beta_2, minimum=0, below=1)
        checks.number("epsilon", self.epsilon, above=0)

    def init(self, theta: Floats) -> State:
        return {
            "step": np.zeros((), np.int64),
            "mean": np.zeros_like(theta),
            "square": np.zeros_like(theta),
        }

    def update(self, theta: Floats, grad: Floats, state: State) -> None:
        rate = rate_at(self.learning_rate, int(state["step"]))
        state["step"] += 1
        t = int(state["step"])
        mean, square = state["mean"], state["square"]
        mean *= self.beta_1
        add_multiple(mean, 1 - self.beta_1, grad)
        grad *= grad
        square *= self.beta_2
        add_multiple(square, 1 - self.beta_2, grad)
        # m̂ / (√v̂ + ε) = c₂ / c₁ · m / (√v + c₂ ε) with c₁ = 1 - β₁ᵗ, c₂ = √(1 - β₂ᵗ): two passes fewer
        c_1, c_2 = 1 - self.beta_1**t, (1 - self.beta_2**t) ** 0.5
        np.sqrt(square, out=grad)
        grad += c_2 * self.epsilon
        np.divide(mean, grad, out=grad)
        add_multiple(theta, -rate * c_2 / c_1, grad)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam, and besides it θ shrinks by η_t · weight_decay in each step, whatever its gradient's size.

    Parameters
    ----------
    learning_rate, beta_1, beta_2, epsilon
        As `Adam`.
    weight_decay : float
        At least 0. An L2 penalty would be divided by √v like any gradient; this is not.

    Raises
    ------
    ValueError
        If a setting is out of its range.

    Notes
    -----
    Loshchilov & Hutter (2019), in PyTorch's form: the decay is multiplied by the learning rate, and
    biases decay too.
    """

    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("weight_decay", self.weight_decay, minimum=0)

    def update(self, theta: Floats, grad: Floats, state: State) -> None:
        theta *= 1 - rate_at(self.learning_rate, int(state["step"])) * self.weight_decay
        super().update(theta, grad, state)


def add_multiple(y: Floats, a: float, x: Floats) -> None:
    """Add a x to the vector y, in place: one pass through memory, where ``y += a * x`` takes two."""
    axpy: Any = saxpy if y.dtype == np.float32 else daxpy  # stubs of SciPy differ from version to version
    axpy(x, y, a=a)
