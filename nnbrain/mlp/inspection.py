"""Looking inside a trained network: what an answer hangs on, what would change it, how sure to be of it.

The gradients here are those with respect to the *inputs*: the step of backpropagation that training
leaves out, ∂/∂X = delta¹ (W¹)ᵀ. Each function raises TypeError or ValueError, naming the argument, where
θ or data do not fit the network or an argument is out of its range.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats, Ints, Seed
from nnbrain.mlp.activations import ACTIVATIONS
from nnbrain.mlp.losses import LOSSES
from nnbrain.mlp.network import MLP, Workspace


def saliency(mlp: MLP, theta: Floats, X: npt.ArrayLike, classes: npt.ArrayLike | None = None) -> Floats:
    """Return the gradient of one logit of each row with respect to the row, (n, d).

    Simonyan, Vedaldi & Zisserman (2014), who draw its absolute value.

    Parameters
    ----------
    mlp : MLP
    theta : array (mlp.size,)
    X : array (n, d)
    classes : int or array (n,), optional
        Whose logit; by default each row's largest, the one that decides the prediction.
    """
    X, delta = _chosen_logits(mlp, theta, X, classes)
    workspace = Workspace(mlp, theta, len(X))
    workspace.forward(X)
    return _input_gradient(mlp, workspace, X, delta)


def integrated_gradients(
    mlp: MLP,
    theta: Floats,
    X: npt.ArrayLike,
    classes: npt.ArrayLike | None = None,
    baseline: npt.ArrayLike | None = None,
    steps: int = 64,
) -> Floats:
    """Return what each feature contributes to one logit of each row, against a baseline, (n, d).

    It is (x - baseline) times the mean of `saliency` on the straight line from the baseline to x, taken
    at the midpoints of `steps` pieces. As these get finer, a row's contributions sum to
    z(x) - z(baseline): completeness. Sundararajan, Taly & Yan (2017).

    Parameters
    ----------
    mlp, theta, X, classes
        As of `saliency`; the class stays that of x all along the line.
    baseline : array (d,) or (n, d), optional
        What counts as *nothing there*; by default zeros.
    steps : int
    """
    X, delta = _chosen_logits(mlp, theta, X, classes)
    checks.integer("steps", steps)
    start = np.zeros_like(X) if baseline is None else checks.floats("baseline", baseline, X.dtype)
    if start.shape not in (X.shape, X.shape[1:]):
        raise ValueError(f"baseline must have shape {X.shape[1:]} or {X.shape}, got {start.shape}")
    workspace, total = Workspace(mlp, theta, len(X)), np.zeros_like(X)
    for share in (np.arange(steps, dtype=X.dtype) + 0.5) / steps:
        between = start + share * (X - start)
        workspace.forward(between)
        total += _input_gradient(mlp, workspace, between, delta)
    total *= (X - start) / steps
    return total


def permutation_importance(
    mlp: MLP, theta: Floats, X: npt.ArrayLike, y: npt.ArrayLike, repeats: int = 5, rng: Seed = 0
) -> Floats:
    """Return by how much accuracy falls when one feature is shuffled among the rows, (d, repeats).

    Breiman (2001); what scikit-learn's function of the same name calls ``importances``.

    Parameters
    ----------
    mlp : MLP
        With a cross-entropy, so that accuracy has a meaning.
    theta : array (mlp.size,)
    X, y : arrays (n, d) and (n,)
        Best held out: on training data it says what the network leans on, not what helps it.
    repeats : int
        Shuffles of each feature.
    rng : int or Generator
    """
    X, y = mlp.check_data(theta, X, y)
    checks.integer("repeats", repeats)
    rng = checks.generator("rng", rng)
    before = mlp.accuracy(theta, X, y)
    drops, shuffled = np.empty((X.shape[1], repeats)), X.copy()
    for feature, row in enumerate(drops):
        for repeat in range(repeats):
            shuffled[:, feature] = rng.permutation(X[:, feature])
            row[repeat] = before - mlp.accuracy(theta, shuffled, y)
        shuffled[:, feature] = X[:, feature]
    return drops


def adversarial(
    mlp: MLP,
    theta: Floats,
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    epsilon: float,
    steps: int = 1,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Floats:
    """Return X with no entry changed by more than `epsilon`, and all so as to raise the loss, (n, d).

    One step is the fast gradient sign method, x + ε sign ∂ℓ/∂x (Goodfellow, Shlens & Szegedy, 2015). More
    steps, each of 2.5 ε / steps and each brought back into the box around x, are projected gradient ascent
    begun at x itself; Madry et al. (2018) begin at random points of the box.

    Parameters
    ----------
    mlp : MLP
        With ``loss="cross_entropy"``.
    theta : array (mlp.size,)
    X, y : arrays (n, d) and (n,)
        Inputs within the bounds, and the true classes to be led away from.
    epsilon : float
        At least 0.
    steps : int
    bounds : tuple of float
        Least and greatest value that an entry can have; infinite ones are none.
    """
    if mlp.loss != "cross_entropy":
        raise ValueError(f"loss must be 'cross_entropy' for adversarial inputs, got {mlp.loss!r}")
    X, y = mlp.check_data(theta, X, y)
    checks.number("epsilon", epsilon, minimum=0)
    checks.integer("steps", steps)
    low, high = bounds
    if not (low <= X.min() and X.max() <= high):
        raise ValueError(f"bounds must enclose X, here {X.min():g} to {X.max():g}, got {bounds}")
    lowest, highest = np.maximum(X - epsilon, low), np.minimum(X + epsilon, high)
    workspace, moved, true = Workspace(mlp, theta, len(X)), X.copy(), (np.arange(len(X)), y)
    for _ in range(steps):
        # Of a row p - onehot(y) only the direction matters, so divide it by 1 - p_y: where the network
        # is sure, p_y rounds to 1, and nothing would be left of the entry p_y - 1.
        z = workspace.forward(moved)
        z[true] = -np.inf
        delta = LOSSES["cross_entropy"].predict(z)
        delta[true] = -1
        step = epsilon if steps == 1 else 2.5 * epsilon / steps
        moved += step * np.sign(_input_gradient(mlp, workspace, moved, delta))
        np.clip(moved, lowest, highest, out=moved)
    return moved


def hidden_outputs(mlp: MLP, theta: Floats, X: npt.ArrayLike) -> list[Floats]:
    """Return the outputs h¹, h², … of the hidden layers for the rows of X, each (n, units)."""
    X = checks.features(X, mlp.sizes[0], checks.theta(theta, mlp.size).dtype)
    return layer_by_layer(mlp, theta, X)[1][1:]


def layer_by_layer(mlp: MLP, theta: Floats, X: Floats) -> tuple[list[Floats], list[Floats]]:
    """Return every layer's sums z¹ … z^L, and what every layer gets: h⁰ = X, h¹ … h^(L-1). X is checked."""
    *hidden, (W_last, b_last) = mlp.layers(theta)
    z: list[Floats] = []
    h = [X]
    for W, b in hidden:
        z.append(h[-1] @ W + b)
        h.append(np.empty_like(z[-1]))
        ACTIVATIONS[mlp.activation].forward(z[-1], h[-1])
    return [*z, h[-1] @ W_last + b_last], h


