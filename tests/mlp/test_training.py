"""Optimisers and the training loop."""

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.mlp import MLP, SGD, fit


def descend(optimizer, theta, gradient, steps):
    """Return θ after some steps against `gradient(theta)`."""
    theta = np.array(theta, dtype=float)
    state = optimizer.init(theta)
    for _ in range(steps):
        optimizer.update(theta, gradient(theta), state)
    return theta


def test_sgd_on_a_quadratic_has_a_closed_form():
    """L = a θ²/2: each step multiplies θ by 1 - η a."""
    got = descend(SGD(0.1), [1.0, -2.0], lambda t: 3.0 * t, 20)
    np.testing.assert_allclose(got, np.array([1.0, -2.0]) * (1 - 0.3) ** 20, rtol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_on_a_quadratic_is_a_linear_recurrence(nesterov):
    """(θ, v) ← M (θ, v): heavy ball has M = [[1 - ηa, μ], [-ηa, μ]]; Nesterov looks one step on."""
    eta, mu, a = 0.1, 0.9, 2.0
    M = np.array([[1 - eta * a, mu], [-eta * a, mu]])
    if nesterov:
        M[0] = [1 - (1 + mu) * eta * a, mu * mu]
    expected = np.linalg.matrix_power(M, 25) @ [1.0, 0.0]
    got = descend(SGD(eta, momentum=mu, nesterov=nesterov), [1.0], lambda t: a * t, 25)
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-10)


def test_decay_divides_the_learning_rate_by_one_plus_decay_t():
    got = descend(SGD(0.5, decay=0.1), [0.0], lambda t: np.ones(1), 4)
    assert got[0] == pytest.approx(-sum(0.5 / (1 + 0.1 * t) for t in range(4)), rel=1e-14)


def test_fit_learns_the_digits_and_records_it():
    X, y, X_test, y_test = load_digits()
    mlp = MLP((64, 32, 10))
    start = mlp.init(0)
    theta, history = fit(mlp, start, X, y, epochs=20, validation=(X_test, y_test))
    np.testing.assert_array_equal(start, mlp.init(0))
    assert len(history.loss) == len(history.validation_loss) == len(history.validation_accuracy) == 20
    assert history.loss[-1] < 0.1 * history.loss[0]
    assert history.validation_accuracy[-1] == mlp.accuracy(theta, X_test, y_test) > 0.94
    assert history.validation_loss[-1] == pytest.approx(mlp.loss_and_grad(theta, X_test, y_test)[0])


def test_same_seed_same_bits():
    X, y, *_ = load_digits()
    mlp = MLP((64, 16, 10))
    runs = [fit(mlp, mlp.init(0), X, y, epochs=2, rng=seed)[0] for seed in (5, 5, 6)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_whole_batch_epoch_is_one_step_of_gradient_descent():
    X, y, *_ = load_digits()
    mlp = MLP((64, 10))
    theta = mlp.init(0, np.float64)
    after, history = fit(mlp, theta, X, y, optimizer=SGD(0.3), epochs=1, batch_size=len(X))
    loss, grad = mlp.loss_and_grad(theta, X, y)
    np.testing.assert_allclose(after, theta - 0.3 * grad, atol=1e-13)
    assert history.loss == [pytest.approx(loss, rel=1e-12)]


def test_too_large_steps_are_said_so():
    X, y, *_ = load_digits()
    mlp = MLP((64, 16, 10), loss="mse")
    with pytest.raises(FloatingPointError, match="smaller learning_rate"), np.errstate(all="ignore"):
        fit(mlp, mlp.init(0), X, np.eye(10)[y], optimizer=SGD(1e6))
    flat = MLP((2, 1), loss="mse")
    with pytest.raises(FloatingPointError, match="no longer finite"), np.errstate(all="ignore"):
        fit(flat, flat.init(0), np.ones((4, 2)), np.zeros(4), optimizer=SGD(1e39), epochs=1, batch_size=4)
