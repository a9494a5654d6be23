"""Optimisers: rules that move θ against the gradient.

An optimiser holds its settings and no state. Its state is a plain dictionary of arrays, so that it can
be saved, sent and compared like θ itself.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import daxpy, saxpy

from nnbrain import checks
from nnbrain.checks import Floats

State = dict[str, npt.NDArray[Any]]


class Optimizer(Protocol):
    """Two functions over plain state."""

    def init(self, theta: Floats) -> State:
        """Return the state before the first step."""

    def update(self, theta: Floats, grad: Floats, state: State) -> None:
        """Move θ one step against `grad`. Changes theta and state in place and uses up grad."""


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent, with momentum, Nesterov's momentum and decay.

    At step t = 0, 1, …, with η_t = learning_rate / (1 + decay t) and gradient g:

    - v ← momentum v - η_t g, and then
    - θ ← θ + v, or with `nesterov` θ ← θ + momentum v - η_t g.

    Parameters
    ----------
    learning_rate : float
        η, above 0.
    momentum : float
        Share of the last move that is kept, in [0, 1).
    nesterov : bool
        Look one step ahead; needs momentum above 0.
    decay : float
        How fast the learning rate falls, a step, at least 0.

    Raises
    ------
    ValueError
        If a setting is out of its range.

    Notes
    -----
    Momentum: Polyak (1964); Nesterov's as in Sutskever et al. (2013). Decay is the time-based decay
    of Keras' `SGD(decay=...)`.
    """

    learning_rate: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    decay: float = 0.0

    def __post_init__(self) -> None:
        checks.number("learning_rate", self.learning_rate, above=0)
        checks.number("momentum", self.momentum, minimum=0, below=1)
        checks.number("decay", self.decay, minimum=0)
        if not isinstance(self.nesterov, bool):
            raise TypeError(f"nesterov must be True or False, got {self.nesterov!r}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("momentum must be above 0 where nesterov=True, got 0")

    def init(self, theta: Floats) -> State:
        state: State = {"step": np.zeros((), np.int64)}
        if self.momentum:
            state["velocity"] = np.zeros_like(theta)
        return state

    def update(self, theta: Floats, grad: Floats, state: State) -> None:
        rate = self.learning_rate / (1 + self.decay * int(state["step"]))
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
            np.multiply(velocity, self.momentum, out=grad)
            theta += grad
        else:
            theta += velocity


def add_multiple(y: Floats, a: float, x: Floats) -> None:
    """Add a x to the vector y, in place: one pass through memory, where ``y += a * x`` takes two."""
    axpy: Any = saxpy if y.dtype == np.float32 else daxpy  # stubs of SciPy differ from version to version
    axpy(x, y, a=a)
