"""Data-parallel training: every rank has the whole θ and takes its part of each batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats, Ints, Seed
from nnbrain.distributed.collectives import ring_allreduce
from nnbrain.distributed.comm import Communicator
from nnbrain.mlp.network import MLP, Workspace
from nnbrain.mlp.optimizers import SGD, Optimizer
from nnbrain.mlp.training import run_epoch

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
) -> tuple[Floats, list[float]]:
    """Return θ after training on X, y by all ranks of `comm` together, and the loss of each epoch.

    The step is the one that `nnbrain.mlp.fit` takes, to rounding: the ranks draw the same batches, each
    computes the gradient of its part, and their sum is the gradient of the whole.

    Parameters
    ----------
    comm : Communicator
        All ranks call this together, with the same arguments. A rank reads only its parts of X and y.
    mlp, theta, X, y, optimizer, epochs, batch_size
        As for `nnbrain.mlp.fit`; `batch_size` is of the whole batch, shared by all ranks. It need not
        be a multiple of their number, and may be smaller.
    rng : int or Generator
        In the same state on every rank: it is what keeps the ranks' batches the same.
    allreduce : callable
        Sums the gradient over the ranks, in place: ``allreduce(comm, vector)``.

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
    state = optimizer.init(workspace.theta)

    def gradient(batch: Ints) -> float:
        loss = part_of_gradient(comm, workspace, X, y, batch)
        allreduce(comm, workspace.grad)
        return loss

    losses = []
    for _ in range(epochs):
        my_part = np.array([run_epoch(gradient, workspace, optimizer, state, len(X), batch_size, rng)])
        ring_allreduce(comm, my_part)
        losses.append(float(my_part[0]))
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
