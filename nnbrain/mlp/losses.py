"""Loss functions, each with its derivative beside it.

A loss takes the output layer's sums z, the *logits*, of shape (n, k), and includes the function that
turns them into a prediction (softmax, sigmoid or nothing). Taken together, value and derivative stay
exact where the two taken apart would overflow, and all three derivatives are (prediction - target),
scaled. Every loss is a mean over the n samples of the batch.
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

    def value_and_delta(self, z: Floats, y: npt.NDArray[Any]) -> float:
        """Return the loss, and replace z by delta = ∂L/∂z."""


class MeanSquaredError:
    """L = 1/(nk) Σ (z - y)², ∂L/∂z = 2 (z - y) / (nk); the prediction is z itself."""

    def targets(self, y: npt.ArrayLike, n: int, k: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return _columns(checks.floats("y", y, dtype), n, k)

    def predict(self, z: Floats) -> Floats:
        return z

    def value_and_delta(self, z: Floats, y: npt.NDArray[Any]) -> float:
        z -= y
        loss = float(np.vdot(z, z)) / z.size
        z *= 2 / z.size
        return loss


class BinaryCrossEntropy:
    """L = -1/(nk) Σ [y log p + (1 - y) log(1 - p)] with p = sigmoid(z), ∂L/∂z = (p - y) / (nk).

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

    def value_and_delta(self, z: Floats, y: npt.NDArray[Any]) -> float:
        # -log p = log(1 + e^-z) = softplus(z) - z; logaddexp(0, z) is a softplus that cannot overflow
        loss = float(np.sum(np.logaddexp(0, z) - y * z)) / z.size
        expit(z, out=z)
        z -= y
        z /= z.size
        return loss


class CrossEntropy:
    """L = -1/n Σ log p_y with p = softmax(z), ∂L/∂z = (p - onehot(y)) / n; y are class labels."""

    def targets(self, y: npt.ArrayLike, n: int, k: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return checks.labels("y", y, n, k)

    def predict(self, z: Floats) -> Floats:
        p: Floats = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return p

    def value_and_delta(self, z: Floats, y: npt.NDArray[Any]) -> float:
        # Subtracting a row's largest logit changes no probability and keeps exp from overflowing. It
        # must be each row's own: a maximum over the batch makes other rows underflow to 0/0.
        n = len(z)
        rows = np.arange(n)
        z -= z.max(axis=1, keepdims=True)
        z_true = z[rows, y]
        np.exp(z, out=z)
        total = z.sum(axis=1, keepdims=True)
        z /= n * total  # p / n
        z[rows, y] -= 1 / n
        return float((np.log(total[:, 0]) - z_true).sum()) / n


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
