"""Attacks that read the clients' data out of what the clients send, or out of what was learnt."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats, Seed
from nnbrain.mlp.losses import LOSSES
from nnbrain.mlp.network import MLP, Workspace

SMOOTH = ("tanh", "sigmoid", "gelu", "identity")
STEP = 1e-4  # of the central difference, along a unit vector


def read_inputs(mlp: MLP, update: Floats) -> Floats:
    """Return, for each unit of the first layer, the input that a gradient or a move shows, (units, d).

    The gradient of unit j's weights is Σ δᵢⱼ xᵢ, that of its bias Σ δᵢⱼ: their quotient is a mean of the
    inputs with weights δᵢⱼ. If there was one input only, each row is that input, whatever the network and
    its loss; and for a move after many steps of SGD on it, too. Of a batch, a unit that was on for one
    input only shows that one.

    Parameters
    ----------
    mlp : MLP
    update : array (mlp.size,)
        A gradient, or what a client sends.

    Returns
    -------
    inputs : array (units, d)
        Those with the largest gradient of the bias first. Units whose bias has none are left out, so there
        may be no row.

    Raises
    ------
    TypeError, ValueError
        If `update` is not a vector of θ's shape.

    Notes
    -----
    Phong et al. (2018), section III; Geiping et al. (2020), Proposition 3.1.
    """
    W, b = mlp.layers(checks.theta(update, mlp.size))[0]
    order = np.argsort(-np.abs(b), kind="stable")
    order = order[b[order] != 0]
    inputs: Floats = (W[:, order] / b[order]).T
    return inputs


def gradient_distance(
    mlp: MLP, theta: Floats, gradient: Floats, X: Floats, y: npt.ArrayLike
) -> tuple[float, Floats]:
    """Return D = ``½ ‖∇L(X) - gradient‖²``, and its derivative with respect to the inputs X (n, d).

    With the residual r = ∇L(X) - gradient, ∂D/∂X = ∂/∂X ⟨∇L, r⟩, r held fixed. As second derivatives do
    not depend on their order, that is how ∂L/∂X changes as θ goes along r: a central difference of two
    ordinary backward passes. The activation must be smooth: ReLU's second derivative is zero or nothing.

    Raises
    ------
    TypeError, ValueError
        If an array does not fit the network, or its activation is not smooth.
    """
    checks.choice("mlp.activation", mlp.activation, SMOOTH)
    theta = checks.theta(theta, mlp.size).astype(np.float64)
    X, y = mlp.check_data(theta, X, y)
    checks.theta(gradient, mlp.size)
    workspace = Workspace(mlp, theta.copy(), len(X))

    def at(parameters: Floats) -> Floats:
        """Return ∂L/∂X there, and leave ∂L/∂θ in the workspace."""
        workspace.theta[:] = parameters
        delta = workspace.forward(X)  # z of the output layer, which the loss replaces by its delta
        LOSSES[mlp.loss].value_and_delta(delta, y, 1 / len(X))
        first_delta = workspace.backward(X, delta)
        W, _ = mlp.layers(workspace.theta)[0]
        return first_delta @ W.T

    at(theta)
    residual = workspace.grad - gradient
    norm = float(np.linalg.norm(residual))
    if norm == 0:
        return 0.0, np.zeros_like(X)
    step = STEP * residual / norm
    derivative = (at(theta + step) - at(theta - step)) * (norm / (2 * STEP))
    return 0.5 * norm**2, derivative


def match_gradient(
    mlp: MLP,
    theta: Floats,
    gradient: Floats,
    y: npt.ArrayLike,
    *,
    rng: Seed = 0,
    starts: int = 1,
    iterations: int = 500,
) -> tuple[Floats, float]:
    """Return inputs in [0, 1] whose gradient is as near as possible to `gradient`, and how near it is.

    Parameters
    ----------
    mlp : MLP
        With a smooth activation.
    theta : array (mlp.size,)
        Where the gradient was taken.
    gradient : array (mlp.size,)
        Of the mean loss of a batch.
    y : array (n, ...)
        The targets of the batch: what they are is supposed to be known, where a sample is in it is not.
    rng : int or Generator
        Of the random inputs to start from.
    starts : int
        From how many; the best result is returned.
    iterations : int
        Of L-BFGS-B, at most, for each start.

    Returns
    -------
    X : array (n, d)
    distance : float
        ``‖∇L(X) - gradient‖ / ‖gradient‖``.

    Raises
    ------
    TypeError, ValueError
        As `gradient_distance`, and if `gradient` is 0, which shows nothing.

    Notes
    -----
    Zhu et al. (2019), with the labels known; the derivative is `gradient_distance`'s.
    """
    from scipy.optimize import minimize  # slow to import

    generator = checks.generator("rng", rng)
    checks.integer("iterations", iterations)
    scale = float(np.linalg.norm(checks.theta(gradient, mlp.size)))
    if scale == 0:
        raise ValueError("gradient must not be 0: it shows nothing")
    shape = len(np.asarray(y)), mlp.sizes[0]

    def objective(x: Floats) -> tuple[float, Floats]:
        distance, derivative = gradient_distance(mlp, theta, gradient, x.reshape(shape), y)
        return distance / scale**2, derivative.ravel() / scale**2

    options: Any = {"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 0.0, "gtol": 1e-12}
    bounds = [(0.0, 1.0)] * (shape[0] * shape[1])
    first = generator.random((checks.integer("starts", starts), len(bounds)))
    found = [
        minimize(objective, x, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        for x in list(first)
    ]
    best = min(found, key=lambda result: float(result.fun))
    return best.x.reshape(shape), float(np.sqrt(2 * best.fun))


def sample_losses(mlp: MLP, theta: Floats, X: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """Return the loss of each row of X (n, d) alone, (n,); errors as `MLP.mean_loss`."""
    X, y = mlp.check_data(theta, X, y)
    return np.array([mlp.mean_loss(theta, X[i : i + 1], y[i : i + 1]) for i in range(len(X))])


class Membership(NamedTuple):
    """How well scores tell members of a training set from others.

    Attributes
    ----------
    auc : float
        Chance that a random member has a higher score than a random other, ties counting half.
    false_positives, true_positives : array (thresholds,)
        Shares of others and of members at or above a threshold, for all thresholds from high to low.
    """

    auc: float
    false_positives: Floats
    true_positives: Floats

    def true_positive_rate(self, false_positive_rate: float) -> float:
        """Return the largest share of members found with at most this share of others accused."""
        checks.number("false_positive_rate", false_positive_rate, minimum=0, maximum=1)
        return float(self.true_positives[self.false_positives <= false_positive_rate].max())


def membership(members: npt.ArrayLike, others: npt.ArrayLike) -> Membership:
    """Return how well an attack's scores separate members from others; a high score says "member".

    Minus the loss is the score of Yeom et al. (2018). The loss that models have which never saw the sample,
    minus the loss, allows for samples that are easy or hard for anybody.

    Raises
    ------
    ValueError
        If there are no members or no others, or a score is not finite.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    inside, outside = checks.floats("members", members).ravel(), checks.floats("others", others).ravel()
    if len(inside) == 0 or len(outside) == 0:
        raise ValueError(
            f"members and others must have scores, got {len(inside)} members and {len(outside)} others"
        )
    truth = np.repeat([1, 0], [len(inside), len(outside)])
    scores = np.concatenate([inside, outside])
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    return Membership(float(roc_auc_score(truth, scores)), false, true)
