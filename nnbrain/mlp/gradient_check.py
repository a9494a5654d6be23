"""Is a gradient right? Compare it with differences of the loss itself."""

from collections.abc import Callable

import numpy as np

from nnbrain import checks
from nnbrain.checks import Floats


def numerical_gradient(loss: Callable[[Floats], float], theta: Floats, step: float = 1e-5) -> Floats:
    """Return the gradient of `loss` at `theta` by central differences.

    Entry i is (L(θ + step eᵢ) - L(θ - step eᵢ)) / (2 step), wrong by O(step²) and by the rounding of L
    over step. It costs two losses an entry: for checking, not for training.

    Parameters
    ----------
    loss : callable
        Takes a vector of θ's shape, returns a number.
    theta : array (n,) of float64
        Not changed.
    step : float
        Above 0. The default balances the two errors in float64 for losses near 1.

    Raises
    ------
    TypeError
        If `theta` is not float64: in float32 the differences drown in rounding.
    ValueError
        If `theta` is not a vector, or the step not above 0.
    """
    if not isinstance(theta, np.ndarray) or theta.dtype != np.float64:
        given = theta.dtype if isinstance(theta, np.ndarray) else type(theta).__name__
        raise TypeError(f"theta must be an array of float64 for finite differences, got {given}")
    if theta.ndim != 1:
        raise ValueError(f"theta must be a vector, got shape {theta.shape}")
    checks.number("step", step, above=0)
    gradient = np.empty_like(theta)
    shifted = theta.copy()
    for i, centre in enumerate(theta):
        shifted[i] = centre + step
        above = loss(shifted)
        shifted[i] = centre - step
        below = loss(shifted)
        shifted[i] = centre
        gradient[i] = (above - below) / (2 * step)
    return gradient


def relative_error(a: Floats, b: Floats) -> float:
    """Return ‖a - b‖ / (‖a‖ + ‖b‖): 0 for equal vectors, 1 for opposite ones, 0 for two zeros."""
    if a.shape != b.shape:
        raise ValueError(f"a and b must have one shape, got {a.shape} and {b.shape}")
    scale = float(np.linalg.norm(a) + np.linalg.norm(b))
    return float(np.linalg.norm(a - b)) / scale if scale else 0.0


def check_gradient(
    loss_and_grad: Callable[[Floats], tuple[float, Floats]], theta: Floats, step: float = 1e-5
) -> float:
    """Return the relative error of the gradient that `loss_and_grad` gives at `theta`.

    A right gradient gives about 1e-9; more than 1e-7 is a mistake, or a kink of ReLU within `step`.

    Examples
    --------
    >>> check_gradient(lambda t: (float(t @ t), 2 * t), np.array([1.0, -3.0])) < 1e-9
    True
    """
    numerical = numerical_gradient(lambda t: loss_and_grad(t)[0], theta, step)
    return relative_error(loss_and_grad(theta)[1], numerical)
