"""Activation functions, each with its derivative beside it.

`forward` and `backward` work in place: a training step allocates nothing. Where the derivative can be
written in terms of the output h = f(z), as h (1 - h) for the sigmoid, h may overwrite z; an activation
that needs z itself says so by `keeps_input`.
"""

from typing import Protocol

import numpy as np
from scipy.special import expit

from nnbrain.checks import Floats


class Activation(Protocol):
    """A function applied to each entry, and the chain rule through it."""

    keeps_input: bool  # whether backward needs z; if not, z and h are the same memory

    def forward(self, z: Floats, h: Floats) -> None:
        """Write f(z) into h."""

    def backward(self, delta: Floats, z: Floats, h: Floats) -> None:
        """Replace delta = ∂L/∂h by ∂L/∂z = ∂L/∂h · f'(z)."""

    def initial_variance(self, fan_in: int, fan_out: int) -> float:
        """Return the variance of random weights that keeps signals their size through such a layer."""


class _Glorot:
    """What most activations share."""

    keeps_input = False

    def initial_variance(self, fan_in: int, fan_out: int) -> float:
        return 2 / (fan_in + fan_out)  # Glorot & Bengio (2010)


class Identity(_Glorot):
    """f(z) = z, f'(z) = 1: a layer that bends nothing."""

    def forward(self, z: Floats, h: Floats) -> None:
        if h is not z:
            h[:] = z

    def backward(self, delta: Floats, z: Floats, h: Floats) -> None:
        pass


class Sigmoid(_Glorot):
    """f(z) = 1 / (1 + e^-z), f'(z) = h (1 - h)."""

    def forward(self, z: Floats, h: Floats) -> None:
        expit(z, out=h)

    def backward(self, delta: Floats, z: Floats, h: Floats) -> None:
        delta *= h
        delta *= 1 - h


class Tanh(_Glorot):
    """f(z) = tanh z, f'(z) = 1 - h²."""

    def forward(self, z: Floats, h: Floats) -> None:
        np.tanh(z, out=h)

    def backward(self, delta: Floats, z: Floats, h: Floats) -> None:
        delta *= 1 - h * h


class ReLU:
    """f(z) = max(z, 0), f'(z) = 1 where z > 0 and 0 elsewhere, z = 0 included."""

    keeps_input = False

    def forward(self, z: Floats, h: Floats) -> None:
        np.maximum(z, 0, out=h)

    def backward(self, delta: Floats, z: Floats, h: Floats) -> None:
        delta *= h > 0  # a product with a mask is ten times faster than delta[h <= 0] = 0

    def initial_variance(self, fan_in: int, fan_out: int) -> float:
        return 2 / fan_in  # He et al. (2015)


ACTIVATIONS: dict[str, Activation] = {
    "identity": Identity(),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
    "relu": ReLU(),
}
