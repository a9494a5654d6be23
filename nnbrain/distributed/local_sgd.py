"""Local SGD: every rank trains a θ of its own for some steps; then all are averaged."""

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checkpoint import digest, generator_state
from nnbrain.checks import Floats, Ints, Seed
from nnbrain.distributed.collectives import ring_allreduce
from nnbrain.distributed.comm import Communicator
from nnbrain.distributed.data_parallel import Allreduce, check_agreement, part_of_gradient
from nnbrain.mlp.network import MLP, Workspace
from nnbrain.mlp.optimizers import SGD, Optimizer
from nnbrain.mlp.training import run_epoch
from nnbrain.settings import settings_of


def train_with_local_steps(
    comm: Communicator,
    mlp: MLP,
    theta: Floats,
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    local_steps: int,
    optimizer: Optimizer | None = None,
    epochs: int = 10,
    batch_size: int = 32,
    rng: Seed = 0,
    allreduce: Allreduce = ring_allreduce,
) -> tuple[Floats, list[float]]:
    """Return θ after training in which the ranks speak every `local_steps` steps only, and the losses.

    The ranks draw the same batches and share them as in `nnbrain.distributed.train`, but each steps along its
    own part of the gradient, times p to be of the whole's size. After so many steps, and at the end, the
    moves since they last agreed are averaged, and all go on from there. With one local step and SGD this is
    `train`, to rounding, however unequal the parts.

    Parameters
    ----------
    comm, mlp, theta, X, y, epochs, batch_size, rng
        As for `nnbrain.distributed.train`.
    local_steps : int
        Steps from one average to the next, at least 1; epochs do not interrupt the count.
    optimizer : Optimizer, optional
        Its state stays each rank's own; only θ is averaged.
    allreduce : callable
        Sums the moves over the ranks, in place: ``allreduce(comm, vector)``.

    Returns
    -------
    theta : array (mlp.size,)
        The same bits on all ranks.
    losses : list of float
        Mean loss over the samples of each epoch, each at the θ of the rank that had it.

    Raises
    ------
    TypeError, ValueError, FloatingPointError
        As `nnbrain.distributed.train`.

    Notes
    -----
    Stich (2019), "Local SGD converges fast and communicates little".
    """
    X, y = mlp.check_data(theta, X, y)
    checks.integer("epochs", epochs, minimum=0)
    checks.integer("local_steps", local_steps)
    checks.batch_size(batch_size, len(X))
    rng = checks.generator("rng", rng)
    optimizer = SGD(0.1) if optimizer is None else optimizer
    check_agreement(
        comm,
        {
            "mlp": mlp,
            "theta": digest(theta),
            "data": digest(X, y),
            "optimizer": settings_of(optimizer),
            "rng": digest(generator_state(rng)),
            "epochs": epochs,
            "batch_size": batch_size,
            "local_steps": local_steps,
        },
    )
    workspace = Workspace(mlp, theta.copy(), batch_size)
    state = optimizer.init(workspace.theta)
    agreed = theta.copy()
    steps_alone, p = 0, comm.Get_size()

    def average() -> None:
        nonlocal steps_alone
        move = (workspace.theta - agreed) / p
        allreduce(comm, move)
        agreed[:] += move
        workspace.theta[:] = agreed
        steps_alone = 0

    def gradient(batch: Ints) -> float:
        nonlocal steps_alone
        if steps_alone == local_steps:
            average()
        steps_alone += 1
        loss = part_of_gradient(comm, workspace, X, y, batch)
        workspace.grad *= p
        return loss

    losses = []
    for _ in range(epochs):
        part = np.array([run_epoch(gradient, workspace, optimizer, state, len(X), batch_size, rng)])
        ring_allreduce(comm, part)
        losses.append(float(part[0]))
    if steps_alone:
        average()
    return agreed, losses
