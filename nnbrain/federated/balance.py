"""Balance: learning of every class alike where some are rare, with all clients together or with one of them.

Three ways, which differ in where they act. `adjust_logits` acts on the finished network; `Weighted` makes
each sample of a rare class count for more; `Balanced` gives each client equally many samples of each class.
What they need to know of the clients are sums over all of them, nothing of a single one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checkpoint import digest
from nnbrain.checks import Floats, Ints
from nnbrain.federated.algorithms import State, Update, Wrapper
from nnbrain.federated.clients import Client
from nnbrain.mlp.network import MLP

# Takes labels (n,) and a generator, returns a sample of each: (n, features).
Generate = Callable[[Ints, np.random.Generator], Floats]


def recalls(mlp: MLP, theta: Floats, X: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """Return, for each class, the share of its samples that the network classifies correctly.

    Their mean is the balanced accuracy; weighted by how frequent the classes are in `y`, it is the accuracy.
    A class that `y` does not have is NaN.

    Raises
    ------
    TypeError, ValueError
        As `MLP.loss_and_grad`, or if the network has no classes.
    """
    _check_classes(mlp)
    X, labels = mlp.check_data(theta, X, y)
    n_classes = mlp.sizes[-1]
    found = np.bincount(labels[mlp.predict(theta, X) == labels], minlength=n_classes)
    there = np.bincount(labels, minlength=n_classes)
    shares: Floats = np.divide(found, there, out=np.full(n_classes, np.nan), where=there > 0)
    return shares


def class_counts(client: Client, n_classes: int) -> Ints:
    """Return how many samples of each class the client has: n_kc, (n_classes,)."""
    labels = checks.labels("y", client.y[client.index], client.n_samples, n_classes)
    return np.bincount(labels, minlength=n_classes)


def class_weights(counts: npt.ArrayLike) -> tuple[float, ...]:
    """Return w_c = n / (C n_c), with which all C classes weigh alike, and a sample 1 on average.

    A class without samples gets 0, and is not counted in C.

    Raises
    ------
    TypeError, ValueError
        If `counts` are no numbers, negative, or all zero.
    """
    n = checks.weights("counts", counts, np.size(counts), np.float64)
    return tuple(np.divide(n.sum(), np.sum(n > 0) * n, out=np.zeros_like(n), where=n > 0).tolist())


def adjust_logits(mlp: MLP, theta: Floats, counts: npt.ArrayLike) -> Floats:
    """Return θ with log(n_c / n) subtracted from the output biases: it judges as if classes were equal.

    Raises
    ------
    TypeError, ValueError
        If the loss is not cross-entropy, or `counts` are not positive, one for each class.

    Notes
    -----
    Menon et al. (2021), the adjustment after training.
    """
    _check_classes(mlp)
    theta = checks.theta(theta, mlp.size).copy()
    n = checks.weights("counts", counts, mlp.sizes[-1], np.float64)
    if n.min() == 0:
        raise ValueError(f"counts must be above 0, got 0 for classes {np.flatnonzero(n == 0).tolist()}")
    mlp.layers(theta)[-1].b[:] -= np.log(n / n.sum())
    return theta


@dataclass(frozen=True)
class Weighted(Wrapper):
    """An algorithm in which a sample of class c counts w_c times, with the client and with the server.

    In a client's batch the mean is Σ wᵢ ℓᵢ / Σ wᵢ. So a client whose samples are all of one class trains as
    it always did; what changes is its say: it speaks for Wₖ = Σ wᵢ samples. It sends Wₖ besides.

    Parameters
    ----------
    algorithm : Algorithm
    class_weights : sequence of float
        w_c, at least 0; `class_weights` makes them of the counts of all clients together.

    Raises
    ------
    TypeError, ValueError
        If the network has no classes, or weights are not one for each class, are negative or all zero; in a
        round, if a client has only samples that weigh nothing.
    """

    class_weights: Sequence[float]

    def __post_init__(self) -> None:
        _check_classes(self.mlp)
        n_classes = self.mlp.sizes[-1]
        weights = checks.weights("class_weights", self.class_weights, n_classes, np.float64)
        object.__setattr__(self, "class_weights", tuple(weights.tolist()))

    def client_update(self, state: State, client: Client, rng: np.random.Generator) -> Update:
        weights = np.asarray(self.class_weights)[client.y[client.index]]
        if not weights.any():
            raise ValueError(f"client {client.id} must have a sample that weighs more than 0, got none")
        update = self.algorithm.client_update(state, replace(client, weights=weights), rng)
        more = {**update.more, "weight": weights.sum()}
        return update._replace(more=more)

    def server_update(self, state: State, updates: Sequence[Update]) -> State:
        return self.algorithm.server_update(
            state, [update._replace(n_samples=_say(update)) for update in updates]
        )


def _say(update: Update) -> float:
    """Return for how many samples a client speaks, by what it sent."""
    return checks.number(f"weight of client {update.client}", update.sent("weight", ())[()], minimum=0)


@dataclass(frozen=True)
class Balanced(Wrapper):
    """An algorithm whose clients train on as many samples as they have, but equally many of each class.

    In each round a client draws nₖ samples anew: of a class that it has enough of, its own; what is missing
    of the others comes from `generate`. If nₖ is no multiple of the number of classes, some classes, drawn
    at random, get one more.

    Parameters
    ----------
    algorithm : Algorithm
    generate : callable
        Takes labels (n,) and a random generator, and returns a sample of each, (n, features):
        `ClassGaussians` for one.

    Raises
    ------
    ValueError
        If the network has no classes; in a round, if `generate` returns another shape, or a client's samples
        have weights already. To weigh what is balanced, put `Balanced` around `Weighted`.

    Notes
    -----
    The idea of filling and sampling to a fixed number is that of Li et al. (2026), "Federated balanced
    learning", whose generator is a large network; an earlier one of the kind is FAug, Jeong et al. (2018).
    """

    generate: Generate

    def __post_init__(self) -> None:
        _check_classes(self.mlp)

    def client_update(self, state: State, client: Client, rng: np.random.Generator) -> Update:
        return self.algorithm.client_update(state, self.balanced(client, rng), rng)

    def balanced(self, client: Client, rng: np.random.Generator) -> Client:
        """Return a client with the same id, memory and number of samples, and all classes alike."""
        if client.weights is not None:
            raise ValueError(f"client {client.id} must have no weights to be balanced: put Balanced outside")
        n_classes = self.mlp.sizes[-1]
        wanted = np.full(n_classes, client.n_samples // n_classes)
        wanted[rng.permutation(n_classes)[: client.n_samples % n_classes]] += 1
        own, labels = rng.permutation(client.index), client.y
        kept = np.concatenate([own[labels[own] == c][:n] for c, n in enumerate(wanted)])
        lacking = wanted - np.bincount(labels[kept], minlength=n_classes)
        missing = np.repeat(np.arange(n_classes), lacking)
        made = np.asarray(self.generate(missing, rng), client.X.dtype)
        shape = len(missing), client.X.shape[1]
        if made.shape != shape:
            raise ValueError(f"generate must return shape {shape}, got {made.shape}")
        X = np.concatenate([client.X[kept], made])
        y = np.concatenate([labels[kept], missing])
        return client.with_data(X, y)


def class_sums(client: Client, n_classes: int) -> Floats:
    """Return what `ClassGaussians` needs to know of a client, in one vector that may be summed.

    It has the client's n_kc and Σ x of each class, and of all classes together the upper half of Σ x xᵀ:
    n_classes (1 + d) + d (d + 1)/2 numbers for d features, in float64.
    """
    counts = class_counts(client, n_classes)
    X, y = client.rows
    X = X.astype(np.float64)
    sums = np.eye(n_classes)[y].T @ X
    return np.concatenate([counts, sums.ravel(), (X.T @ X)[np.triu_indices(X.shape[1])]])


@dataclass(frozen=True)
class ClassGaussians:
    """Normal distributions, one a class, with means of their own and one covariance: it makes samples.

    Parameters
    ----------
    total : array
        The sum of all clients' `class_sums`.
    n_features : int
        d.

    Attributes
    ----------
    means : array (n_classes, d)
        m_c.
    covariance : array (d, d)
        Of the samples around the means of their classes.

    Raises
    ------
    TypeError, ValueError
        If `total` has no fitting length, or a class has no sample.
    """

    total: Floats = field(repr=False)
    n_features: int
    means: Floats = field(init=False, repr=False)
    covariance: Floats = field(init=False, repr=False)
    _spread: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        d, total = checks.integer("n_features", self.n_features), checks.floats("total", self.total)
        half = d * (d + 1) // 2
        n_classes, rest = divmod(total.size - half, d + 1)
        if total.ndim != 1 or n_classes < 1 or rest:
            raise ValueError(
                f"total must be a vector of {half} + {d + 1} numbers a class, got shape {total.shape}"
            )
        n, sums, products = np.split(total, [n_classes, n_classes * (d + 1)])
        if n.min() < 1 or n.sum() <= n_classes:
            raise ValueError(f"total must count a sample of each class, and of one two, got counts {n}")
        means = sums.reshape(n_classes, d) / n[:, None]
        square = np.zeros((d, d))
        square[np.triu_indices(d)] = products
        square += np.triu(square, 1).T
        covariance = (square - (means.T * n) @ means) / (n.sum() - n_classes)
        values, vectors = np.linalg.eigh(covariance)
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "covariance", covariance)
        object.__setattr__(self, "_spread", vectors * np.sqrt(np.maximum(values, 0)))

    def __repr__(self) -> str:  # which a checkpoint compares: an array's own text lacks its middle
        return f"ClassGaussians({digest(self.total)}, n_features={self.n_features})"

    def __call__(self, labels: Ints, rng: np.random.Generator) -> Floats:
        """Return a random sample of each of the classes `labels` (n,), shape (n, d)."""
        noise = rng.standard_normal((len(labels), self.n_features))
        return np.asarray(self.means[labels] + noise @ self._spread.T)


def _check_classes(mlp: MLP) -> None:
    if mlp.loss != "cross_entropy":
        raise ValueError(f"loss must be 'cross_entropy' for the outputs to be classes, got {mlp.loss!r}")
