"""Training on a client: where nearly all the time of a simulation goes."""

from nnbrain import checks
from nnbrain.checks import Floats, Ints, Seed
from nnbrain.federated.clients import Client
from nnbrain.mlp.network import MLP, Workspace
from nnbrain.mlp.optimizers import SGD
from nnbrain.mlp.training import run_epoch


def local_sgd(
    mlp: MLP,
    theta: Floats,
    client: Client,
    *,
    epochs: int,
    batch_size: int | None,
    learning_rate: float,
    rng: Seed,
) -> tuple[Floats, float]:
    """Return θ after plain SGD on the client's own data, and the mean loss of the last epoch.

    Parameters
    ----------
    mlp : MLP
    theta : array (mlp.size,)
        Where to start; not changed. The client's data must be in its type, as `simulate` sees to.
    client : Client
    epochs : int
        At least 1.
    batch_size : int or None
        None, or more than the client has, means all its data at once.
    learning_rate : float
    rng : int or Generator
        Of the shuffling.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.
    FloatingPointError
        If the loss or θ becomes NaN or infinite.
    """
    checks.integer("epochs", epochs)
    n = client.n_samples
    size = n if batch_size is None else min(checks.integer("batch_size", batch_size), n)
    optimizer = SGD(learning_rate)
    workspace = Workspace(mlp, checks.theta(theta, mlp.size).copy(), size)
    state = optimizer.init(workspace.theta)
    rng = checks.generator("rng", rng)

    def gradient(batch: Ints) -> float:
        return workspace.loss_and_grad(*workspace.rows(client.X, client.y, client.index[batch]))

    losses = [run_epoch(gradient, workspace, optimizer, state, n, size, rng) for _ in range(epochs)]
    return workspace.theta, losses[-1]


def local_gradient(mlp: MLP, theta: Floats, client: Client) -> tuple[Floats, float]:
    """Return the gradient of the client's mean loss over all its data at `theta`, and that loss."""
    workspace = Workspace(mlp, checks.theta(theta, mlp.size), client.n_samples)
    loss = workspace.loss_and_grad(*workspace.rows(client.X, client.y, client.index))
    return workspace.grad, loss
