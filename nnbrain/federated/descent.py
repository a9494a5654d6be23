"""Plain SGD in few passes through memory: what a client spends its time on."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dgemm, sgemm

from nnbrain import checks
from nnbrain.checks import Floats, Ints
from nnbrain.federated.clients import Client
from nnbrain.mlp.activations import ACTIVATIONS
from nnbrain.mlp.losses import LOSSES, shares
from nnbrain.mlp.network import MLP
from nnbrain.mlp.optimizers import add_multiple

# With k outputs, ∂L/∂z of a batch of n is (prediction - target) times this over n.
SLOPES: dict[str, Callable[[int], float]] = {
    "cross_entropy": lambda k: 1.0,
    "binary_cross_entropy": lambda k: 1 / k,
    "mse": lambda k: 2 / k,
}


class Descent:
    """Moves θ in place, batch by batch, along minus the gradient: the steps of `Workspace` and `SGD`.

    Three things make them cheap, and change no result but by rounding.

    - A layer is one matrix. In θ the biases follow the rows of W, so that both are one matrix with a row
      more, and ``out @ W + b`` is one product with an `out` that ends in 1.
    - No gradient is stored. A step adds the product ``outᵀ move``, with move = -η ∂L/∂z, to that matrix
      where it lies: one pass through the weights, where a gradient and its use take three.
    - The first layer's weights wait. A batch moves them by X₁ᵀ move₁, but what they answer to the next one
      can be told without moving them:

          X₂ (W + X₁ᵀ move₁) = X₂ W + (X₂ X₁ᵀ) move₁,

      where the matrix in brackets is small. So several batches share one pass to read W and one to move it.

    The parameters are those of `local_sgd`; `theta` is moved.
    """

    def __init__(
        self,
        mlp: MLP,
        theta: Floats,
        batch_size: int,
        learning_rate: float,
        proximal: float = 0.0,
        drift: Floats | None = None,
    ) -> None:
        if drift is not None:
            drift = checks.floats("drift", drift, theta.dtype)
            if drift.shape != theta.shape:
                raise ValueError(f"drift must have theta's shape {theta.shape}, got {drift.shape}")
        self.theta = theta
        self._sizes, self._batch_size, self._rate = mlp.sizes, batch_size, learning_rate
        self._activation, self._loss = ACTIVATIONS[mlp.activation], LOSSES[mlp.loss]
        self._slope = SLOPES[mlp.loss](mlp.sizes[-1])
        self._one_hot = np.eye(mlp.sizes[-1], dtype=theta.dtype) if mlp.loss == "cross_entropy" else None
        self._gemm: Any = sgemm if theta.dtype == np.float32 else dgemm
        # -η (proximal (θ - start) + drift) = (keep - 1) θ + pull
        self._keep, self._pull = 1 - learning_rate * proximal, None
        if proximal or drift is not None:
            self._pull = learning_rate * (proximal * theta - (0 if drift is None else drift))
        # Weights that are drawn elsewhere in each step cannot wait. Else as many batches share a pass as
        # have a fifth of the layer's width in rows together: X Xᵀ then costs a tenth of X W.
        shared = 1 if self._pull is not None else max(1, mlp.sizes[1] // (5 * batch_size))
        self._block = shared * batch_size

        ends = np.cumsum([0, *((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(mlp.sizes))])
        self._layers = [
            theta[start:end].reshape(-1, fan_out)
            for (start, end), fan_out in zip(pairwise(ends), mlp.sizes[1:], strict=True)
        ]
        self._memory: dict[tuple[int, int], tuple[list[Floats], ...]] = {}

    def epochs(self, client: Client, orders: Iterable[Ints], weights: Floats | None) -> float:
        """Take a step for each batch of the client's data, epoch by epoch; return the last epoch's mean loss.

        Parameters
        ----------
        client : Client
        orders : iterable of array of int
            For each epoch, the client's samples in the order in which batches take them.
        weights : array, optional
            What each sample counts: the mean of a batch is Σ wᵢ ℓᵢ / Σ wᵢ.

        Raises
        ------
        FloatingPointError
            If the loss or θ becomes NaN or infinite.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked for below
            for order in orders:
                rows = client.index[order]
                labels = client.y.take(rows, axis=0)
                share = None if weights is None else weights[order]
                logits = self._epoch(client.X, rows, labels, share)
            loss = self._loss.value_and_delta(logits, labels, shares(share, len(order)))
        if not (np.isfinite(loss) and np.all(np.isfinite(self.theta))):  # once lost, it stays lost
            raise FloatingPointError("the loss or theta is no longer finite; try a smaller learning_rate")
        return loss

    def _epoch(self, X: Floats, order: Ints, y: npt.NDArray[Any], weights: Floats | None) -> Floats:
        """Take a step for each batch of the rows of X at `order`, whose labels are y; return the logits."""
        target = y if self._one_hot is None else self._one_hot[y]
        logits = np.empty_like(target)
        for start in range(0, len(order), self._block):
            rows = slice(start, start + self._block)
            share = None if weights is None else weights[rows]
            self._descend(X, order[rows], target[rows], logits[rows], share)
        return logits

    def _descend(
        self, X: Floats, order: Ints, target: Floats, logits: Floats, weights: Floats | None
    ) -> None:
        """Take the steps of those batches that share a pass through the first layer."""
        n, size = len(order), self._batch_size
        (rows, z), (inputs,), (_, moves) = self._buffers(n, 0, 1)
        inputs[:, :-1] = X.take(order, axis=0, out=rows, mode="clip")
        np.dot(inputs, self._layers[0], out=z)
        if n > size:
            products = np.dot(inputs, inputs.T)
        for start in range(0, n, size):
            batch = slice(start, min(start + size, n))
            if start:
                z[batch] += np.dot(products[batch, :start], moves[:start])
            share = None if weights is None else shares(weights[batch], size)
            self._step(z[batch], target[batch], logits[batch], moves[batch], share)
        self._add_product(inputs, moves, self._layers[0])

    def _step(self, z: Floats, target: Floats, logits: Floats, first_move: Floats, share: Any = None) -> None:
        """Take a step of all layers but the first, which gave `z`; leave its move in `first_move`."""
        n, last = len(z), len(self._layers)
        zs, outs, moves = self._buffers(n, 1, last)
        zs[0], moves[0] = z, first_move
        for i in range(last - 1):
            self._activation.forward(zs[i], outs[i][:, :-1])
            np.dot(outs[i], self._layers[i + 1], out=zs[i + 1])
        logits[:] = zs[-1]

        np.subtract(self._loss.predict(logits), target, out=moves[-1])
        if share is None:
            moves[-1] *= -self._rate * self._slope / n
        else:
            moves[-1] *= -self._rate * self._slope * share
        for i in range(last - 2, -1, -1):
            np.dot(moves[i + 1], self._layers[i + 1][:-1].T, out=moves[i])
            self._activation.backward(moves[i], zs[i], outs[i][:, :-1])

        if self._pull is not None:
            if self._keep != 1:
                self.theta *= self._keep
            add_multiple(self.theta, 1.0, self._pull)
        for out, move, layer in zip(outs, moves[1:], self._layers[1:], strict=True):
            self._add_product(out, move, layer)

    def _add_product(self, out: Floats, move: Floats, layer: Floats) -> None:
        """Add outᵀ move to `layer`, in place: to BLAS, which counts by columns, it is layerᵀ."""
        self._gemm(1.0, move.T, out.T, 1.0, layer.T, 0, 1, 1)

    def _buffers(self, n: int, first: int, last: int) -> tuple[list[Floats], ...]:
        """Return memory for n rows: z of layers first..last, out of all but `last`, and moves."""
        if (n, first) not in self._memory:
            sizes, dtype = self._sizes[first : last + 1], self.theta.dtype
            self._memory[n, first] = (
                [np.empty((n, k), dtype) for k in sizes],
                [np.ones((n, k + 1), dtype) for k in sizes[:-1]],
                [np.empty((n, k), dtype) for k in sizes],
            )
        return self._memory[n, first]
