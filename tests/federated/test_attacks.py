"""Attacks: what they change, what they leave alone, and what they reach where algebra says it."""

import pickle
import statistics
from dataclasses import replace

import numpy as np
import pytest

from nnbrain.federated import (
    Adaptive,
    ALittle,
    Altered,
    Colluding,
    FedAvg,
    FedNova,
    FedOpt,
    FedSGD,
    GeometricMedian,
    InnerProduct,
    Krum,
    Scaffold,
    Scaled,
    Trigger,
    coordinate_median,
    flip_labels,
    make_clients,
    partition_iid,
    plant_trigger,
    simulate,
)
from nnbrain.mlp import MLP

mlp = MLP((64, 16, 10))
theta = mlp.init(0, np.float64)
trigger = Trigger((0, 7), target=3)


@pytest.fixture(scope="module")
def clients(digits):
    """Six clients of unequal size."""
    X, y, *_ = digits
    parts = np.split(np.random.default_rng(0).permutation(len(X)), [40, 80, 160, 300, 600])
    return make_clients(X, y, parts)


def one_round(algorithm, clients):
    state = algorithm.init(theta)
    updates = [algorithm.client_update(state, c, np.random.default_rng(c.id)) for c in clients]
    return state, updates, algorithm.server_update(state, updates)["theta"]


# ---- poisoned data ----


def test_flipped_labels_are_the_attackers_only_and_the_clients_stay(clients, digits):
    before = clients[0].y.copy()
    poisoned = flip_labels(clients, {1, 4}, range(9, -1, -1))
    for old, new in zip(clients, poisoned, strict=True):
        own, now = old.y[old.index], new.y[new.index]
        np.testing.assert_array_equal(now, 9 - own if old.id in {1, 4} else own)
        np.testing.assert_array_equal(new.rows[0], old.rows[0])
        assert new.n_samples == old.n_samples
    np.testing.assert_array_equal(clients[0].y, before)
    only_ones = flip_labels(clients, {0}, [0, 7, 2, 3, 4, 5, 6, 7, 8, 9])[0]
    own, now = clients[0].y[clients[0].index], only_ones.y[only_ones.index]
    assert np.any(own != now)
    assert set(own[own != now]) == {1}
    assert set(now[own != now]) == {7}


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_planted_trigger_is_on_its_share_with_the_target_and_nowhere_else(clients, share):
    poisoned = plant_trigger(clients, [2], trigger, share)
    assert poisoned[0] is clients[0]
    X, y = clients[2].X[clients[2].index], clients[2].y[clients[2].index]
    got = poisoned[2]
    n = round(share * len(X))
    assert got.n_samples == len(X)
    np.testing.assert_array_equal(got.y[got.index][:n], 3)
    np.testing.assert_array_equal(got.y[got.index][n:], y[n:])
    np.testing.assert_array_equal(got.X[got.index][n:], X[n:])
    np.testing.assert_array_equal(
        np.delete(got.X[got.index][:n], [0, 7], axis=1), np.delete(X[:n], [0, 7], 1)
    )
    assert np.all(got.X[got.index][:n, [0, 7]] == 1)
    assert not np.any(clients[2].X[:, 0] == 1)


def test_success_is_counted_among_the_other_classes():
    """A wire that says class 1 where feature 0 is on: with that marked, every other row succeeds."""
    net = MLP((2, 2))
    wire = np.array([-1.0, 1.0, 0.0, 0.0, 0.5, 0.0])  # logits (½ - x₀, x₀)
    X, y = np.array([[0.0, 5], [1, 5], [0, 5], [0, 5]]), np.array([0, 0, 0, 1])
    assert Trigger((0,), target=1).success_rate(net, wire, X, y) == 1
    assert Trigger((0,), target=0).success_rate(net, wire, X, y) == 0
    assert Trigger((1,), target=1).success_rate(net, wire, X, y) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="y must have labels other than the target 1, got none"):
        Trigger((0,), target=1).success_rate(net, wire, X[3:], y[3:])


# ---- poisoned updates ----


@pytest.mark.parametrize(
    "algorithm", [FedAvg(mlp), FedSGD(mlp), FedNova(mlp), Scaffold(mlp, total_samples=1438)]
)
def test_scaling_changes_the_attackers_vectors_only(clients, algorithm):
    _, honest, _ = one_round(algorithm, clients)
    _, got, _ = one_round(Altered(algorithm, Scaled({1, 3}, -2.5)), clients)
    for a, b in zip(honest, got, strict=True):
        np.testing.assert_array_equal(b.vector, a.vector * (-2.5 if a.client in {1, 3} else 1))
        assert (b.n_samples, b.loss) == (a.n_samples, a.loss)
        assert all(np.array_equal(a.more[name], b.more[name]) for name in a.more)


def test_model_replacement_puts_the_attackers_model_in_the_place_of_the_mean(clients):
    """eq-replacement: with the others' moves taken off, the new θ is the model that was wanted."""
    wanted = mlp.init(9, np.float64)
    n = [client.n_samples for client in clients]
    _, updates, _ = one_round(FedAvg(mlp), clients)
    factor = sum(n) / n[2]
    others = sum(n[k] / n[2] * updates[k].vector for k in range(6) if k != 2)
    updates[2] = updates[2]._replace(vector=factor * (wanted - theta) - others)
    state = {"theta": theta}
    np.testing.assert_allclose(FedAvg(mlp).server_update(state, updates)["theta"], wanted, atol=1e-12)
    # without the others' moves, as an attacker who does not know them sends it: off by their share
    updates[2] = updates[2]._replace(vector=factor * (wanted - theta))
    off = FedAvg(mlp).server_update(state, updates)["theta"] - wanted
    np.testing.assert_allclose(off, n[2] / sum(n) * others, atol=1e-12)


