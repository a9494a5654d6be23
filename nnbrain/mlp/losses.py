"""Loss functions, each with its derivative beside it.

A loss takes the output layer's sums z, the *logits*, of shape (n, k), and includes the function that
turns them into a prediction (softmax, sigmoid or nothing). Taken together, value and derivative stay
exact where the two taken apart would overflow, and all three derivatives are (prediction - target),
scaled. Every loss is a mean over the n samples of the batch: each counts `share` = 1/n or, where samples
are weighted, its weight over the sum of weights.
"""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from nnbrain import checks
from nnbrain.checks import Floats


class Loss(Protocol):
    """A measure of error, its derivative, and the targets it accepts."""

    def targets(self, y: npt.ArrayLike, n: int, k: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return y checked and in the form that `value_and_delta` takes, for n samples, k outputs."""

    def predict(self, z: Floats) -> Floats:
        """Return the prediction that the logits z stand for, shape (n, k)."""

    def value_and_delta(self, z: Floats, y: npt.NDArray[Any], share: float | Floats) -> float:
        """Return the loss, and replace z by delta = ∂L/∂z.

        `share` is how much each sample counts: 1/n, or a column (n, 1) with sum 1.
        """


class MeanSquaredError:
    """L = 1/n Σ (z - y)²/k, ∂L/∂z = 2/n (z - y)/k with k outputs; the prediction is z itself."""

    def targets(self, y: npt.ArrayLike, n: int, k: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return _columns(checks.floats("y", y, dtype), n, k)

    def predict(self, z: Floats) -> Floats:
        return z

    def value_and_delta(self, z: Floats, y: npt.NDArray[Any], share: float | Floats) -> float:
        z -= y
        error = z.copy()
        z *= share
        loss = float(np.vdot(error, z) / z.shape[1])
        z *= 2 / z.shape[1]
        return loss


class BinaryCrossEntropy:
    """L = -1/n Σ [y log p + (1 - y) log(1 - p)]/k with p = sigmoid(z), ∂L/∂z = 1/n (p - y)/k.

    One output decides between two classes; k outputs decide k yes-or-no questions.
    """

    def targets(self, y: npt.ArrayLike, n: int, k: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        array = _columns(checks.floats("y", y, dtype), n, k)
        if not np.all((array == 0) | (array == 1)):
            raise ValueError(
                f"y must be 0 or 1 for loss='binary_cross_entropy', got values from {array.min():g} "
                f"to {array.max():g}; for more classes use loss='cross_entropy'"
            )
        return array

    def predict(self, z: Floats) -> Floats:
        return np.asarray(expit(z))

    def value_and_delta(self, z: Floats, y: npt.NDArray[Any], share: float | Floats) -> float:
        # -log p = log(1 + e^-z) = softplus(z) - z; logaddexp(0, z) is a softplus that cannot overflow
        losses = np.logaddexp(0, z) - y * z
        expit(z, out=z)
        z -= y
        z *= share
        z /= z.shape[1]
        return float((losses * share).sum() / z.shape[1])


class CrossEntropy:
    """L = -1/n Σ log p_y with p = softmax(z), ∂L/∂z = (p - onehot(y)) / n; y are class labels."""

    def targets(self, y: npt.ArrayLike, n: int, k: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return checks.labels("y", y, n, k)

    def predict(self, z: Floats) -> Floats:
        p: Floats = z - np.maximum.reduce(z, axis=1, keepdims=True)
        np.exp(p, out=p)
        p /= np.add.reduce(p, axis=1, keepdims=True)
        return p

    def value_and_delta(self, z: Floats, y: npt.NDArray[Any], share: float | Floats) -> float:
        # Subtracting a row's largest logit changes no probability and keeps exp from overflowing. It
        # must be each row's own: a maximum over the batch makes other rows underflow to 0/0.
        z -= np.maximum.reduce(z, axis=1, keepdims=True)  # for small batches faster than z.max
        flat, true = z.reshape(-1), np.arange(0, z.size, z.shape[1]) + y  # where the true classes' logits lie
        z_true = flat[true]
        np.exp(z, out=z)
        total = np.add.reduce(z, axis=1, keepdims=True)
        z /= total  # p
        flat[true] -= 1
        z *= share
        losses = np.log(total) - z_true[:, None]
        losses *= share
        return float(losses.sum())


def shares(weights: Floats | None, n: int) -> float | Floats:
    """Return how much each of n samples counts in a mean: 1/n, or its weight over the sum of weights."""
    if weights is None:
        return 1 / n
    total = weights.sum()
    return (weights / total if total else weights)[:, None]  # weights that are all zero stay so


LOSSES: dict[str, Loss] = {
    "mse": MeanSquaredError(),
    "binary_cross_entropy": BinaryCrossEntropy(),
    "cross_entropy": CrossEntropy(),
}


def _columns(y: Floats, n: int, k: int) -> Floats:
    """Return y with shape (n, k); a plain vector is accepted where k = 1."""
    array = y.reshape(n, 1) if k == 1 and y.shape == (n,) else y
    if array.shape != (n, k):
        raise ValueError(f"y must have shape ({n}, {k}){' or (n,)' if k == 1 else ''}, got {y.shape}")
    return array
