"""Compression composes: what is sent and what is owed make up the moves, and the bytes are the payload's."""

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.distributed.compression import QSGD, Sign, TopK
from nnbrain.federated import (
    Altered,
    Colluding,
    Compressed,
    DifferentiallyPrivate,
    Ditto,
    FedAvg,
    FedOpt,
    FedSGD,
    InnerProduct,
    Scaffold,
    Scaled,
    make_clients,
    simulate,
)
from nnbrain.federated.compressed import RESIDUAL
from nnbrain.mlp import MLP, SGD

mlp = MLP((64, 8, 10))
theta = mlp.init(0, np.float64)
X, y, X_test, y_test = load_digits()
clients = make_clients(X[:120].astype(np.float64), y[:120], np.arange(120).reshape(6, 20))
ALGORITHMS = {
    "fedavg": FedAvg(mlp, 2, 10, 0.1),
    "fedsgd": FedSGD(mlp, 0.5),
    "scaffold": Scaffold(mlp, 2, 10, 0.1, total_samples=120),
    "ditto": Ditto(FedAvg(mlp, 2, 10, 0.1)),
    "fedopt": FedOpt(FedAvg(mlp, 2, 10, 0.1), SGD(1.0, momentum=0.9)),
}


@pytest.mark.parametrize("compressor", [TopK(0.1), Sign(), QSGD(4)])
@pytest.mark.parametrize("name", ["fedavg", "scaffold"])
def test_what_was_sent_and_what_is_owed_are_the_sum_of_the_moves(name, compressor):
    inner = ALGORITHMS[name]
    algorithm, client = Compressed(inner, compressor), clients[0]
    state = algorithm.init(theta)
    moves, sent = np.zeros(mlp.size), np.zeros(mlp.size)
    for number in range(5):
        moves += inner.client_update(state, client, np.random.default_rng(number)).vector
        update = algorithm.client_update(state, client, np.random.default_rng(number))
        sent += compressor.decode(update.more["compressed.payload"], mlp.size, np.float64)
        client = client.with_memory(dict(update.memory))
        state = {**state, "theta": state["theta"] + 0.1 * number}
    np.testing.assert_allclose(sent + client.memory[RESIDUAL], moves, rtol=0, atol=1e-12)
    assert np.abs(sent - moves).max() > 1e-3
    assert (
        RESIDUAL
        not in Compressed(inner, compressor, False).client_update(state, client, clients_rng()).memory
    )


def clients_rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_with_all_entries_it_is_the_algorithm_itself_bit_for_bit(name):
    plain, history = simulate(ALGORITHMS[name], clients, theta, rounds=3, client_fraction=0.5)
    got, other = simulate(
        Compressed(ALGORITHMS[name], TopK(1.0)), clients, theta, rounds=3, client_fraction=0.5
    )
    np.testing.assert_array_equal(got, plain)
    assert [r.metrics for r in history] == [r.metrics for r in other]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bytes_of_a_round_are_the_payloads(dtype):
    size, item = mlp.size, np.dtype(dtype).itemsize
    k, buckets = round(0.1 * size), -(-size // 512)
    expected = {
        TopK(0.1): k * (4 + item),
        Sign(): item + -(-size // 8),
        QSGD(4): buckets * item + -(-size * 4 // 8),
    }
    for compressor, number in expected.items():
        algorithm = Compressed(ALGORITHMS["fedavg"], compressor)
        _, history = simulate(algorithm, clients, theta.astype(dtype), rounds=2)
        assert all(r.per_client["bytes_sent"] == [number] * 6 for r in history)


def test_scaffolds_variates_go_as_they_are():
    _, history = simulate(Compressed(ALGORITHMS["scaffold"], Sign()), clients, theta, rounds=1)
    assert history[0].per_client["bytes_sent"] == [8 + -(-mlp.size // 8) + 8 * mlp.size] * 6


def test_workers_and_interruptions_change_no_bit(tmp_path):
    algorithm = Compressed(ALGORITHMS["fedavg"], QSGD(4))
    options = {"client_fraction": 0.5, "seed": 1}
    whole, _ = simulate(algorithm, clients, theta, rounds=6, **options)
    path = tmp_path / "run.npz"
    simulate(algorithm, clients, theta, rounds=3, workers=2, checkpoint=path, **options)
    resumed, _ = simulate(algorithm, clients, theta, rounds=6, checkpoint=path, **options)
    np.testing.assert_array_equal(resumed, whole)


def test_with_feedback_little_is_enough():
    """On a convex loss, 1% of the entries come near the plain run with feedback, and stay behind without."""
    small = MLP((64, 10))
    start = small.init(0, np.float64)
    plain = FedSGD(small, 0.5)
    loss = {}
    for name, algorithm in {
        "plain": plain,
        "feedback": Compressed(plain, TopK(0.01)),
        "none": Compressed(plain, TopK(0.01), feedback=False),
    }.items():
        end, _ = simulate(algorithm, clients, start, rounds=100)
        loss[name] = small.mean_loss(end, X[:120], y[:120])
    assert loss["feedback"] < 1.5 * loss["plain"]
    assert loss["none"] > 2 * loss["feedback"]


def test_it_goes_around_what_alters_vectors():
    """Inside, attacks and noise act as ever; outside, there is no vector to alter, and this is an error."""
    fedavg, whole = ALGORITHMS["fedavg"], TopK(1.0)
    for lying in (
        Altered(fedavg, Scaled([0, 1], -5.0)),
        Colluding(fedavg, [0, 1], InnerProduct(5.0)),
        DifferentiallyPrivate(fedavg, 6, 0.1, 0.5, quantile=0.5),
    ):
        got, _ = simulate(Compressed(lying, whole), clients, theta, rounds=2)
        expected, _ = simulate(lying, clients, theta, rounds=2)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    inside = Compressed(fedavg, whole)
    for wrong in (Altered(inside, Scaled([0, 1], -5.0)), Colluding(inside, [0, 1], InnerProduct(5.0))):
        with pytest.raises(TypeError):
            simulate(wrong, clients, theta, rounds=1)
    with pytest.raises(ValueError, match="got Compressed, whose server"):
        DifferentiallyPrivate(inside, 6, 1.0, 1.0)


def test_bad_input_is_named():
    with pytest.raises(TypeError, match="feedback must be True or False, got 1"):
        Compressed(ALGORITHMS["fedavg"], Sign(), 1)
    algorithm = Compressed(ALGORITHMS["fedavg"], Sign())
    state = algorithm.init(theta)
    update = algorithm.client_update(state, clients[3], clients_rng())
    for more, got in (({}, "nothing"), ({"compressed.payload": np.zeros(3, np.uint8)}, r"\(3,\)")):
        with pytest.raises(ValueError, match=f"client 3 must send 'compressed.payload' .* got {got}"):
            algorithm.server_update(state, [update._replace(more=more)])
