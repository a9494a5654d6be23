"""Training: forward, loss, backward, update, again and again."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nnbrain import checks
from nnbrain.checks import Floats, Seed
from nnbrain.data import minibatches
from nnbrain.mlp.network import MLP, Workspace
from nnbrain.mlp.optimizers import SGD, Optimizer, State


@dataclass
class History:
    """What happened in each epoch; the validation lists stay empty without validation data."""

    loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)


def fit(
    mlp: MLP,
    theta: Floats,
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    optimizer: Optimizer | None = None,
    epochs: int = 10,
    batch_size: int = 32,
    rng: Seed = 0,
    validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    progress: bool = False,
) -> tuple[Floats, History]:
    """Return θ after training on X, y, and the history of it.

    Parameters
    ----------
    mlp : MLP
    theta : array (mlp.size,)
        Where to start; it is not changed. Its type, float32 or float64, is the type computed in.
    X : array (n, mlp.sizes[0])
    y : array
        As `MLP.loss_and_grad` takes it.
    optimizer : Optimizer, optional
        By default ``SGD(0.1)``.
    epochs : int
        Passes through the data.
    batch_size : int
        Samples a step, at most n; the last batch of an epoch may be smaller.
    rng : int or Generator
        Of the shuffling: the same seed gives the same bits.
    validation : tuple of arrays, optional
        (X, y) to measure loss and, for the cross-entropies, accuracy on after each epoch.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    theta : array (mlp.size,)
    history : History
        The loss of an epoch is the mean over its samples, each at the moment it was trained on.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range or data do not fit the network.
    FloatingPointError
        If the loss becomes NaN or infinite: the steps were too large.
    """
    X, y = mlp.check_data(theta, X, y)
    held_out = None if validation is None else mlp.check_data(theta, *validation)
    checks.integer("epochs", epochs, minimum=0)
    checks.batch_size(batch_size, len(X))
    rng = checks.generator("rng", rng)
    optimizer = SGD(0.1) if optimizer is None else optimizer

    workspace = Workspace(mlp, theta.copy(), batch_size)
    state = optimizer.init(workspace.theta)
    history = History()
    for epoch in tqdm(range(epochs), desc="fit", unit="epoch", disable=not progress):
        loss = run_epoch(workspace, X, y, optimizer, state, batch_size, rng)
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} in epoch {epoch}; try a smaller learning_rate")
        history.loss.append(loss)
        if held_out is not None:
            history.validation_loss.append(mlp.mean_loss(workspace.theta, *held_out))
            if mlp.loss != "mse":
                history.validation_accuracy.append(mlp.accuracy(workspace.theta, *held_out))
    return workspace.theta, history


def run_epoch(
    workspace: Workspace,
    X: Floats,
    y: npt.NDArray[Any],
    optimizer: Optimizer,
    state: State,
    batch_size: int,
    rng: np.random.Generator,
) -> float:
    """Take one pass through X, y; move `workspace.theta` in place; return the mean loss."""
    total = 0.0
    for index in minibatches(len(X), batch_size, rng):
        total += len(index) * workspace.loss_and_grad(*workspace.rows(X, y, index))
        optimizer.update(workspace.theta, workspace.grad, state)
    return total / len(X)
