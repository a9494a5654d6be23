"""Federated algorithms against plain training, partitions, and the round loop."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnbrain.federated import (
    FedAvg,
    FedSGD,
    local_gradient,
    make_clients,
    partition_iid,
    partition_shards,
    simulate,
    weighted_mean,
)
from nnbrain.mlp import MLP, SGD, fit

mlp = MLP((64, 16, 10))
theta = mlp.init(0, np.float64)


# ---- dealing out data ----


@given(n=st.integers(1, 300), k=st.integers(1, 300), seed=st.integers(0, 9))
def test_iid_parts_lose_and_duplicate_nothing(n, k, seed):
    k = min(n, k)
    parts = partition_iid(n, k, seed)
    assert sorted(np.concatenate(parts)) == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(k=st.integers(1, 40), per_client=st.integers(1, 4), seed=st.integers(0, 9))
def test_shards_lose_and_duplicate_nothing_and_hold_few_labels(k, per_client, seed):
    y = np.random.default_rng(seed).integers(0, 10, 400)
    parts = partition_shards(y, k, seed, per_client)
    assert len(parts) == k
    assert sorted(np.concatenate(parts)) == list(range(400))
    # a shard of 400/(k·per_client) samples of a sorted list spans as many labels as fit, plus two ends
    widest = 400 / (k * per_client) / np.bincount(y).min() + 2
    assert max(len(set(y[part])) for part in parts) <= per_client * widest


def test_clients_share_the_data_and_do_not_copy_it(digits):
    X, y, *_ = digits
    clients = make_clients(X, y, partition_iid(len(X), 1000, 0))
    assert all(client.X is clients[0].X for client in clients)
    assert np.shares_memory(clients[0].X, X)


# ---- what algebra says ----


def test_the_objective_is_the_weighted_mean_of_the_clients_losses(unequal, digits):
    """eq-federated-objective, and its gradient: Σ (nₖ/n) ∇Fₖ."""
    X, y, *_ = digits
    gradients, losses = zip(*(local_gradient(mlp, theta, client) for client in unequal), strict=True)
    weights = [client.n_samples for client in unequal]
    loss, grad = mlp.loss_and_grad(theta, X, y)
    assert np.average(losses, weights=weights) == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(weighted_mean(gradients, weights), grad, rtol=0, atol=1e-14)


def test_fedsgd_with_unequal_clients_is_gradient_descent(unequal, digits):
    """eq-fedsgd: 25 rounds against 25 full-batch steps."""
    X, y, *_ = digits
    expected, _ = fit(mlp, theta, X, y, optimizer=SGD(0.5), epochs=25, batch_size=len(X))
    got, _ = simulate(FedSGD(mlp, 0.5), unequal, theta, rounds=25)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_forgetting_the_weights_is_not_gradient_descent(unequal, digits):
    """The test above can fail: with equal weights for unequal clients, it would."""
    X, y, *_ = digits
    gradients = [local_gradient(mlp, theta, client)[0] for client in unequal]
    assert np.abs(weighted_mean(gradients, [1] * 4) - mlp.loss_and_grad(theta, X, y)[1]).max() > 1e-3


def test_fedavg_with_one_epoch_of_one_batch_is_fedsgd(unequal):
    """eq-fedavg with E = 1 and B = ∞."""
    one, _ = simulate(FedAvg(mlp, epochs=1, batch_size=None, learning_rate=0.5), unequal, theta, rounds=5)
    other, _ = simulate(FedSGD(mlp, 0.5), unequal, theta, rounds=5)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)


def test_fedavg_adds_the_mean_move_which_is_the_mean_model(unequal):
    """eq-fedavg, eq-fedavg-move: θ + Σ (nₖ/n)(θₖ - θ) = Σ (nₖ/n) θₖ."""
    algorithm = FedAvg(mlp, epochs=2, learning_rate=0.1)
    state = algorithm.init(theta)
    updates = [algorithm.client_update(state, c, np.random.default_rng(c.id)) for c in unequal]
    models = [theta + update.vector for update in updates]
    expected = np.average(models, axis=0, weights=[5, 40, 300, 1093])
    np.testing.assert_allclose(algorithm.server_update(state, updates)["theta"], expected, atol=1e-14)
    np.testing.assert_array_equal(state["theta"], theta)  # pure: the old state is as it was


def test_fedavg_with_one_client_is_local_sgd(digits):
    X, y, *_ = digits
    (client,) = make_clients(X, y, [np.arange(len(X))])
    got, _ = simulate(
        FedAvg(mlp, epochs=3, batch_size=32, learning_rate=0.1), [client], theta, rounds=1, seed=9
    )
    sequence = np.random.SeedSequence(9, spawn_key=(1, 1, 0))  # an update, of round 1, by client 0
    rng = np.random.default_rng(sequence)
    expected, _ = fit(mlp, theta, X, y, optimizer=SGD(0.1), epochs=3, batch_size=32, rng=rng)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


# ---- the round loop ----


def test_any_number_of_workers_gives_the_same_bits(unequal):
    options = {"rounds": 3, "client_fraction": 0.75, "seed": 2}
    runs = [simulate(FedAvg(mlp), unequal, mlp.init(1), workers=w, **options) for w in (1, 2)]
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    other, _ = simulate(FedAvg(mlp), unequal, mlp.init(1), rounds=3, client_fraction=0.75, seed=3)
    assert not np.array_equal(runs[0][0], other)


def test_history_says_who_took_part_and_what_was_measured(unequal):
    after, history = simulate(
        FedAvg(mlp), unequal, theta, rounds=6, client_fraction=0.5, evaluate=lambda t: {"first": float(t[0])}
    )
    assert [r.number for r in history] == [1, 2, 3, 4, 5, 6]
    assert all(len(r.clients) == 2 and r.clients == sorted(set(r.clients)) for r in history)
    assert len({tuple(r.clients) for r in history}) > 1
    assert history[-1].metrics["first"] == after[0]
    assert history[-1].metrics["loss"] < history[0].metrics["loss"]


def test_selection_is_uniform():
    """Each of 10 clients is drawn in 3 of 10 rounds: 90 of 300 on average, and within 4 deviations."""
    X, y = np.zeros((10, 1)), np.zeros(10, int)
    clients = make_clients(X, y, np.arange(10)[:, None])
    tiny = MLP((1, 2))
    _, history = simulate(FedSGD(tiny), clients, tiny.init(0), rounds=300, client_fraction=0.3)
    counts = np.bincount(np.concatenate([r.clients for r in history]), minlength=10)
    assert np.all(np.abs(counts - 90) < 4 * np.sqrt(300 * 0.3 * 0.7))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_client_that_fails_is_heard_and_nothing_hangs(unequal, workers):
    with pytest.raises(FloatingPointError, match="try a smaller learning_rate"), np.errstate(all="ignore"):
        simulate(FedAvg(mlp, learning_rate=1e300), unequal, theta, rounds=2, workers=workers)


def test_fedavg_learns_the_digits_iid_and_from_shards(digits):
    """What the chapter claims: ten of 100 clients a round, 25 rounds: IID 94% or more, shards 80% to that."""
    X, y, X_test, y_test = digits
    net = MLP((64, 32, 10))
    accuracy = {}
    for name, parts in (("iid", partition_iid(len(X), 100, 0)), ("shards", partition_shards(y, 100, 0))):
        clients = make_clients(X.astype(np.float32), y, parts)
        after, _ = simulate(FedAvg(net, 5, 5, 0.3), clients, net.init(0), rounds=25, client_fraction=0.1)
        accuracy[name] = net.accuracy(after, X_test, y_test)
    assert accuracy["iid"] >= 0.94
    assert accuracy["shards"] >= 0.80
    assert accuracy["iid"] > accuracy["shards"]


def test_no_two_clients_and_no_two_rounds_share_random_numbers():
    """Two clients with the same data, one batch apart in order: their updates differ, and so do rounds."""
    X, y = np.random.default_rng(0).normal(size=(8, 64)), np.arange(8) % 10
    data = np.concatenate([X, X, X]), np.concatenate([y, y, y])
    clients = make_clients(*data, np.split(np.arange(24), 3))
    moves = []

    class Watched(FedAvg):
        def server_update(self, state, updates):
            moves.extend(update.vector.copy() for update in updates)
            return state

    simulate(Watched(mlp, batch_size=3), clients, theta, rounds=2)
    assert len({move.tobytes() for move in moves}) == 6


def test_the_loss_of_a_round_is_weighted_and_that_of_the_last_epoch(unequal):
    updates = []

    class Watched(FedAvg):
        def server_update(self, state, received):
            updates.extend(received)
            return super().server_update(state, received)

    _, history = simulate(Watched(mlp, 2, 20, 0.2), unequal, theta, rounds=1)
    expected = sum(u.loss * u.n_samples for u in updates) / sum(u.n_samples for u in updates)
    assert history[0].metrics["loss"] == pytest.approx(expected, rel=1e-12)
    assert [u.client for u in updates] == [0, 1, 2, 3]
    X, y = unequal[3].X[unequal[3].index], unequal[3].y[unequal[3].index]
    rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(1, 1, 3)))
    _, serial = fit(mlp, theta, X, y, optimizer=SGD(0.2), epochs=2, batch_size=20, rng=rng)
    assert updates[3].loss == pytest.approx(serial.loss[-1], rel=1e-10)


def test_shards_are_dealt_at_random():
    y = np.repeat(np.arange(10), 20)
    dealt = [partition_shards(y, 10, seed) for seed in (0, 1)]
    assert not all(np.array_equal(a, b) for a, b in zip(*dealt, strict=True))
    assert not np.array_equal(np.sort(dealt[0][0]), np.arange(20))


def test_one_client_takes_part_even_where_the_fraction_rounds_to_none(unequal):
    _, history = simulate(FedSGD(mlp), unequal, theta, rounds=1, client_fraction=0.01)
    assert len(history[0].clients) == 1


def test_another_aggregate_composes_with_any_algorithm(unequal):
    """The median of four gradients, in place of their weighted mean."""

    def median(vectors, weights):
        return np.median(vectors, axis=0)

    got, _ = simulate(FedSGD(mlp, 0.5, aggregate=median), unequal, theta, rounds=1)
    gradients = [local_gradient(mlp, theta, client)[0] for client in unequal]
    np.testing.assert_allclose(got, theta - 0.5 * np.median(gradients, axis=0), atol=1e-15)


def test_float32_stays_float32_whatever_the_learning_rates_type(unequal):
    for algorithm in (FedSGD(mlp, np.float64(0.1)), FedAvg(mlp, learning_rate=np.float64(0.1))):
        assert simulate(algorithm, unequal, mlp.init(0), rounds=2)[0].dtype == np.float32


def test_evaluation_cannot_change_the_model(unequal):
    def vandal(t):
        t[:] = 0
        return {}

    assert np.any(simulate(FedSGD(mlp), unequal, theta, rounds=1, evaluate=vandal)[0])


def test_algorithms_pickle_as_processes_need():
    for algorithm in (FedAvg(mlp), FedSGD(mlp)):
        assert pickle.loads(pickle.dumps(algorithm)) == algorithm