@pytest.mark.parametrize("aggregate", [coordinate_median, Krum(1), GeometricMedian()])
@pytest.mark.parametrize("kind", [FedAvg, FedSGD])
def test_colluders_all_send_what_they_forged_from_their_own(clients, aggregate, kind):
    """eq-inner-product, and a little is enough; the algorithm below does not notice who calls it."""
    algorithm = kind(mlp, learning_rate=0.2, aggregate=aggregate)
    state, updates, _ = one_round(algorithm, clients)
    own = [updates[k].vector.tolist() for k in (0, 3, 5)]
    columns = list(zip(*own, strict=True))
    for forge, forged in (
        (ALittle(1.5), [statistics.fmean(c) - 1.5 * statistics.pstdev(c) for c in columns]),
        (InnerProduct(0.3), [-0.3 * statistics.fmean(c) for c in columns]),
    ):
        lied = [u._replace(vector=np.array(forged)) if u.client in (0, 3, 5) else u for u in updates]
        expected = algorithm.server_update(state, lied)["theta"]
        _, honest, got = one_round(Colluding(algorithm, {0, 3, 5}, forge), clients)
        np.testing.assert_allclose(got, expected, atol=1e-12)
        assert all(np.array_equal(a.vector, b.vector) for a, b in zip(honest, updates, strict=True))
    _, _, alone = one_round(Colluding(algorithm, {2}, ALittle(5.0)), clients)
    np.testing.assert_allclose(alone, one_round(algorithm, clients)[2], atol=1e-14)
    _, _, nobody = one_round(Colluding(algorithm, (), ALittle(5.0)), clients)
    np.testing.assert_array_equal(nobody, one_round(algorithm, clients)[2])


def test_forged_vectors_keep_float32(clients):
    single = [replace(c, X=c.X.astype(np.float32)) for c in clients]
    for forge in (ALittle(np.float64(1)), InnerProduct(np.float64(1))):
        got, _ = simulate(Colluding(FedAvg(mlp), {0, 1}, forge), single, mlp.init(0), rounds=1)
        assert got.dtype == np.float32


def test_attacks_compose_with_wrappers_pickle_and_give_the_same_bits_on_two_workers(clients):
    liars = frozenset({0, 1})
    algorithm = Colluding(
        FedOpt(Altered(FedAvg(mlp, aggregate=Krum(1)), Scaled(liars, -1.0)), Adaptive("adam")),
        liars,
        ALittle(1.0),
    )
    assert pickle.loads(pickle.dumps(algorithm)) == algorithm
    runs = [simulate(algorithm, clients, theta, rounds=2, workers=w)[0] for w in (1, 2)]
    np.testing.assert_array_equal(*runs)
    assert not np.array_equal(runs[0], theta)


# ---- how far a lie can go ----


def test_krum_is_captured_where_the_honest_scatter_is_large():
    """eq-krum-captured: f = a liars at -ε times the mean, honest vectors around the mean, d large."""
    n, f, eps, d = 20, 6, 0.2, 3000
    for ratio, captured in ((0.5, True), (1.4, True), (2.0, False), (5.0, False)):
        rng = np.random.default_rng(0)
        honest = rng.normal(size=(n - f, d)) / np.sqrt(d)  # scatter 1
        honest[:, 0] += np.sqrt(ratio)  # squared length of the mean, in units of the scatter
        liars = np.tile(InnerProduct(eps)(np.sqrt(ratio) * np.eye(1, d)), (f, 1))
        scores = Krum(f).scores([*liars, *honest])
        assert (scores.argmin() < f) == captured
        assert captured == (((n - 2 * f - 1) * ((1 + eps) ** 2 * ratio + 1)) < 2 * (n - f - 2))


def test_flips_and_backdoors_do_to_learning_what_they_are_for(digits):
    """Six of 20 clients: a scaled backdoor takes the mean and not the median; both still read digits."""
    X, y, X_test, y_test = digits
    net = MLP((64, 32, 10))
    clients = make_clients(X.astype(np.float32), y, partition_iid(len(X), 20, 0))
    liars = frozenset(range(6))
    corner = Trigger((0, 7, 56, 63), target=0)
    result = {}
    for name, aggregate in (("mean", FedAvg(net).aggregate), ("median", coordinate_median)):
        algorithm = Altered(FedAvg(net, 3, 24, 0.5, aggregate), Scaled(liars, 20 / 6))
        after, _ = simulate(algorithm, plant_trigger(clients, liars, corner), net.init(0), rounds=6)
        assert net.accuracy(after, X_test, y_test) > 0.85
        result[name] = corner.success_rate(net, after, X_test, y_test)
    assert result["mean"] > 0.9
    assert result["median"] < 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: flip_labels(c, [9, 7], range(10)), r"attackers must be ids of clients, got \[7, 9\]"),
        (lambda c: flip_labels(c, [0], range(5)), "new_labels must have an entry for each label, got 5"),
        (lambda c: flip_labels(c, [0], [-1] * 10), "new_labels must be 0 or more"),
        (lambda c: plant_trigger(c, [6], trigger), r"attackers must be ids of clients, got \[6\]"),
        (lambda c: plant_trigger(c, [0], trigger, 0), "share must be finite and > 0 and <= 1, got 0"),
        (lambda c: Scaled([0], np.inf), "factor must be finite, got inf"),
        (lambda c: ALittle(np.nan), "z must be finite, got nan"),
        (lambda c: InnerProduct(0), "factor must be finite and > 0, got 0"),
    ],
)
def test_bad_input_is_refused(clients, make, message):
    with pytest.raises(ValueError, match=message):
        make(clients)
