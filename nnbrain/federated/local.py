"""Training on a client: where nearly all the time of a simulation goes."""

from nnbrain import checks
from nnbrain.checks import Floats, Seed
from nnbrain.federated.clients import Client
from nnbrain.federated.descent import Descent
from nnbrain.mlp.network import MLP, Workspace


def local_sgd(
    mlp: MLP,
    theta: Floats,
    client: Client,
    *,
    epochs: int,
    batch_size: int | None,
    learning_rate: float,
    rng: Seed,
    proximal: float = 0.0,
    drift: Floats | None = None,
) -> tuple[Floats, float]:
    """Return θ after plain SGD on the client's own data, and the mean loss of the last epoch.

    With g the gradient of a batch's mean loss, in which samples count as `client.weights` say, a step goes
    along -(g + proximal (θ - θ at the start) + drift).

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
    proximal : float
        At least 0: how strongly θ is drawn back to where it started. FedProx's μ.
    drift : array (mlp.size,), optional
        A vector that is added to every gradient. SCAFFOLD's c - c_k; μ (start - anchor) draws θ to another
        point than its start, together with proximal=μ.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.
    FloatingPointError
        If the loss or θ becomes NaN or infinite.
    """
    checks.integer("epochs", epochs)
    checks.number("learning_rate", learning_rate, above=0)
    checks.number("proximal", proximal, minimum=0)
    n = client.n_samples
    size = n if batch_size is None else min(checks.integer("batch_size", batch_size), n)
    theta = checks.theta(theta, mlp.size).copy()
    descent = Descent(mlp, theta, size, float(learning_rate), float(proximal), drift)
    rng = checks.generator("rng", rng)
    orders = (rng.permutation(n) for _ in range(epochs))
    loss = descent.epochs(client, orders, _weights(client, theta))
    return theta, loss


def local_gradient(mlp: MLP, theta: Floats, client: Client) -> tuple[Floats, float]:
    """Return the gradient of the client's mean loss over all its data at `theta`, and that loss.

    Samples count as `client.weights` say.
    """
    workspace = Workspace(mlp, checks.theta(theta, mlp.size), client.n_samples)
    X, y = workspace.rows(client.X, client.y, client.index)
    loss = workspace.loss_and_grad(X, y, _weights(client, theta))
    return workspace.grad, loss


def _weights(client: Client, theta: Floats) -> Floats | None:
    if client.weights is None:
        return None
    return checks.weights("client.weights", client.weights, client.n_samples, theta.dtype)
