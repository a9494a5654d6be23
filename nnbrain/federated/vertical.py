"""Vertical federated learning: owners of different columns of one table train one network.

Rank 0 has the labels; each other rank has some columns of X, for the same rows. The first layer's sum is cut
by rows of W¹, so that an owner of columns has the weights from these:

    z¹ = Σₖ Xₖ W¹ₖ + b¹,    ∂L/∂W¹ₖ = Xₖᵀ ∂L/∂z¹.

An owner sends its part of the sum and is sent ∂L/∂z¹. All that lies above the sum is rank 0's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats, Ints
from nnbrain.data import minibatches
from nnbrain.distributed.comm import Communicator
from nnbrain.mlp.activations import ACTIVATIONS
from nnbrain.mlp.losses import LOSSES
from nnbrain.mlp.network import MLP, Workspace
from nnbrain.mlp.optimizers import SGD, Optimizer
from nnbrain.mlp.penalties import add_penalty_gradient


@dataclass(frozen=True)
class VerticalCut:
    """Who has which columns of X, and with them which rows of W¹.

    Parameters
    ----------
    mlp : MLP
    columns : sequence of array of int
        The columns of each owner: every column of X has one owner.

    Raises
    ------
    TypeError, ValueError
        If an owner has no column, or a column not exactly one owner.

    Examples
    --------
    >>> cut = VerticalCut(MLP((3, 4, 2)), [[0, 2], [1]])
    >>> [len(part) for part in cut.split(np.zeros(cut.mlp.size))]
    [14, 8, 4]
    """

    mlp: MLP
    columns: Sequence[Ints | Sequence[int]]

    def __post_init__(self) -> None:
        columns = tuple(np.asarray(mine) for mine in self.columns)
        for k, mine in enumerate(columns):
            if mine.ndim != 1 or mine.size == 0 or mine.dtype.kind not in "iu":
                raise TypeError(f"columns[{k}] must be one or more integers, got {mine.size} of {mine.dtype}")
        d = self.mlp.sizes[0]
        every = np.concatenate(columns) if columns else np.array([], np.int64)
        given, times = np.unique(every, return_counts=True)
        wrong = {
            "no owner of": np.setdiff1d(np.arange(d), given),
            "more than one of": given[times > 1],
            "unknown": np.setdiff1d(given, np.arange(d)),
        }
        if any(which.size for which in wrong.values()):
            found = ", ".join(f"{what} {which.tolist()}" for what, which in wrong.items() if which.size)
            raise ValueError(f"columns must give each of 0..{d - 1} to one owner, got {found}")
        object.__setattr__(self, "columns", columns)

    @property
    def ranks(self) -> int:
        """The owners of columns, and the owner of labels."""
        return len(self.columns) + 1

    def split(self, theta: Floats) -> list[Floats]:
        """Return each rank's part of θ: of rank 0 b¹ and all upper layers, of the others rows of W¹."""
        W, _ = self.mlp.layers(checks.theta(theta, self.mlp.size))[0]
        return [theta[W.size :].copy(), *(W[mine].ravel() for mine in self.columns)]

    def join(self, parts: Sequence[Floats]) -> Floats:
        """Return the θ (or gradient) that `parts`, one of each rank in order, are the parts of.

        Raises
        ------
        ValueError
            If there is not one part a rank, or a part is not of its rank's length.
        """
        theta = np.zeros(self.mlp.size, parts[0].dtype if len(parts) else np.float64)
        expected = [part.shape for part in self.split(theta)]
        if [part.shape for part in parts] != expected:
            raise ValueError(f"parts must have shapes {expected}, got {[part.shape for part in parts]}")
        W, _ = self.mlp.layers(theta)[0]
        theta[W.size :] = parts[0]
        for mine, part in zip(self.columns, parts[1:], strict=True):
            W[mine] = part.reshape(len(mine), -1)
        return theta


class FeatureOwner:
    """Has columns of X, and the weights from them.

    Parameters
    ----------
    X : array (n, columns)
    theta : array (columns * width,)
        Its rows of W¹; kept, not copied.

    Attributes
    ----------
    theta, grad : array (columns * width,)
        Its part of θ, and of the gradient that the last `backward` left.

    Raises
    ------
    TypeError, ValueError
        If X is not a finite matrix, or `theta` not as long as a whole number of its rows.
    """

    def __init__(self, X: npt.ArrayLike, theta: Floats) -> None:
        self.X = checks.floats("X", X, theta.dtype)
        if self.X.ndim != 2 or 0 in self.X.shape or len(theta) % self.X.shape[1]:
            raise ValueError(
                f"X must have shape (n, columns), with columns a divisor of theta's {len(theta)}, got "
                f"{self.X.shape}"
            )
        self.theta, self.grad = theta, np.zeros_like(theta)
        shape = (self.X.shape[1], -1)
        self._W, self._grad = self.theta.reshape(shape), self.grad.reshape(shape)

    @property
    def width(self) -> int:
        """Units of the first layer."""
        return self._W.shape[1]

    def forward(self, rows: Ints) -> Floats:
        """Return its part of z¹ (len(rows), width), which it sends."""
        return self.X[rows] @ self._W

    def backward(self, rows: Ints, delta: Floats, l2: float = 0.0) -> None:
        """Leave its part of the gradient in `grad`, given ∂L/∂z¹ (len(rows), width), which it is sent."""
        np.dot(self.X[rows].T, delta, out=self._grad)
        if l2:
            self._grad += l2 * self._W


