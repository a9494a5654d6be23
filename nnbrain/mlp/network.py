"""The multilayer perceptron as a pure function of one flat parameter vector θ."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats, Ints, Seed
from nnbrain.mlp.activations import ACTIVATIONS
from nnbrain.mlp.losses import LOSSES


class Layer(NamedTuple):
    """Weights and biases of one layer: views into θ (or into a gradient), not copies."""

    W: Floats  # (fan_in, fan_out)
    b: Floats  # (fan_out,)


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron: the architecture, and no weights.

    Parameters
    ----------
    sizes : sequence of int
        Units a layer, input and output included: (64, 32, 10) has one hidden layer of 32.
        (64, 10) has none.
    activation : {"relu", "tanh", "sigmoid", "identity"}
        Of the hidden layers.
    loss : {"cross_entropy", "binary_cross_entropy", "mse"}
        What training minimises. It decides what the outputs mean: class probabilities (softmax),
        independent yes-or-no probabilities (sigmoid), or values.

    Attributes
    ----------
    size : int
        Length of θ: W¹, b¹, W², b², … one after the other, each W stored row by row.

    Examples
    --------
    >>> mlp = MLP((2, 3, 1), loss="mse")
    >>> theta = mlp.init(0)
    >>> theta.shape == (mlp.size,) == (2 * 3 + 3 + 3 * 1 + 1,)
    True
    """

    sizes: Sequence[int]
    activation: str = "relu"
    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        if isinstance(self.sizes, str) or not isinstance(self.sizes, Sequence) or len(self.sizes) < 2:
            raise ValueError(f"sizes must be a sequence of at least 2 layer sizes, got {self.sizes!r}")
        sizes = tuple(checks.integer(f"sizes[{i}]", n) for i, n in enumerate(self.sizes))
        object.__setattr__(self, "sizes", sizes)
        checks.choice("activation", self.activation, ACTIVATIONS)
        checks.choice("loss", self.loss, LOSSES)
        if self.loss == "cross_entropy" and sizes[-1] < 2:
            raise ValueError(
                f"sizes[-1] must be at least 2, one output a class, for loss='cross_entropy', got "
                f"{sizes[-1]}; two classes on one output are loss='binary_cross_entropy'"
            )

    @cached_property
    def size(self) -> int:
        return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(self.sizes))

    def init(self, rng: Seed, dtype: npt.DTypeLike = np.float32) -> Floats:
        """Return a random θ: zero biases, weights with the variance that keeps signals their size.

        That variance is the activation's `initial_variance`: 2/fan_in for ReLU, 2/(fan_in + fan_out) for
        the others. The output layer is drawn like the hidden ones.
        """
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
        rng = checks.generator("rng", rng)
        theta = np.zeros(self.size, dtype)
        for W, _ in self.layers(theta):
            fan_in, fan_out = W.shape
            variance = ACTIVATIONS[self.activation].initial_variance(fan_in, fan_out)
            W[:] = rng.normal(0, np.sqrt(variance), W.shape)
        return theta

    def layers(self, theta: Floats) -> list[Layer]:
        """Return each layer's W (fan_in, fan_out) and b (fan_out,) as views into the vector `theta`."""
        views, end = [], 0
        for fan_in, fan_out in pairwise(self.sizes):
            start, middle, end = end, end + fan_in * fan_out, end + (fan_in + 1) * fan_out
            views.append(Layer(theta[start:middle].reshape(fan_in, fan_out), theta[middle:end]))
        return views

    def forward(self, theta: Floats, X: npt.ArrayLike) -> Floats:
        """Return the logits (n, k) of the rows of X (n, sizes[0]).

        Raises
        ------
        TypeError
            If `theta` is not float32 or float64.
        ValueError
            If a shape does not fit or a value is NaN or infinite.
        """
        X = checks.features(X, self.sizes[0], checks.theta(theta, self.size).dtype)
        return Workspace(self, theta, len(X)).forward(X).copy()

    def loss_and_grad(self, theta: Floats, X: npt.ArrayLike, y: npt.ArrayLike) -> tuple[float, Floats]:
        """Return the mean loss over the rows of X and its gradient, a vector of θ's shape.

        Parameters
        ----------
        theta : array (size,)
        X : array (n, sizes[0])
        y : array
            Labels (n,) for cross-entropy; else (n, sizes[-1]), or (n,) where there is one output.

        Raises
        ------
        TypeError, ValueError
            As `forward`, and if `y` does not fit the loss.
        """
        X, y = self.check_data(theta, X, y)
        workspace = Workspace(self, theta, len(X))
        return workspace.loss_and_grad(X, y), workspace.grad

    def mean_loss(self, theta: Floats, X: npt.ArrayLike, y: npt.ArrayLike) -> float:
        """Return the mean loss alone, in one forward pass; arguments and errors as `loss_and_grad`."""
        X, y = self.check_data(theta, X, y)
        return LOSSES[self.loss].value_and_delta(Workspace(self, theta, len(X)).forward(X), y)

    def check_data(
        self, theta: Floats, X: npt.ArrayLike, y: npt.ArrayLike
    ) -> tuple[Floats, npt.NDArray[Any]]:
        """Return X and y checked against θ, the architecture and the loss, in θ's type."""
        dtype = checks.theta(theta, self.size).dtype
        X = checks.features(X, self.sizes[0], dtype)
        return X, LOSSES[self.loss].targets(y, len(X), self.sizes[-1], dtype)

    def predict_proba(self, theta: Floats, X: npt.ArrayLike) -> Floats:
        """Return what the outputs mean, (n, k): probabilities, or the values themselves for "mse"."""
        return LOSSES[self.loss].predict(self.forward(theta, X))

    def predict(self, theta: Floats, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return class labels (n,), yes-or-no answers (n, k) or, for "mse", values (n, k)."""
        z = self.forward(theta, X)
        if self.loss == "cross_entropy":
            return np.asarray(z.argmax(axis=1))
        return z > 0 if self.loss == "binary_cross_entropy" else z

    def accuracy(self, theta: Floats, X: npt.ArrayLike, y: npt.ArrayLike) -> float:
        """Return the share of the rows of X whose predicted classes are those of y, in [0, 1]."""
        if self.loss == "mse":
            raise ValueError("loss must be a cross-entropy for accuracy to have a meaning, got 'mse'")
        X, y = self.check_data(theta, X, y)
        return float(np.mean(self.predict(theta, X) == y))


class Workspace:
    """θ, its gradient, and the memory of one batch: everything that a training step touches.

    The fast path behind `MLP`: it is made once for many batches and checks nothing. `theta` is kept, not
    copied, so an optimiser that moves it in place moves the network.

    Attributes
    ----------
    theta, grad : array (mlp.size,)
        The parameters, and the gradient that the last `loss_and_grad` left.
    """

    def __init__(self, mlp: MLP, theta: Floats, batch_size: int) -> None:
        self.theta, self.grad = theta, np.zeros_like(theta)
        self._layers, self._grads = mlp.layers(theta), mlp.layers(self.grad)
        self._activation, self._loss = ACTIVATIONS[mlp.activation], LOSSES[mlp.loss]
        self._h = [np.empty((batch_size, n), theta.dtype) for n in mlp.sizes]
        self._z = [h.copy() for h in self._h] if self._activation.keeps_input else self._h
        self._delta = [np.empty((batch_size, n), theta.dtype) for n in mlp.sizes[:-1]]
        self._ones = np.ones(batch_size, theta.dtype)

    def rows(self, X: Floats, y: npt.NDArray[Any], index: Ints) -> tuple[Floats, npt.NDArray[Any]]:
        """Return the rows of X and y at `index`; those of X lie in this workspace's memory."""
        return X.take(index, axis=0, out=self._h[0][: len(index)], mode="clip"), y.take(index, axis=0)

    def forward(self, X: Floats) -> Floats:
        """Return the logits (n, k), and keep every layer's output h for `loss_and_grad`."""
        n, last = len(X), len(self._layers) - 1
        h = X
        for i, (W, b) in enumerate(self._layers):
            z = np.dot(h, W, out=self._z[i + 1][:n])
            z += b
            if i == last:
                break
            h = self._h[i + 1][:n]
            self._activation.forward(z, h)
        return z

    def loss_and_grad(self, X: Floats, y: npt.NDArray[Any]) -> float:
        """Return the mean loss over the rows of X, and leave its gradient in `grad`."""
        n = len(X)
        delta = self.forward(X)
        loss = self._loss.value_and_delta(delta, y)  # delta is now ∂L/∂z of the output layer
        for i in reversed(range(len(self._layers))):
            h = self._h[i][:n] if i else X
            np.dot(h.T, delta, out=self._grads[i].W)  # ∂L/∂W = hᵀ delta
            np.dot(self._ones[:n], delta, out=self._grads[i].b)  # ∂L/∂b = Σ delta, as a product: faster
            if i:
                delta = np.dot(delta, self._layers[i].W.T, out=self._delta[i][:n])  # ∂L/∂h = delta Wᵀ
                self._activation.backward(delta, self._z[i][:n], h)
        return loss
