"""How evenly: against all pairs, and against what is known of simple distributions."""

import numpy as np
import pytest

from nnbrain.federated import Client, client_accuracies, gini, make_clients, worst_share
from nnbrain.mlp import MLP


@pytest.mark.parametrize("seed", range(5))
def test_gini_is_half_the_mean_difference_of_all_pairs_over_the_mean(seed):
    """eq-gini, pair by pair."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 4, 9) if seed % 2 else rng.exponential(size=7)
    pairs = [abs(a - b) for a in x for b in x]
    assert gini(x) == pytest.approx(np.mean(pairs) / (2 * np.mean(x)), rel=1e-13)
    assert gini(10 * x) == pytest.approx(gini(x), rel=1e-13)
    assert gini(np.repeat(x, 3)) == pytest.approx(gini(x), rel=1e-12)


def test_gini_of_simple_distributions():
    assert gini([3, 3, 3]) == 0
    assert gini([0, 0]) == 0
    assert gini([5]) == 0
    for K in (2, 5, 50):
        assert gini([0] * (K - 1) + [7]) == pytest.approx(1 - 1 / K)
        assert gini(range(1, K + 1)) == pytest.approx((K - 1) / (3 * K))
    assert gini(np.arange(10_001)) == pytest.approx(1 / 3, abs=1e-3)  # uniform on [0, a]
    quantiles = -np.log(1 - (np.arange(20_000) + 0.5) / 20_000)
    assert gini(quantiles) == pytest.approx(1 / 2, abs=1e-3)  # exponential


def test_the_worst_share_is_the_mean_of_the_smallest():
    x = np.arange(50)[::-1]
    assert worst_share(x) == np.mean([0, 1, 2, 3, 4])
    assert worst_share(x, 1.0) == x.mean()
    assert worst_share(x, 0.001) == 0
    assert worst_share(np.arange(11)) == 0.5  # a tenth of eleven: two
    assert worst_share(np.arange(30), 0.1) == 1.0  # 0.1 * 30 is a little above 3 in floating point
    assert worst_share([4.0]) == 4.0


def test_accuracy_on_each_clients_own_samples():
    mlp = MLP((2, 2))
    wire = np.array([0.0, 1, 0, 0, 0.5, 0])  # class 1 where feature 0 is above ½
    X, y = np.array([[0.0, 0], [1, 0], [0, 0], [1, 0], [1, 0]]), np.array([0, 1, 1, 0, 1])
    clients = make_clients(X, y, [np.array([0, 1]), np.array([2, 3]), np.array([4])])
    other = Client(7, X, 1 - y, np.array([0, 2, 3]))
    both = Client(8, X, y, np.array([1, 2, 3, 4]))  # held-out samples may be shared
    np.testing.assert_array_equal(
        client_accuracies(mlp, wire, [*clients, other, both]), [1, 0, 1, 2 / 3, 0.5]
    )
    for client in clients:
        expected = mlp.accuracy(wire, X[client.index], y[client.index])
        assert client_accuracies(mlp, wire, [client])[0] == expected


@pytest.mark.parametrize("outputs", [1, 2])
def test_accuracy_of_yes_or_no_answers(outputs):
    """Of one output y may be (n,) or (n, 1), and (n,) against (n, 1) would be (n, n)."""
    mlp, rng = MLP((3, outputs), loss="binary_cross_entropy"), np.random.default_rng(outputs)
    theta, X, y = mlp.init(0), rng.normal(size=(40, 3)), rng.integers(0, 2, (40, outputs))
    parts = np.split(np.arange(40), [3, 17])
    expected = [mlp.accuracy(theta, X[part], y[part]) for part in parts]
    assert len(set(expected)) == 3
    for shape in {(40, outputs), (40,) if outputs == 1 else (40, outputs)}:
        found = client_accuracies(mlp, theta, make_clients(X, y.reshape(shape), parts))
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_bad_input_is_refused():
    mlp, X, y = MLP((2, 2)), np.zeros((3, 2)), np.zeros(3, int)
    empty = Client(0, X, y, np.array([], int))
    for call, message in (
        (lambda: gini([1, -1]), "values must be at least 0, got -1"),
        (lambda: gini([]), "values must have one dimension and an entry"),
        (lambda: gini([np.nan]), "values must be finite"),
        (lambda: worst_share([[1.0]]), "values must have one dimension and an entry"),
        (lambda: worst_share([1], 0), "share must be finite and > 0"),
        (lambda: client_accuracies(mlp, mlp.init(0), [empty]), "clients must have at least one sample each"),
        (lambda: client_accuracies(mlp, mlp.init(0), make_clients(X, y - 1, [[0]])), "y must be in 0..1"),
        (lambda: client_accuracies(MLP((2, 1), loss="mse"), np.zeros(3), [empty]), "loss must be a cross"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
