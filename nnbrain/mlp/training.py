"""Training: forward, loss, backward, update, again and again."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nnbrain import checks
from nnbrain.checks import Floats, Ints, Seed
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
        If the loss or θ becomes NaN or infinite: the steps were too large.
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

    def gradient(batch: Ints) -> float:
        return workspace.loss_and_grad(*workspace.rows(X, y, batch))

    for _ in tqdm(range(epochs), desc="fit", unit="epoch", disable=not progress):
        history.loss.append(run_epoch(gradient, workspace, optimizer, state, len(X), batch_size, rng))
        if held_out is not None:
            history.validation_loss.append(mlp.mean_loss(workspace.theta, *held_out))
            if mlp.loss != "mse":
                history.validation_accuracy.append(mlp.accuracy(workspace.theta, *held_out))
    return workspace.theta, history


def run_epoch(
    gradient: Callable[[Ints], float],
    workspace: Workspace,
    optimizer: Optimizer,
    state: State,
    n_samples: int,
    batch_size: int,
    rng: np.random.Generator,
) -> float:
    """Take one pass through the samples: for each batch a gradient, then a step. Return the mean loss.

    Serial, data-parallel and federated training are this loop; they differ in where the gradient comes
    from.

    Parameters
    ----------
    gradient : callable
        Takes the indices of a batch, leaves the gradient in `workspace.grad`, returns the mean loss.
    workspace : Workspace
        Its `theta` is moved in place.
    optimizer, state
        The rule, and what it remembers; the state is changed in place.
    n_samples, batch_size : int
    rng : Generator
        Of the shuffling.

    Raises
    ------
    FloatingPointError
        If the loss or θ becomes NaN or infinite.
    """
    total = 0.0
    for batch in minibatches(n_samples, batch_size, rng):
        total += len(batch) * gradient(batch)
        optimizer.update(workspace.theta, workspace.grad, state)
    if not (np.isfinite(total) and np.all(np.isfinite(workspace.theta))):
        raise FloatingPointError("the loss or theta is no longer finite; try a smaller learning_rate")
    return total / n_samples
