"""Data-parallel training: every rank has the whole θ and takes its part of each batch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checkpoint import digest, generator_state
from nnbrain.checks import Floats, Ints, Seed
from nnbrain.data import minibatches
from nnbrain.distributed.collectives import ring_allreduce
from nnbrain.distributed.comm import Communicator
from nnbrain.mlp.network import MLP, Workspace
from nnbrain.mlp.optimizers import SGD, Optimizer
from nnbrain.mlp.training import TrainingState, run_epoch
from nnbrain.settings import settings_of

Allreduce = Callable[[Communicator, Floats], None]


def train(
    comm: Communicator,
    mlp: MLP,
    theta: Floats,
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    optimizer: Optimizer | None = None,
    epochs: int = 10,
    batch_size: int = 32,
    rng: Seed = 0,
    allreduce: Allreduce = ring_allreduce,
    checkpoint: str | Path | None = None,
    after_epoch: Callable[[int, float], None] | None = None,
) -> tuple[Floats, list[float]]:
    """Return θ after training on X, y by all ranks of `comm` together, and the loss of each epoch.

    The step is the one that `nnbrain.mlp.fit` takes, to rounding: the ranks draw the same batches, each
    computes the gradient of its part, and their sum is the gradient of the whole.

    Parameters
    ----------
    comm : Communicator
        All ranks call this together, with the same arguments (`check_agreement` makes sure, where they
        come from several processes). A rank reads only its parts of X and y.
    mlp, theta, X, y, optimizer, epochs, batch_size
        As for `nnbrain.mlp.fit`; `batch_size` is of the whole batch, shared by all ranks. It need not
        be a multiple of their number, and may be smaller.
    rng : int or Generator
        In the same state on every rank: it is what keeps the ranks' batches the same.
    allreduce : callable
        Sums the gradient over the ranks, in place: ``allreduce(comm, vector)``. What it may remember
        from call to call is a rank's own and in no checkpoint.
    checkpoint : path, optional
        A ``.npz`` file that all ranks can read; rank 0 writes it after each epoch. If it is there already,
        training goes on from it: with as many ranks as before it ends with the very bits that it would
        have ended with, with another number to rounding.
    after_epoch : callable, optional
        Called on every rank with the epoch, from 0, and its loss, once the checkpoint is written.

    Returns
    -------
    theta : array (mlp.size,)
        The same bits on all ranks.
    losses : list of float
        Mean loss over the samples of each epoch, the same on all ranks.

    Raises
    ------
    TypeError, ValueError, FloatingPointError
        As `nnbrain.mlp.fit`.
    """
    X, y = mlp.check_data(theta, X, y)
    checks.integer("epochs", epochs, minimum=0)
    checks.batch_size(batch_size, len(X))
    rng = checks.generator("rng", rng)
    optimizer = SGD(0.1) if optimizer is None else optimizer

    workspace = Workspace(mlp, theta.copy(), batch_size)
    training = TrainingState(workspace.theta, optimizer.init(workspace.theta), rng)
    losses = training.history.loss
    if checkpoint is not None:
        run = {
            "mlp": str(mlp),
            "theta": digest(theta),
            "data": digest(X, y),
            "optimizer": settings_of(optimizer),
            "rng": digest(generator_state(rng)),
            "batch_size": batch_size,
        }
        training.resume(Path(checkpoint), run, epochs)

    def gradient(batch: Ints) -> float:
        loss = part_of_gradient(comm, workspace, X, y, batch)
        allreduce(comm, workspace.grad)
        return loss

    while len(losses) < epochs:
        part = run_epoch(gradient, workspace, optimizer, training.state, len(X), batch_size, rng)
        loss = np.array([part])
        ring_allreduce(comm, loss)
        losses.append(float(loss[0]))
        if checkpoint is not None and comm.Get_rank() == 0:
            training.save(Path(checkpoint), run)
        if after_epoch is not None:
            after_epoch(len(losses) - 1, losses[-1])
    return workspace.theta, losses


def part_of_gradient(
    comm: Communicator, workspace: Workspace, X: Floats, y: npt.NDArray[Any], batch: Ints
) -> float:
    """Leave in `workspace.grad` this rank's part of the batch's gradient; return its part of the loss.

    With n samples in the batch, of which nᵣ are this rank's, the part is nᵣ/n times the mean over them:
    the parts of all ranks sum to the mean over the batch. A rank without samples contributes zero.
    """
    mine = np.array_split(batch, comm.Get_size())[comm.Get_rank()]
    if len(mine) == 0:
        workspace.grad[:] = 0
        return 0.0
    share = len(mine) / len(batch)
    loss = workspace.loss_and_grad(*workspace.rows(X, y, mine))
    workspace.grad *= share
    return share * loss


def gradient_of_shares(
    mlp: MLP, X: npt.ArrayLike, y: npt.ArrayLike, *, workers: int, batch_size: int, rng: Seed = 0
) -> Callable[[Floats, int, int], Floats]:
    """Return the gradient by which workers share batches, as data-parallel ranks do.

    Task number c of each worker is its share of batch number c, weighted by its part of the samples, so
    the gradients of all workers for one c, computed at one θ, sum to that of the batch. With a `bound` of
    0, `parameter_server` takes the steps of `nnbrain.mlp.fit` with the same `rng` and `batch_size`, each
    in as many parts as there are workers.
    """
    X, y = np.asarray(X), np.asarray(y)
    checks.integer("workers", workers)
    checks.batch_size(batch_size, len(X))
    rng = checks.generator("rng", rng)
    batches: list[Ints] = []

    def gradient(theta: Floats, worker: int, clock: int) -> Floats:
        while clock >= len(batches):
            batches.extend(minibatches(len(X), batch_size, rng))
        batch = batches[clock]
        mine = np.array_split(batch, workers)[worker]
        if len(mine) == 0:
            return np.zeros_like(theta)
        return len(mine) / len(batch) * mlp.loss_and_grad(theta, X[mine], y[mine])[1]

    return gradient


def check_agreement(comm: Communicator, given: Mapping[str, object]) -> None:
    """Raise on every rank if one of them was `given` something else than rank 0 was.

    MPI would not notice: a message too short for its buffer leaves the rest of the buffer as it was.

    Raises
    ------
    ValueError
        That names the arguments and the ranks which differ.
    """
    texts = (np.frombuffer(str(value).encode(), np.uint8) for value in given.values())
    ours = np.array([int(digest(text), 16) for text in texts], np.uint64)
    first = ours.copy()
    comm.Bcast(first)
    differs = np.zeros((comm.Get_size(), len(ours)))
    differs[comm.Get_rank()] = ours != first
    comm.Allreduce(None, differs.ravel())
    if differs.any():
        names = [name for name, column in zip(given, differs.T, strict=True) if column.any()]
        ranks = np.flatnonzero(differs.any(axis=1)).tolist()
        raise ValueError(
            f"{', '.join(names)} must be the same on all ranks, got other than rank 0's on {ranks}"
        )