class Reliability(NamedTuple):
    """How often answers of like confidence are right, one entry a bin; NaN where a bin is empty."""

    confidence: Floats  # mean probability of the predicted class
    accuracy: Floats  # share of right predictions
    n: Ints  # predictions in the bin


def reliability(p: npt.ArrayLike, y: npt.ArrayLike, bins: int = 10) -> Reliability:
    """Return confidence and accuracy of predictions in `bins` bins of confidence, each (bins,).

    Bin m of M has the confidences in ((m - 1)/M, m/M], as in Guo, Pleiss, Sun & Weinberger (2017), for
    probabilities p (n, k) of the classes and true classes y (n,).
    """
    p, y = _scores("p", p, y)
    if p.min() < 0 or np.abs(p.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("p must have rows of probabilities, 0 or more and of sum 1, got others")
    checks.integer("bins", bins)
    confidence = p.max(axis=1)
    index = np.searchsorted(np.arange(1, bins) / bins, confidence)
    n = np.bincount(index, minlength=bins)
    sums = [np.bincount(index, values, bins) for values in (confidence, p.argmax(axis=1) == y)]
    with np.errstate(invalid="ignore"):
        return Reliability(sums[0] / n, sums[1] / n, n)


def calibration_error(p: npt.ArrayLike, y: npt.ArrayLike, bins: int = 10) -> float:
    """Return the expected calibration error: mean over answers of their bin's ``|accuracy - confidence|``.

    Arguments as of `reliability`; equation 3 of Guo et al. (2017).
    """
    confidence, accuracy, n = reliability(p, y, bins)
    return float(np.nansum(n * np.abs(accuracy - confidence)) / n.sum())


def temperature(z: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Return the T > 0 for which softmax(z / T) has the least cross-entropy on true classes y (n,).

    The logits z (n, k) should be of data not trained on. Dividing by T leaves the order of a row's
    logits, and with it every prediction; it changes how sure they are.

    Guo et al. (2017), section 4.2. The loss is convex in β = 1/T; this finds where its derivative, the
    mean over rows of Σ p_c z_c - z_y, is zero. No T is best, and ValueError raised, where
    all predictions are right (T → 0 is better and better) or logits say no more than equal ones.
    """
    from scipy.optimize import brentq  # half a second that every rank would spend at its start

    z, y = _scores("z", z, y)
    z = z - z[np.arange(len(z)), y][:, None]  # so that z_y = 0

    def slope(beta: float) -> float:
        return float(np.mean(np.sum(LOSSES["cross_entropy"].predict(beta * z) * z, axis=1)))

    if z.max() <= 0:
        raise ValueError("z must be wrong on some rows for a temperature to exist, got none wrong")
    if slope(0.0) >= 0:
        raise ValueError("z must say more of y than equal logits for a temperature to exist, got less")
    beta = 1.0
    while slope(beta) < 0:
        beta *= 2
    return 1 / float(brentq(slope, 0.0, beta, rtol=1e-12))


def _input_gradient(mlp: MLP, workspace: Workspace, X: Floats, delta: Floats) -> Floats:
    """Return the gradient of Σ delta z, with delta (n, k) held fixed, by X (n, d), the last to go forward."""
    gradient: Floats = workspace.backward(X, delta) @ mlp.layers(workspace.theta)[0].W.T
    return gradient


def _chosen_logits(
    mlp: MLP, theta: Floats, X: npt.ArrayLike, classes: npt.ArrayLike | None
) -> tuple[Floats, Floats]:
    """Return X checked, and rows (n, k) with a 1 at the chosen class, or at the largest logit."""
    X = checks.features(X, mlp.sizes[0], checks.theta(theta, mlp.size).dtype)
    if classes is None:
        classes = mlp.forward(theta, X).argmax(axis=1)
    elif np.ndim(classes) == 0:
        classes = np.full(len(X), classes)
    return X, np.eye(mlp.sizes[-1], dtype=X.dtype)[checks.labels("classes", classes, len(X), mlp.sizes[-1])]


def _scores(name: str, values: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Ints]:
    """Return scores of the classes, (n >= 1, k), in float64, and the n labels y."""
    scores = checks.floats(name, values)
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"{name} must have shape (n, k), one row a sample, got {scores.shape}")
    return scores, checks.labels("y", y, *scores.shape)
