"""Training: forward, loss, backward, update, again and again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nnbrain import checks
from nnbrain.checkpoint import digest, generator_state, load_if_there, restore_generator, save_checkpoint
from nnbrain.checks import Floats, Ints, Seed
from nnbrain.data import Shuffler, minibatches
from nnbrain.mlp.network import MLP, Workspace
from nnbrain.mlp.optimizers import SGD, Optimizer, State
from nnbrain.mlp.penalties import add_penalty_gradient
from nnbrain.settings import settings_of

Data = tuple[Floats, npt.NDArray[Any]]


@dataclass
class History:
    """What happened in each epoch; the validation lists stay empty without validation data."""

    loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """The epoch, from 0, with the smallest validation loss; the first of equals."""
        return int(np.argmin(self.validation_loss))

    @property
    def waited(self) -> int:
        """Epochs since the best one; 0 without validation data."""
        return len(self.validation_loss) - 1 - self.best_epoch if self.validation_loss else 0

    def record(self, loss: float, mlp: MLP, theta: Floats, validation: Data | None) -> None:
        """Add an epoch that had this mean loss and ended with this θ."""
        self.loss.append(loss)
        if validation is not None:
            self.validation_loss.append(mlp.mean_loss(theta, *validation))
            if mlp.loss != "mse":
                self.validation_accuracy.append(mlp.accuracy(theta, *validation))


Callback = Callable[[int, Floats, History], bool | None]
Augmentation = Callable[[Floats, np.random.Generator], Floats]


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
    weights: npt.ArrayLike | None = None,
    l1: float = 0.0,
    l2: float = 0.0,
    dropout: float = 0.0,
    augment: Augmentation | None = None,
    validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    patience: int | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | Path | None = None,
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
        Of shuffling, dropout and augmentation: the same seed gives the same bits.
    weights : array (n,), optional
        How much each sample counts in its batch's mean.
    l1, l2 : float
        The loss that is minimised has l1 Σ|w| + l2/2 Σw² added, over all weights but no biases.
    dropout : float
        Share of hidden outputs set to zero at random in training, in [0, 1).
    augment : callable, optional
        Takes the inputs of a batch and a generator and returns varied inputs, as `nnbrain.data.shift`.
    validation : tuple of arrays, optional
        (X, y) to measure loss and, for the cross-entropies, accuracy on after each epoch.
    patience : int, optional
        Stop after so many epochs without a smaller validation loss, and return the θ that had the
        smallest (early stopping).
    callbacks : sequence of callable
        Each is called after each epoch with the epoch (from 0), θ (to look at; copy what you keep) and
        the history. If one returns True, training stops.
    checkpoint : path, optional
        A ``.npz`` file, written anew after each epoch. If it is there already, training goes on from it
        and ends with the very bits that it would have ended with had it not been interrupted.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    theta : array (mlp.size,)
    history : History
        The loss of an epoch is the mean over its samples, each at the moment it was trained on, without
        penalties.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, data do not fit the network, or the checkpoint is damaged or of
        another run.
    FloatingPointError
        If the loss or θ becomes NaN or infinite: the steps were too large.
    """
    X, y = mlp.check_data(theta, X, y)
    held_out = None if validation is None else mlp.check_data(theta, *validation)
    share = None if weights is None else checks.weights("weights", weights, len(X), theta.dtype)
    checks.integer("epochs", epochs, minimum=0)
    checks.batch_size(batch_size, len(X))
    checks.number("l1", l1, minimum=0)
    checks.number("l2", l2, minimum=0)
    checks.number("dropout", dropout, minimum=0, below=1)
    if patience is not None:
        checks.integer("patience", patience)
        if held_out is None:
            raise ValueError("validation must be given where patience is, got None")
    rng = checks.generator("rng", rng)
    optimizer = SGD(0.1) if optimizer is None else optimizer

    workspace = Workspace(mlp, theta.copy(), batch_size, dropout, rng)
    layers, grads = mlp.layers(workspace.theta), mlp.layers(workspace.grad)
    training = TrainingState(workspace.theta, optimizer.init(workspace.theta), rng)
    history = training.history

    def gradient(batch: Ints) -> float:
        X_batch, y_batch = workspace.rows(X, y, batch)
        if augment is not None:
            X_batch = _augmented(augment, X_batch, rng)
        loss = workspace.loss_and_grad(X_batch, y_batch, None if share is None else share[batch])
        add_penalty_gradient(layers, grads, l1, l2)
        return loss

    if checkpoint is not None:
        run = {
            "mlp": str(mlp),
            "start": digest(theta),
            "data": digest(X, y, share, *(held_out or ())),
            "optimizer": settings_of(optimizer),
            "generator": digest(generator_state(rng)),
            "batch_size": batch_size,
            "l1": l1,
            "l2": l2,
            "dropout": dropout,
            "patience": patience,
            "augment": augment is not None,
        }
        training.resume(Path(checkpoint), run, epochs)
    stop = False
    with tqdm(total=epochs, desc="fit", unit="epoch", disable=not progress) as bar:
        bar.update(len(history.loss))
        while len(history.loss) < epochs and not stop and (patience is None or history.waited < patience):
            loss = run_epoch(gradient, workspace, optimizer, training.state, len(X), batch_size, rng)
            history.record(loss, mlp, workspace.theta, held_out)
            if history.waited == 0:
                training.best[:] = workspace.theta
            if checkpoint is not None:
                training.save(Path(checkpoint), run)
            answers = [callback(len(history.loss) - 1, workspace.theta, history) for callback in callbacks]
            stop = any(answers)
            bar.update()
    return (workspace.theta if patience is None else training.best), history


def run_epoch(
    gradient: Callable[[Ints], float],
    workspace: Workspace,
    optimizer: Optimizer,
    state: State,
    n_samples: int,
    batch_size: int,
    rng: Shuffler,
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


@dataclass
class TrainingState:
    """All that training remembers from one epoch to the next, and so all that a checkpoint holds."""

    theta: Floats
    state: State
    rng: np.random.Generator
    history: History = field(default_factory=History)
    best: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.best = self.theta.copy()

    def save(self, path: Path, run: Mapping[str, Any]) -> None:
        """Write all of it to `path`, as of this `run`."""
        arrays = {
            "theta": self.theta,
            "best": self.best,
            "generator": generator_state(self.rng),
            **{f"state.{name}": array for name, array in self.state.items()},
            **{f"history.{name}": np.array(values) for name, values in vars(self.history).items()},
        }
        save_checkpoint(path, arrays, run)

    def resume(self, path: Path, run: Mapping[str, Any], epochs: int) -> None:
        """Take over what the checkpoint at `path` holds, if there is one."""
        saved = load_if_there(path, run)
        if saved is None:
            return
        done = len(saved["history.loss"])
        if done > epochs:
            raise ValueError(f"epochs must be at least the {done} that {str(path)!r} has, got {epochs}")
        self.theta[:], self.best[:] = saved["theta"], saved["best"]
        restore_generator(self.rng, saved["generator"])
        for name, array in self.state.items():
            array[...] = saved[f"state.{name}"]
        for name, values in vars(self.history).items():
            values[:] = saved[f"history.{name}"].tolist()


def _augmented(augment: Augmentation, X: Floats, rng: np.random.Generator) -> Floats:
    varied = np.ascontiguousarray(augment(X, rng), X.dtype)
    if varied.shape != X.shape:
        raise ValueError(f"augment must keep the shape {X.shape} of its inputs, got {varied.shape}")
    return varied
