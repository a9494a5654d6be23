"""Local training in few passes through memory against the general path, and what is added to its steps."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from nnbrain.federated import Client, local_gradient, local_sgd, make_clients
from nnbrain.federated.descent import SLOPES
from nnbrain.mlp import MLP, SGD, fit
from nnbrain.mlp.activations import ACTIVATIONS
from nnbrain.mlp.losses import LOSSES

N = 47  # samples of the client, of 60 that there are


def make(mlp, dtype=np.float64, seed=0):
    """Return θ and a client whose rows lie scattered among others'."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, mlp.sizes[0])).astype(dtype)
    y = rng.integers(0, mlp.sizes[-1], 60)
    if mlp.loss != "cross_entropy":
        y = rng.integers(0, 2, (60, mlp.sizes[-1])).astype(dtype)
    return mlp.init(1, dtype), Client(0, X, y, rng.permutation(60)[:N])


def general(mlp, theta, client, *, epochs, batch_size, learning_rate, rng):
    """Return what `fit` makes of the client's data: `Workspace`, `SGD` and `run_epoch`."""
    size = N if batch_size is None else min(batch_size, N)
    X, y = client.X[client.index], client.y[client.index]
    theta, history = fit(
        mlp, theta, X, y, optimizer=SGD(learning_rate), epochs=epochs, batch_size=size, rng=rng
    )
    return theta, history.loss[-1]


@pytest.mark.parametrize("batch_size", [1, 5, 7, N, 200, None])  # 47 is a multiple of none but 1 and itself
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_local_sgd_is_fit_on_the_clients_data(activation, loss, batch_size):
    """A layer so wide that up to 19 batches share a pass through it, narrow ones, and a single one."""
    settings = {"epochs": 3, "batch_size": batch_size, "learning_rate": 0.1, "rng": 5}
    for sizes in ((20, 97, 7, 4), (9, 8, 3), (6, 4)):
        mlp = MLP(sizes, activation, loss)
        theta, client = make(mlp)
        before = theta.copy()
        got, got_loss = local_sgd(mlp, theta, client, **settings)
        expected, expected_loss = general(mlp, theta, client, **settings)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
        assert got_loss == pytest.approx(expected_loss, rel=1e-12)
        np.testing.assert_array_equal(theta, before)
        assert np.abs(got - theta).max() > 1e-3


@pytest.mark.parametrize("loss", LOSSES)
def test_in_float32_it_is_fit_to_single_precision(loss):
    mlp = MLP((20, 97, 7, 4), "relu", loss)
    theta, client = make(mlp, np.float32)
    settings = {"epochs": 2, "batch_size": 7, "learning_rate": 0.1, "rng": 5}
    got, _ = local_sgd(mlp, theta, client, **settings)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, general(mlp, theta, client, **settings)[0], rtol=0, atol=1e-5)


def test_the_same_seed_gives_the_same_bits_whatever_was_computed_before():
    mlp = MLP((20, 97, 7, 4))
    theta, client = make(mlp)
    settings = {"epochs": 2, "batch_size": 5, "learning_rate": 0.1}
    first, _ = local_sgd(mlp, theta, client, rng=3, **settings)
    local_sgd(mlp, theta, client, rng=4, **settings)
    np.testing.assert_array_equal(local_sgd(mlp, theta, client, rng=3, **settings)[0], first)


def test_theta_may_be_a_view_into_a_larger_array():
    mlp = MLP((20, 97, 4))
    theta, client = make(mlp)
    settings = {"epochs": 1, "batch_size": 5, "learning_rate": 0.1, "rng": 0}
    many = np.stack([theta, theta + 1])
    got, _ = local_sgd(mlp, many[1], client, **settings)
    np.testing.assert_array_equal(got, local_sgd(mlp, theta + 1, client, **settings)[0])
    np.testing.assert_array_equal(many, [theta, theta + 1])


@pytest.mark.parametrize(("proximal", "drifting"), list(itertools.product([0.0, 0.7], [False, True])))
def test_steps_are_drawn_back_and_drift_as_they_are_told(proximal, drifting):
    """θ ← θ - η (g + proximal (θ - start) + drift), step by step with `MLP.loss_and_grad`."""
    mlp = MLP((20, 97, 7, 4), "tanh")
    start, client = make(mlp)
    drift = np.random.default_rng(9).normal(size=mlp.size) if drifting else None
    settings = {"epochs": 2, "batch_size": 7, "learning_rate": 0.1, "rng": 5}
    got, _ = local_sgd(mlp, start, client, proximal=proximal, drift=drift, **settings)

    rng, theta = np.random.default_rng(5), start.copy()
    for _ in range(2):
        order = client.index[rng.permutation(N)]
        for batch in np.split(order, range(7, N, 7)):
            gradient = mlp.loss_and_grad(theta, client.X[batch], client.y[batch])[1]
            theta = theta - 0.1 * (gradient + proximal * (theta - start) + (drift if drifting else 0))
    np.testing.assert_allclose(got, theta, rtol=0, atol=1e-12)


