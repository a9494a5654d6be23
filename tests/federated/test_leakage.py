"""What an update, and a trained network, give away: against the truth, closed forms and brute force."""

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.federated import (
    FedAvg,
    FedSGD,
    gradient_distance,
    make_clients,
    match_gradient,
    membership,
    read_inputs,
    sample_losses,
)
from nnbrain.mlp import MLP, SGD, fit, numerical_gradient, relative_error


@pytest.fixture(scope="module")
def digits():
    X, y, *_ = load_digits()
    return X.astype(np.float64), y


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_gradient_of_one_sample_is_the_sample(digits, activation, loss):
    """eq-leak-input: the quotient of the first layer's gradients, whatever the activation and the loss."""
    X, y = digits
    mlp = MLP((64, 16, 8, 10), activation=activation, loss=loss)
    target = y[:1] if loss == "cross_entropy" else np.eye(10)[y[:1]]
    _, gradient = mlp.loss_and_grad(mlp.init(0, np.float64), X[:1], target)
    inputs = read_inputs(mlp, gradient)
    assert len(inputs) >= 4
    np.testing.assert_allclose(inputs, np.broadcast_to(X[0], inputs.shape), atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_so_is_a_fedavg_move_after_many_steps_on_one_sample(digits, dtype):
    """eq-leak-input for a move: every step moves W by a multiple of x, and b by the same multiple of 1."""
    X, y = digits
    mlp = MLP((64, 32, 10))
    (client,) = make_clients(X[:1].astype(dtype), y[:1], [[0]])
    state = {"theta": mlp.init(0, dtype)}
    for algorithm in (FedAvg(mlp, epochs=7, learning_rate=0.2), FedSGD(mlp)):
        update = algorithm.client_update(state, client, np.random.default_rng(0))
        tolerance = 1e-4 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(read_inputs(mlp, update.vector)[0], X[0], atol=tolerance)


def test_of_a_batch_each_unit_shows_a_mean_weighted_by_blame(digits):
    """eq-leak-batch, with the deltas from an independent forward and backward pass."""
    X, y = digits[0][:5], digits[1][:5]
    mlp = MLP((64, 12, 10), activation="tanh")
    theta = mlp.init(3, np.float64)
    (W, b), (V, c) = mlp.layers(theta)
    h = np.tanh(X @ W + b)
    e = np.exp(h @ V + c)
    delta = ((e / e.sum(axis=1, keepdims=True) - np.eye(10)[y]) @ V.T) * (1 - h**2)
    order = np.argsort(-np.abs(delta.sum(axis=0)))
    expected = (delta.T @ X / delta.sum(axis=0)[:, None])[order]
    np.testing.assert_allclose(read_inputs(mlp, mlp.loss_and_grad(theta, X, y)[1]), expected, atol=1e-9)


def test_units_without_a_gradient_are_left_out():
    mlp = MLP((3, 2, 2))
    assert read_inputs(mlp, np.zeros(mlp.size)).shape == (0, 3)
    with pytest.raises(ValueError, match="shape"):
        read_inputs(mlp, np.zeros(5))


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "gelu"])
def test_derivative_of_the_distance_of_gradients(digits, activation):
    """eq-matching, eq-matching-derivative: against finite differences of the distance itself."""
    X, y = digits
    mlp = MLP((64, 9, 7, 10), activation=activation)
    theta = mlp.init(0, np.float64)
    _, gradient = mlp.loss_and_grad(theta, X[:3], y[:3])
    guess = np.random.default_rng(1).random((3, 64))

    def distance(x):
        return 0.5 * np.sum((mlp.loss_and_grad(theta, x.reshape(3, 64), y[:3])[1] - gradient) ** 2)

    value, derivative = gradient_distance(mlp, theta, gradient, guess, y[:3])
    assert value == pytest.approx(distance(guess.ravel()), rel=1e-12)
    assert relative_error(derivative.ravel(), numerical_gradient(distance, guess.ravel())) < 1e-7
    assert gradient_distance(mlp, theta, gradient, X[:3], y[:3])[0] == 0


def test_a_batch_comes_out_of_its_gradient(digits):
    """eq-matching: six digits, to three decimals of a grey level."""
    X, y = digits[0][:6], digits[1][:6]
    mlp = MLP((64, 32, 10), activation="tanh")
    theta = mlp.init(0, np.float64)
    found, distance = match_gradient(mlp, theta, mlp.loss_and_grad(theta, X, y)[1], y)
    assert distance < 1e-6
    nearest = np.abs(found[:, None] - X[None]).max(axis=2)
    assert sorted(nearest.argmin(axis=1)) == list(range(6))
    assert nearest.min(axis=1).max() < 1e-3
    assert match_gradient(mlp, theta, mlp.loss_and_grad(theta, X, y)[1], y, iterations=3)[1] > distance


def test_attacks_refuse_what_they_cannot_use(digits):
    X, y = digits[0][:2], digits[1][:2]
    relu, tanh = MLP((64, 4, 10)), MLP((64, 4, 10), activation="tanh")
    theta = tanh.init(0, np.float64)
    with pytest.raises(ValueError, match=r"mlp\.activation must be one of .* got 'relu'"):
        gradient_distance(relu, theta, theta, X, y)
    with pytest.raises(ValueError, match="gradient must not be 0"):
        match_gradient(tanh, theta, np.zeros(tanh.size), y)
    with pytest.raises(ValueError, match="0 members and 2 others"):
        membership([], [1.0, 2.0])
    with pytest.raises(ValueError, match="false_positive_rate"):
        membership([1.0], [0.0]).true_positive_rate(1.5)


def test_membership_counts_pairs_and_thresholds():
    """The chance that a member outscores another, pair by pair; the best rate at each threshold."""
    rng = np.random.default_rng(0)
    members, others = rng.integers(0, 9, 40) + 1.0, rng.integers(0, 9, 70) + 0.0
    result = membership(members, others)
    pairs = (members[:, None] > others) + 0.5 * (members[:, None] == others)
    assert result.auc == pytest.approx(pairs.mean(), abs=1e-12)
    for rate in (0.0, 0.1, 0.5):
        allowed = [t for t in np.arange(12) if np.mean(others >= t) <= rate]
        expected = max(np.mean(members >= t) for t in allowed)
        assert result.true_positive_rate(rate) == pytest.approx(expected)


def test_an_overfitted_network_knows_its_own(digits):
    X, y = digits
    mlp = MLP((64, 32, 10))
    theta, _ = fit(mlp, mlp.init(0, np.float64), X[:100], y[:100], optimizer=SGD(0.2), epochs=100)
    losses = sample_losses(mlp, theta, X, y)
    assert losses.mean() == pytest.approx(mlp.mean_loss(theta, X, y), rel=1e-12)
    assert membership(-losses[:100], -losses[100:]).auc > 0.58
    start = sample_losses(mlp, mlp.init(0, np.float64), X, y)
    assert 0.4 < membership(-start[:100], -start[100:]).auc < 0.6
