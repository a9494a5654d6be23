"""Balance: weights, logits and filled clients against the pile, closed forms and brute force."""

from dataclasses import replace

import numpy as np
import pytest

from nnbrain.federated import (
    Altered,
    Balanced,
    ClassGaussians,
    Client,
    FedAvg,
    FedNova,
    FedProx,
    FedSGD,
    Scaffold,
    Weighted,
    adjust_logits,
    class_counts,
    class_sums,
    class_weights,
    local_gradient,
    make_clients,
    recalls,
    simulate,
)
from nnbrain.mlp import MLP, SGD, fit

mlp = MLP((5, 4, 3))
theta = mlp.init(1, np.float64)


def make(n=60, seed=0):
    """Return rows of three classes, of which one is rare, and three clients with 7, 20 and 33 of 60."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat([0, 1, 2], [40, 15, n - 55]))
    X = rng.normal(size=(n, 5)) + y[:, None]
    return X, y, make_clients(X, y, np.split(rng.permutation(n), [7, 27]))


X, y, clients = make()
counts = np.bincount(y)
fair = class_weights(counts)


# ---- what is measured ----


def test_accuracy_is_the_mean_of_recalls_weighted_by_frequency():
    """eq-accuracy-of-recalls, on labels as they are and as few of each class as another test set has."""
    for rows in (np.arange(60), np.r_[0:9, 30:45]):
        q = np.bincount(y[rows], minlength=3) / len(rows)
        R = recalls(mlp, theta, X[rows], y[rows])
        assert R @ q == pytest.approx(mlp.accuracy(theta, X[rows], y[rows]), abs=1e-15)
    by_hand = [np.mean(mlp.predict(theta, X[y == c]) == c) for c in range(3)]
    np.testing.assert_allclose(recalls(mlp, theta, X, y), by_hand, rtol=0, atol=1e-15)
    assert len(set(by_hand)) > 1
    assert np.isnan(recalls(mlp, theta, X[y < 2], y[y < 2])[2])


def test_class_weights_by_hand():
    assert fair == (60 / (3 * 40), 60 / (3 * 15), 60 / (3 * 5))
    assert class_weights([6, 0, 2]) == (8 / 12, 0.0, 8 / 4)
    assert class_weights([9, 9, 9]) == (1.0, 1.0, 1.0)
    np.testing.assert_array_equal(sum(class_counts(client, 3) for client in clients), counts)


# ---- weights of samples in local training ----


# ---- weighted federations ----


def test_weighted_losses_of_clients_add_up_to_that_of_the_pile():
    """eq-weighted-objective: F_w = Σ W_k / W F_wk."""
    w = np.asarray(fair)
    of_all = mlp.mean_loss(theta, X, y, w[y])
    parts = [
        (w[y[c.index]].sum(), mlp.mean_loss(theta, X[c.index], y[c.index], w[y[c.index]])) for c in clients
    ]
    W, losses = np.transpose(parts)
    assert W.sum() == pytest.approx(60, abs=1e-12)
    assert np.average(losses, weights=W) == pytest.approx(of_all, rel=1e-14)
    by_class = [mlp.mean_loss(theta, X[y == c], y[y == c]) for c in range(3)]
    assert of_all == pytest.approx(np.mean(by_class), rel=1e-14)  # every class alike
    assert abs(of_all - mlp.mean_loss(theta, X, y)) > 1e-3


def test_weighted_fedsgd_is_weighted_descent_on_the_pile():
    """eq-weighted-objective in training: 40 rounds."""
    got, history = simulate(Weighted(FedSGD(mlp, 0.5), fair), clients, theta, rounds=40)
    settings = {"optimizer": SGD(0.5), "epochs": 40, "batch_size": 60}
    expected, _ = fit(mlp, theta, X, y, weights=np.asarray(fair)[y], **settings)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    plain, _ = simulate(FedSGD(mlp, 0.5), clients, theta, rounds=40)
    assert np.abs(got - plain).max() > 0.1
    assert history[0].per_client["bytes_sent"] == [theta.nbytes + 8] * 3


def test_a_client_of_one_class_trains_as_before_and_has_another_say():
    """eq-weighted-objective: its weights cancel in the mean."""
    client = Client(0, X, y, np.flatnonzero(y == 2))
    algorithm = FedAvg(mlp, 2, 3, 0.1)
    state = algorithm.init(theta)
    plain = algorithm.client_update(state, client, np.random.default_rng(3))
    weighted = Weighted(algorithm, fair).client_update(state, client, np.random.default_rng(3))
    np.testing.assert_allclose(weighted.vector, plain.vector, rtol=0, atol=1e-15)
    assert (plain.n_samples, float(weighted.more["weight"])) == (5, 5 * fair[2])


# ---- logits ----


def test_adjusted_logits_are_the_posterior_of_equal_classes():
    """eq-adjusted-logits: p(c|x) / q_c, normalised, is the softmax of z - log q."""
    q = counts / counts.sum()
    p = mlp.predict_proba(theta, X) / q
    got = mlp.predict_proba(adjust_logits(mlp, theta, counts), X)
    np.testing.assert_allclose(got, p / p.sum(axis=1, keepdims=True), rtol=0, atol=1e-15)
    assert np.abs(got - mlp.predict_proba(theta, X)).max() > 0.1


def test_training_with_the_prior_in_the_loss_is_adjusting_afterwards_but_for_the_start():
    """eq-adjusted-logits: a bias that carries log q all along is moved as one that gets it at the start."""
    start = adjust_logits(mlp, theta, 1 / counts)  # adds log n_c, and a constant
    end, _ = simulate(FedAvg(mlp, 2, 5, 0.2), clients, start, rounds=3)

    class WithPrior(FedAvg):
        def client_update(self, state, client, rng):
            carried = {"theta": adjust_logits(mlp, state["theta"], 1 / counts)}
            return super().client_update(carried, client, rng)

    got, _ = simulate(WithPrior(mlp, 2, 5, 0.2), clients, theta, rounds=3)
    np.testing.assert_allclose(got, end - (start - theta), rtol=0, atol=1e-13)


# ---- filled clients ----


def test_sums_over_clients_make_the_gaussians_of_the_pile():
    """eq-class-gaussians: means and pooled covariance, by their definitions."""
    gaussians = ClassGaussians(sum(class_sums(client, 3) for client in clients), 5)
    means = np.array([X[y == c].mean(axis=0) for c in range(3)])
    around = X - means[y]
    np.testing.assert_allclose(gaussians.means, means, rtol=0, atol=1e-14)
    np.testing.assert_allclose(gaussians.covariance, around.T @ around / (60 - 3), rtol=0, atol=1e-13)


def test_samples_have_the_means_and_the_covariance():
    """eq-class-gaussians: 60,000 draws, to five standard errors; also where a feature never varies."""
    flat = np.c_[X, np.ones(60)]
    gaussians = ClassGaussians(sum(class_sums(replace(c, X=flat), 3) for c in clients), 6)
    labels = np.repeat([0, 2], 30000)
    made = gaussians(labels, np.random.default_rng(0))
    assert np.abs(made[:, 5] - 1).max() < 1e-6
    around = made - gaussians.means[labels]
    spread = np.sqrt(np.diag(gaussians.covariance)[:5])
    for c in (0, 2):
        assert np.all(np.abs(around[labels == c, :5].mean(axis=0)) < 5 * spread / np.sqrt(30000))
    error = around.T @ around / 60000 - gaussians.covariance
    assert np.abs(error[:5, :5] / np.outer(spread, spread)).max() < 5 * np.sqrt(2 / 60000)


def nothing(labels, rng):
    return np.full((len(labels), 5), -7.0)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_a_balanced_client_has_as_many_samples_as_before_and_of_each_class_alike(k):
    client = clients[k].with_memory({"a": np.ones(1)})
    had = class_counts(client, 3)
    for seed in range(5):
        got = Balanced(FedAvg(mlp), nothing).balanced(client, np.random.default_rng(seed))
        has = class_counts(got, 3)
        assert (has.sum(), got.n_samples, got.id) == (client.n_samples, client.n_samples, k)
        assert np.ptp(has) == (client.n_samples % 3 > 0)
        assert got.memory is client.memory
        made = np.all(got.X == -7, axis=1)
        np.testing.assert_array_equal(np.bincount(got.y[made], minlength=3), np.maximum(has - had, 0))
        own = {tuple(row): label for row, label in zip(X[client.index], y[client.index], strict=True)}
        kept = [tuple(row) for row in got.X[~made]]
        assert len(set(kept)) == len(kept)  # none twice
        assert all(own[row] == label for row, label in zip(kept, got.y[~made], strict=True))


def test_a_client_that_is_balanced_keeps_its_samples():
    client = Client(0, X, y, np.concatenate([np.flatnonzero(y == c)[:5] for c in range(3)]))
    got = Balanced(FedAvg(mlp), nothing).balanced(client, np.random.default_rng(0))
    assert sorted(map(tuple, got.X)) == sorted(map(tuple, X[client.index]))


# ---- composing ----


def halve(update, state, client, rng):
    return update._replace(vector=update.vector / 2)


INNER = {
    "FedAvg": FedAvg(mlp, 2, 5, 0.1),
    "FedProx": FedProx(mlp, 2, 5, 0.1, mu=0.5),
    "FedNova": FedNova(mlp, 2, 5, 0.1),
    "Scaffold": Scaffold(mlp, 2, 5, 0.1, total_samples=60),
}


@pytest.mark.parametrize("wrap", [lambda a: Weighted(a, fair), lambda a: Balanced(a, nothing)])
@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
def test_they_compose_with_any_algorithm_and_with_what_alters_updates(inner, wrap):
    whole, history = simulate(wrap(inner), clients, theta, rounds=2)
    assert len(history) == 2
    assert np.abs(whole - simulate(inner, clients, theta, rounds=2)[0]).max() > 1e-3
    one, _ = simulate(wrap(inner), clients, theta, rounds=1)
    for half in (wrap(Altered(inner, halve)), Altered(wrap(inner), halve)):
        got, _ = simulate(half, clients, theta, rounds=1)
        np.testing.assert_allclose(got - theta, (one - theta) / 2, rtol=0, atol=1e-14)


def test_weights_of_equal_classes_leave_fedprox_as_it_is():
    got, _ = simulate(Weighted(INNER["FedProx"], (2, 2, 2)), clients, theta, rounds=3)
    np.testing.assert_allclose(got, simulate(INNER["FedProx"], clients, theta, rounds=3)[0], atol=1e-14)


def test_both_are_the_same_bits_in_processes_and_after_an_interruption(tmp_path):
    gaussians = ClassGaussians(sum(class_sums(client, 3) for client in clients), 5)
    algorithm = Balanced(Weighted(INNER["FedAvg"], fair), gaussians)
    whole, _ = simulate(algorithm, clients, theta, rounds=2)
    np.testing.assert_array_equal(simulate(algorithm, clients, theta, rounds=2, workers=2)[0], whole)
    path = tmp_path / "run.npz"
    simulate(algorithm, clients, theta, rounds=1, checkpoint=path)
    np.testing.assert_array_equal(simulate(algorithm, clients, theta, rounds=2, checkpoint=path)[0], whole)
    others = ClassGaussians(class_sums(clients[2], 3) + class_sums(clients[1], 3), 5)
    with pytest.raises(ValueError, match="algorithm"):
        simulate(replace(algorithm, generate=others), clients, theta, rounds=2, checkpoint=path)
    heavier = [replace(client, weights=np.arange(1.0, 1 + client.n_samples)) for client in clients]
    with pytest.raises(ValueError, match="clients"):
        simulate(algorithm, heavier, theta, rounds=2, checkpoint=path)


# ---- bad input ----


def run(algorithm):
    simulate(algorithm, clients, theta, rounds=1)


def with_weights(weights):
    return local_gradient(mlp, theta, replace(clients[0], weights=weights))


yes_no = MLP((5, 1), loss="binary_cross_entropy")
BAD = {
    "classes": (lambda: recalls(yes_no, yes_no.init(0), X, y), "loss must be 'cross_entropy'"),
    "adjust": (lambda: adjust_logits(mlp, theta, [3, 0, 1]), r"counts must be above 0, got 0 for .*\[1\]"),
    "few counts": (lambda: adjust_logits(mlp, theta, [3, 1]), r"counts must have shape \(3,\)"),
    "no counts": (lambda: class_weights([0, 0]), "counts must be 0 or more and not all 0"),
    "negative": (lambda: Weighted(FedAvg(mlp), (1, -1, 1)), "class_weights must be 0 or more"),
    "few": (lambda: Weighted(FedAvg(mlp), (1, 1)), r"class_weights must have shape \(3,\)"),
    "nothing": (lambda: run(Weighted(FedAvg(mlp), (0, 0, 1))), "client 0 must have a sample that weighs"),
    "length": (lambda: with_weights(np.ones(3)), r"client.weights must have shape \(7,\)"),
    "sign": (lambda: with_weights(-np.ones(7)), "client.weights must be 0 or more"),
    "labels": (lambda: class_counts(clients[0], 1), r"y must be in 0..0"),
    "total": (lambda: ClassGaussians(np.ones(20), 5), r"total must be a vector of 15 \+ 6 numbers a class"),
    "one class": (lambda: ClassGaussians(class_sums(clients[0], 4), 5), "total must count a sample of each"),
    "weighted, no classes": (lambda: Weighted(FedAvg(yes_no), (1,)), "loss must be 'cross_entropy'"),
    "balanced, no classes": (lambda: Balanced(FedAvg(yes_no), nothing), "loss must be 'cross_entropy'"),
    "weights would be lost": (
        lambda: run(Weighted(Balanced(FedAvg(mlp), nothing), fair)),
        "client 0 must have no weights to be balanced",
    ),
    "shape": (
        lambda: run(Balanced(FedAvg(mlp), lambda labels, rng: np.zeros((1, 2)))),
        r"generate must return shape \(\d+, 5\), got \(1, 2\)",
    ),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("more", [{}, {"weight": np.array(-1.0)}, {"weight": np.ones(2)}])
def test_a_client_that_does_not_say_for_how_many_samples_it_speaks_is_named(more):
    algorithm = Weighted(FedAvg(mlp), fair)
    state = algorithm.init(theta)
    updates = [algorithm.client_update(state, client, np.random.default_rng(0)) for client in clients]
    updates[1] = updates[1]._replace(more=more)
    with pytest.raises(ValueError, match=r"client 1.* must"):
        algorithm.server_update(state, updates)
