"""The multilayer perceptron as a pure function of one flat parameter vector θ."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats, Ints, Seed
from nnbrain.mlp.activations import ACTIVATIONS
from nnbrain.mlp.losses import LOSSES, shares

INITIAL_VARIANCE: dict[str, Callable[[int, int], float]] = {
    "glorot": lambda fan_in, fan_out: 2 / (fan_in + fan_out),  # Glorot & Bengio (2010)
    "he": lambda fan_in, fan_out: 2 / fan_in,  # He et al. (2015)
}


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
    activation : {"relu", "leaky_relu", "gelu", "tanh", "sigmoid", "identity"}
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

    def init(self, rng: Seed, dtype: npt.DTypeLike = np.float32, scheme: str | None = None) -> Floats:
        """Return a random θ: zero biases, normal weights with a variance that keeps signals their size.

        The variance is 2/fan_in for scheme "he" and 2/(fan_in + fan_out) for "glorot"; by default the
        one that suits the activation, "he" for ReLU and its kin. All layers are drawn alike.
        """
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
        scheme = ACTIVATIONS[self.activation].init if scheme is None else scheme
        variance = INITIAL_VARIANCE[checks.choice("scheme", scheme, INITIAL_VARIANCE)]
        rng = checks.generator("rng", rng)
        theta = np.zeros(self.size, dtype)
        for W, _ in self.layers(theta):
            W[:] = rng.normal(0, np.sqrt(variance(*W.shape)), W.shape)
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

    def loss_and_grad(
        self, theta: Floats, X: npt.ArrayLike, y: npt.ArrayLike, weights: npt.ArrayLike | None = None
    ) -> tuple[float, Floats]:
        """Return the mean loss over the rows of X and its gradient, a vector of θ's shape.

        Parameters
        ----------
        theta : array (size,)
        X : array (n, sizes[0])
        y : array
            Labels (n,) for cross-entropy; else (n, sizes[-1]), or (n,) where there is one output.
        weights : array (n,), optional
            How much each sample counts: the mean is Σ wᵢ ℓᵢ / Σ wᵢ. A weight of 2 is a sample given twice.

        Raises
        ------
        TypeError, ValueError
            As `forward`, and if `y` does not fit the loss, or `weights` are negative or all zero.
        """
        X, y = self.check_data(theta, X, y)
        weights = None if weights is None else checks.weights("weights", weights, len(X), theta.dtype)
        workspace = Workspace(self, theta, len(X))
        return workspace.loss_and_grad(X, y, weights), workspace.grad

    def mean_loss(
        self, theta: Floats, X: npt.ArrayLike, y: npt.ArrayLike, weights: npt.ArrayLike | None = None
    ) -> float:
        """Return the mean loss alone, in one forward pass; arguments and errors as `loss_and_grad`."""
        X, y = self.check_data(theta, X, y)
        weights = None if weights is None else checks.weights("weights", weights, len(X), theta.dtype)
        z = Workspace(self, theta, len(X)).forward(X)
        return LOSSES[self.loss].value_and_delta(z, y, shares(weights, len(X)))

    def check_data(
        self, theta: Floats, X: npt.ArrayLike, y: npt.ArrayLike
    ) -> tuple[Floats, npt.NDArray[Any]]:
        """Return X and y checked against θ, the architecture and the loss, in θ's type."""
        dtype = checks.theta(theta, self.size).dtype
        X = checks.rows(X, self.sizes[0], dtype)
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

    Parameters
    ----------
    mlp : MLP
    theta : array (mlp.size,)
    batch_size : int
        Most rows that a batch will have.
    dropout : float
        Share of each hidden layer's outputs that a forward pass sets to zero at random, in [0, 1). The
        others are divided by 1 - dropout, so that the next layer's sums keep their mean.
    rng : Generator, optional
        Of the dropout.

    Attributes
    ----------
    theta, grad : array (mlp.size,)
        The parameters, and the gradient that the last `loss_and_grad` left.
    """

    def __init__(
        self,
        mlp: MLP,
        theta: Floats,
        batch_size: int,
        dropout: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.theta, self.grad = theta, np.zeros_like(theta)
        self._layers, self._grads = mlp.layers(theta), mlp.layers(self.grad)
        self._activation, self._loss = ACTIVATIONS[mlp.activation], LOSSES[mlp.loss]
        self._h = [np.empty((batch_size, n), theta.dtype) for n in mlp.sizes]
        self._z = [h.copy() for h in self._h] if self._activation.keeps_input else self._h
        self._delta = [np.empty((batch_size, n), theta.dtype) for n in mlp.sizes[:-1]]
        self._ones = np.ones(batch_size, theta.dtype)
        # What a layer hands on is h, or with dropout h times a mask: then h is still needed for f'(z).
        self._dropout, self._rng = dropout, rng
        self._masks = [h.copy() for h in self._h] if dropout else []
        self._out = [h.copy() for h in self._h] if dropout else self._h

    def rows(self, X: Floats, y: npt.NDArray[Any], index: Ints) -> tuple[Floats, npt.NDArray[Any]]:
        """Return the rows of X and y at `index`; those of X lie in this workspace's memory."""
        return X.take(index, axis=0, out=self._h[0][: len(index)], mode="clip"), y.take(index, axis=0)

    def forward(self, X: Floats) -> Floats:
        """Return the logits (n, k), and keep what every layer handed on for `backward`."""
        n, last = len(X), len(self._layers) - 1
        out = X
        for i, (W, b) in enumerate(self._layers, start=1):
            z = np.dot(out, W, out=self._z[i][:n])
            z += b
            if i > last:
                break
            h, out = self._h[i][:n], self._out[i][:n]
            self._activation.forward(z, h)
            if self._dropout:
                np.multiply(h, self._draw_mask(i, n), out=out)
        return z

    def loss_and_grad(self, X: Floats, y: npt.NDArray[Any], weights: Floats | None = None) -> float:
        """Return the mean loss over the rows of X, and leave its gradient in `grad`."""
        delta = self.forward(X)
        loss = self._loss.value_and_delta(delta, y, shares(weights, len(X)))
        self.backward(X, delta)
        return loss

    def backward(self, X: Floats, delta: Floats) -> Floats:
        """Leave ∂L/∂θ in `grad`, given delta = ∂L/∂z of the output layer; return that of the first layer.

        It goes back through the last `forward`, which must have been of the same X.
        """
        n = len(X)
        for i in reversed(range(len(self._layers))):
            out = self._out[i][:n] if i else X
            np.dot(out.T, delta, out=self._grads[i].W)  # ∂L/∂W = outᵀ delta
            np.dot(self._ones[:n], delta, out=self._grads[i].b)  # ∂L/∂b = Σ delta, as a product: faster
            if i:
                delta = np.dot(delta, self._layers[i].W.T, out=self._delta[i][:n])  # ∂L/∂out = delta Wᵀ
                if self._dropout:
                    delta *= self._masks[i][:n]
                self._activation.backward(delta, self._z[i][:n], self._h[i][:n])
        return delta

    def _draw_mask(self, i: int, n: int) -> Floats:
        """Return a new mask for n rows of layer i: 0 with probability `dropout`, else 1/(1 - dropout)."""
        assert self._rng is not None, "dropout needs a generator"
        mask = self._masks[i][:n]
        self._rng.random(out=mask, dtype=mask.dtype)
        np.greater_equal(mask, self._dropout, out=mask)
        mask /= 1 - self._dropout
        return mask