def test_a_drift_that_pulls_from_the_start_to_an_anchor_is_a_pull_to_the_anchor():
    """As the docstring says: μ (θ - start) + μ (start - anchor) = μ (θ - anchor); strong, it wins."""
    mlp = MLP((20, 10, 4))
    start, client = make(mlp)
    anchor = start + 1
    settings = {"epochs": 20, "batch_size": 7, "learning_rate": 0.01, "rng": 5}
    got, _ = local_sgd(mlp, start, client, proximal=50.0, drift=50.0 * (start - anchor), **settings)
    assert np.abs(got - anchor).max() < 0.1


def test_every_loss_has_its_slope():
    assert set(SLOPES) == set(LOSSES)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs must"),
        ({"batch_size": 0}, "batch_size must"),
        ({"learning_rate": 0.0}, "learning_rate must"),
        ({"proximal": -0.1}, "proximal must"),
        ({"drift": np.zeros(3)}, r"drift must have theta's shape"),
        ({"drift": np.full(MLP((20, 10, 4)).size, np.nan)}, "drift must be finite"),
    ],
)
def test_bad_settings_are_named(wrong, message):
    mlp = MLP((20, 10, 4))
    theta, client = make(mlp)
    settings = {"epochs": 1, "batch_size": 7, "learning_rate": 0.1, "rng": 0, **wrong}
    with pytest.raises((ValueError, TypeError), match=message):
        local_sgd(mlp, theta, client, **settings)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("loss", LOSSES)
def test_steps_that_are_too_large_are_said_to_be(loss):
    mlp = MLP((20, 97, 4), "relu", loss)
    theta, client = make(mlp)
    with pytest.raises(FloatingPointError, match="try a smaller learning_rate"):
        local_sgd(mlp, theta, client, epochs=9, batch_size=5, learning_rate=1e200, rng=0)


def test_one_client_of_a_thousand_reads_its_own_rows_only():
    """The others' data may be anything."""
    mlp = MLP((20, 97, 4))
    theta, client = make(mlp)
    settings = {"epochs": 1, "batch_size": 5, "learning_rate": 0.1, "rng": 0}
    (other,) = make_clients(client.X, client.y, [client.index])
    X = np.full_like(client.X, np.nan)
    X[client.index] = client.X[client.index]
    got, _ = local_sgd(mlp, theta, Client(0, X, client.y, client.index), **settings)
    np.testing.assert_array_equal(got, local_sgd(mlp, theta, other, **settings)[0])


# ---- weighted samples ----


@pytest.mark.parametrize("batch_size", [1, 7, 47, None])
@pytest.mark.parametrize("loss", LOSSES)
def test_local_sgd_with_weights_is_fit_with_weights(loss, batch_size):
    """A layer so wide that many batches share a pass, some of them with weights of zero only; narrow ones."""
    for sizes in ((20, 97, 7, 4), (9, 8, 3), (6, 4)):
        net, rng = MLP(sizes, loss=loss), np.random.default_rng(2)
        A = rng.normal(size=(60, sizes[0]))
        b = rng.integers(0, sizes[-1], 60)
        if loss != "cross_entropy":
            b = rng.integers(0, 2, (60, sizes[-1])).astype(float)
        weights = rng.uniform(0, 3, 47) * (rng.random(47) < 0.8)
        client = Client(0, A, b, rng.permutation(60)[:47], weights=weights)
        start = net.init(1, np.float64)
        settings = {"epochs": 3, "rng": 5}
        got, _ = local_sgd(net, start, client, batch_size=batch_size, learning_rate=0.1, **settings)
        rows = A[client.index], b[client.index]
        expected, _ = fit(
            net, start, *rows, weights=weights, optimizer=SGD(0.1), batch_size=batch_size or 47, **settings
        )
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
        gradient, mean = local_gradient(net, start, client)
        expected_mean, expected_gradient = net.loss_and_grad(start, *rows, weights)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-14)
        assert mean == pytest.approx(expected_mean, rel=1e-13)


def test_the_loss_of_a_weighted_epoch_is_the_weighted_mean():
    """With steps too small to matter."""
    mlp = MLP((5, 4, 3))
    theta, client = make(mlp)
    client = replace(client, weights=np.random.default_rng(0).random(N))
    _, got = local_sgd(mlp, theta, client, epochs=1, batch_size=5, learning_rate=1e-14, rng=0)
    rows = client.X[client.index], client.y[client.index]
    assert got == pytest.approx(mlp.mean_loss(theta, *rows, client.weights), rel=1e-10)


def test_a_weight_of_two_is_a_sample_given_twice():
    mlp = MLP((5, 4, 3))
    theta, client = make(mlp)
    twice = replace(client, index=np.r_[client.index, client.index[:2]])
    once = replace(client, weights=np.where(np.arange(N) < 2, 2.0, 1.0))
    settings = {"epochs": 3, "batch_size": None, "learning_rate": 0.5, "rng": 0}
    got, expected = (local_sgd(mlp, theta, one, **settings)[0] for one in (once, twice))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)