class LabelOwner:
    """Has the labels, b¹ and all layers above the first sum.

    Parameters
    ----------
    mlp : MLP
        The whole network.
    y : array
        Labels, as the loss takes them.
    theta : array
        ``cut.split(theta)[0]``; kept, not copied.
    batch_size : int
        Most rows that a batch will have.

    Attributes
    ----------
    theta, grad : array
        Its part of θ, and of the gradient that the last `loss_and_delta` left.

    Raises
    ------
    TypeError, ValueError
        If `theta` or y does not fit the network, or the batch size is not an integer of at least 1.
    """

    def __init__(self, mlp: MLP, y: npt.ArrayLike, theta: Floats, batch_size: int) -> None:
        self.batch_size = checks.integer("batch_size", batch_size)
        self.width = mlp.sizes[1]
        rest = mlp.size - mlp.sizes[0] * self.width
        self.theta, self.grad = checks.theta(theta, rest), np.zeros_like(theta)
        self._activation, self._loss = ACTIVATIONS[mlp.activation], LOSSES[mlp.loss]
        self.y = self._loss.targets(y, len(np.asarray(y)), mlp.sizes[-1], theta.dtype)
        self._b, self._b_grad = self.theta[: self.width], self.grad[: self.width]
        self._upper: MLP | None = None
        if len(mlp.sizes) > 2:
            self._upper = replace(mlp, sizes=mlp.sizes[1:])
            self._workspace = Workspace(self._upper, self.theta[self.width :], batch_size)

    def loss_and_delta(self, rows: Ints, total: Floats, l2: float = 0.0) -> tuple[float, Floats]:
        """Return the batch's mean loss and ∂L/∂z¹ (len(rows), width), which it sends to the owners.

        Parameters
        ----------
        rows : array of int
        total : array (len(rows), width)
            The sum of the owners' parts; used up.
        l2 : float
            Strength of the penalty, as in `fit`.
        """
        z, y = np.add(total, self._b, out=total), self.y.take(rows, axis=0)
        if self._upper is None:
            loss, delta = self._loss.value_and_delta(z, y, 1 / len(rows)), z
        else:
            h = np.empty_like(z)
            self._activation.forward(z, h)
            delta = self._workspace.forward(h)
            loss = self._loss.value_and_delta(delta, y, 1 / len(rows))
            delta = self._workspace.backward(h, delta)
            layers = self._upper.layers(self._workspace.theta)
            grads = self._upper.layers(self._workspace.grad)
            delta = delta @ layers[0].W.T
            self._activation.backward(delta, z, h)
            add_penalty_gradient(layers, grads, 0.0, l2)
            self.grad[self.width :] = self._workspace.grad
        np.sum(delta, axis=0, out=self._b_grad)
        return loss, delta


def train_vertical(
    comm: Communicator,
    party: FeatureOwner | LabelOwner,
    *,
    n_samples: int,
    optimizer: Optimizer | None = None,
    epochs: int = 10,
    batch_size: int = 32,
    rng: checks.Seed = 0,
    l2: float = 0.0,
) -> list[float]:
    """Train with the other ranks; return the mean loss of each epoch, which rank 0 alone knows.

    Each party moves its own part of θ, by the same rule: joined, the parts are the θ that `fit` gives on the
    joined table, to rounding, for optimisers that treat each number by itself, as all of `nnbrain.mlp` do.

    Parameters
    ----------
    comm : Communicator
        Of all parties. Rank 0 must have the `LabelOwner`, the others a `FeatureOwner` each.
    party : FeatureOwner or LabelOwner
        This rank's; its `theta` is moved in place.
    n_samples : int
        Rows of the table, in the same order with all.
    optimizer, epochs, batch_size, l2
        As for `nnbrain.mlp.fit`; the same on all ranks.
    rng : int or Generator
        Of the shuffling: the same seed on all ranks, or a generator each in the same state, so that all take
        the same rows in each step.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or this rank should have another kind of party.
    FloatingPointError
        On rank 0, if the loss becomes NaN or infinite: the steps were too large.
    """
    checks.integer("n_samples", n_samples)
    checks.integer("epochs", epochs, minimum=0)
    checks.batch_size(batch_size, n_samples)
    checks.number("l2", l2, minimum=0)
    rng = checks.generator("rng", rng)
    rank, owners = comm.Get_rank(), range(1, comm.Get_size())
    if isinstance(party, LabelOwner) != (rank == 0):
        raise TypeError(f"party must be a LabelOwner on rank 0 alone, got {type(party).__name__} on {rank}")
    held = len(party.y if isinstance(party, LabelOwner) else party.X)
    if held != n_samples:
        raise ValueError(f"n_samples must be the {held} rows that rank {rank} has, got {n_samples}")
    if isinstance(party, LabelOwner) and batch_size > party.batch_size:
        raise ValueError(
            f"batch_size must be at most the {party.batch_size} that the LabelOwner is for, got {batch_size}"
        )
    optimizer = SGD(0.1) if optimizer is None else optimizer
    state = optimizer.init(party.theta)
    losses = []
    for _ in range(epochs):
        epoch_loss = 0.0
        for rows in minibatches(n_samples, batch_size, rng):
            z = np.empty((len(rows), party.width), party.theta.dtype)
            if isinstance(party, LabelOwner):
                total = np.zeros_like(z)
                for owner in owners:
                    comm.Recv(z, source=owner)
                    total += z
                loss, delta = party.loss_and_delta(rows, total, l2)
                for owner in owners:
                    comm.Send(delta, dest=owner)
                epoch_loss += len(rows) * loss
            else:
                comm.Send(party.forward(rows), dest=0)
                comm.Recv(z, source=0)
                party.backward(rows, z, l2)
            optimizer.update(party.theta, party.grad, state)
        losses.append(epoch_loss / n_samples)
        if not np.isfinite(losses[-1]):
            raise FloatingPointError("the loss is no longer finite; try a smaller learning_rate")
    return losses
