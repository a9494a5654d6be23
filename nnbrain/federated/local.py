"""Training on a client: where nearly all the time of a simulation goes."""

import numpy as np

from nnbrain.checks import Floats
from nnbrain.data import minibatches
from nnbrain.federated.clients import Client
from nnbrain.mlp.network import MLP, Workspace


def local_sgd(
    mlp: MLP,
    theta: Floats,
    client: Client,
    *,
    epochs: int,
    batch_size: int | None,
    learning_rate: float,
    rng: np.random.Generator,
) -> tuple[Floats, float]:
    """Return θ after `epochs` of plain SGD on the client's own data, and the mean loss of the last epoch.

    `theta` is not changed. `batch_size` None, or more than the client has, means all its data at once.
    """
    n = client.n_samples
    size = n if batch_size is None else min(batch_size, n)
    workspace = Workspace(mlp, theta.copy(), size)
    loss = 0.0
    for _ in range(epochs):
        loss = 0.0
        for batch in minibatches(n, size, rng):
            rows = workspace.rows(client.X, client.y, client.index[batch])
            loss += len(batch) / n * workspace.loss_and_grad(*rows)
            workspace.grad *= learning_rate
            workspace.theta -= workspace.grad
    return workspace.theta, loss


def local_gradient(mlp: MLP, theta: Floats, client: Client) -> tuple[Floats, float]:
    """Return the gradient of the client's mean loss over all its data at `theta`, and that loss."""
    workspace = Workspace(mlp, theta, client.n_samples)
    loss = workspace.loss_and_grad(*workspace.rows(client.X, client.y, client.index))
    return workspace.grad, loss
