"""Optimisers on the server against their formulae, and what they keep from round to round."""

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.federated import (
    Adaptive,
    FedAvg,
    FedOpt,
    FedSGD,
    Scaffold,
    Update,
    make_clients,
    partition_shards,
    simulate,
)
from nnbrain.mlp import MLP, SGD, Adam

mlp = MLP((64, 10))
theta = mlp.init(0, np.float64)
average = FedAvg(mlp, batch_size=20, learning_rate=0.2)


@pytest.fixture(scope="module")
def clients():
    X, y, *_ = load_digits()
    return make_clients(X[:300].astype(np.float64), y[:300], partition_shards(y[:300], 6, 0))


def run(algorithm, moves):
    """Return θ after each round in which a single client moves as told."""
    state, path = algorithm.init(theta), []
    for move in moves:
        state = algorithm.server_update(state, [Update(0, move, 1, 0.0)])
        path.append(state["theta"])
    return np.array(path)


moves = np.random.default_rng(0).normal(scale=[[1e-4], [1e-2], [1], [1e-3]], size=(4, mlp.size))


def test_a_plain_step_of_one_changes_nothing(clients):
    got, _ = simulate(FedOpt(average, SGD(1.0)), clients, theta, rounds=3)
    np.testing.assert_allclose(got, simulate(average, clients, theta, rounds=3)[0], rtol=0, atol=1e-14)


def test_fedavgm_by_hand():
    path = run(FedOpt(average, SGD(1.0, momentum=0.9)), moves)
    v, expected = 0.0, theta
    for move, got in zip(moves, path, strict=True):
        v = 0.9 * v + move
        expected = expected + v
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)


def test_the_first_step_of_fedadam_in_one_line_of_algebra():
    """eq-fedopt at t = 1: η (1 - β₁) Δ / (√(β₂ τ² + (1 - β₂) Δ²) + τ)."""
    got = run(FedOpt(average, Adaptive("adam", 0.5, 0.8, 0.95, 0.01)), moves[:1])[0] - theta
    delta = moves[0]
    expected = 0.5 * 0.2 * delta / (np.sqrt(0.95 * 0.01**2 + 0.05 * delta**2) + 0.01)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("rule", ["adam", "yogi", "adagrad"])
def test_four_steps_number_by_number(rule):
    """eq-fedopt, in a loop over single parameters, with moves that grow and shrink a thousandfold."""
    path = run(FedOpt(average, Adaptive(rule, 0.1)), moves)
    for j in range(0, mlp.size, 50):
        m, v, x = 0.0, 1e-6, theta[j]
        for t in range(4):
            delta = moves[t, j]
            m = 0.9 * m + 0.1 * delta
            if rule == "adam":
                v = 0.99 * v + 0.01 * delta**2
            elif rule == "adagrad":
                v = v + delta**2
            elif v > delta**2:
                v = v - 0.01 * delta**2
            else:
                v = v + 0.01 * delta**2
            x = x + 0.1 * m / (v**0.5 + 1e-3)
            assert path[t, j] == pytest.approx(x, rel=1e-12)


def test_yogi_forgets_a_large_move_more_slowly_than_adam():
    squares = {}
    for rule in ("adam", "yogi"):
        optimizer = Adaptive(rule)
        state = optimizer.init(theta) | {"square": np.ones_like(theta)}
        for _ in range(100):
            optimizer.update(theta.copy(), np.full_like(theta, 1e-3), state)
        squares[rule] = state["square"][0]
    assert squares["adam"] == pytest.approx(0.99**100, rel=1e-4)
    assert squares["yogi"] == pytest.approx(1 - 100 * 0.01 * 1e-6, rel=1e-9)


def test_where_the_mean_move_is_zero_every_server_stands_still():
    for optimizer in (SGD(1.0, momentum=0.9), Adaptive("adam"), Adaptive("yogi"), Adaptive("adagrad")):
        path = run(FedOpt(average, optimizer), np.zeros((3, mlp.size)))
        np.testing.assert_array_equal(path, [theta] * 3)


def test_it_composes_with_gradients_and_with_variates(clients):
    """Nnbrain's own Adam on FedSGD with η = 1 is Adam on the pile's gradient; SCAFFOLD keeps its variate."""
    got, _ = simulate(FedOpt(FedSGD(mlp, 1.0), Adam(0.01)), clients, theta, rounds=3)
    X, y = clients[0].X, clients[0].y
    expected = theta.copy()
    state = Adam(0.01).init(expected)
    for _ in range(3):
        Adam(0.01).update(expected, mlp.loss_and_grad(expected, X, y)[1], state)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)
    scaffold = Scaffold(mlp, learning_rate=0.1, total_samples=300)
    one, _ = simulate(FedOpt(scaffold, SGD(1.0)), clients, theta, rounds=3, client_fraction=0.5)
    other, _ = simulate(scaffold, clients, theta, rounds=3, client_fraction=0.5)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)


def test_interrupted_and_with_two_workers_it_ends_with_the_same_bits(clients, tmp_path):
    """All that is kept: the server's means and variate, and the clients' variates."""
    algorithm = FedOpt(Scaffold(mlp, batch_size=20, total_samples=300), Adaptive("yogi", 0.1))
    options = {"client_fraction": 0.5, "seed": 3}
    single = mlp.init(0)
    once, history = simulate(algorithm, clients, single, rounds=4, **options)
    assert once.dtype == np.float32
    simulate(algorithm, clients, single, rounds=2, workers=2, checkpoint=tmp_path / "run.npz", **options)
    again, resumed = simulate(
        algorithm, clients, single, rounds=4, checkpoint=tmp_path / "run.npz", **options
    )
    np.testing.assert_array_equal(again, once)
    assert resumed == history


def test_the_old_state_stays_as_it_was():
    algorithm = FedOpt(average, Adaptive("adam"))
    state = algorithm.init(theta)
    before = {name: array.copy() for name, array in state.items()}
    algorithm.server_update(state, [Update(0, moves[2], 1, 0.0)])
    assert set(before) == {"theta", "server_mean", "server_square"}
    for name, array in before.items():
        np.testing.assert_array_equal(state[name], array)


BAD = {
    "rule": ({"rule": "adamw"}, ValueError, r"rule must be one of .*'yogi'.* got 'adamw'"),
    "rate": ({"learning_rate": 0}, ValueError, "learning_rate .* > 0, got 0"),
    "beta_1": ({"beta_1": 1.0}, ValueError, "beta_1 .* < 1, got 1"),
    "beta_2": ({"beta_2": -0.1}, ValueError, "beta_2 .* >= 0 .* got -0.1"),
    "tau": ({"tau": 0}, ValueError, "tau .* > 0, got 0"),
}


@pytest.mark.parametrize(("settings", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(settings, error, message):
    with pytest.raises(error, match=message):
        Adaptive(**{"rule": "adam", **settings})
