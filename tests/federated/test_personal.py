"""Own layers never leave, and what is held near the common model is where algebra says."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.federated import (
    Altered,
    DifferentiallyPrivate,
    Ditto,
    FedAvg,
    FedOpt,
    PersonalLayers,
    Scaffold,
    coordinate_median,
    local_sgd,
    make_clients,
    partition_shards,
    simulate,
    transform_clients,
)
from nnbrain.mlp import MLP, SGD, Adam

X, y, _, _ = load_digits()
mlp = MLP((64, 12, 10))
clients = make_clients(X[:240], y[:240], partition_shards(y[:240], 6, rng=0))
theta = mlp.init(0)
SHARED = 65 * 12
line = MLP((1, 1), loss="mse")


def personal_of(algorithm, clients, theta, **options):
    """Return the common θ, each client's own model, and the history."""
    memories = {}
    end, history = simulate(algorithm, clients, theta, memories=memories, **options)
    return end, [algorithm.personal(end, c.with_memory(memories.get(c.id, {}))) for c in clients], history


# ---- own layers ----


def test_personal_layers_by_hand():
    """eq-personal-layers: each client trains all layers, and the mean is taken of the shared ones alone."""
    algorithm = PersonalLayers(mlp, 2, 10, 0.1)
    end, models, _ = personal_of(algorithm, clients, theta, rounds=3)
    shared, own = theta[:SHARED], {c.id: theta[SHARED:] for c in clients}
    for number in range(1, 4):
        trained = {}
        for c in clients:
            rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(1, number, c.id)))
            start = np.concatenate([shared, own[c.id]])
            trained[c.id], _ = local_sgd(mlp, start, c, epochs=2, batch_size=10, learning_rate=0.1, rng=rng)
        shared = sum(c.n_samples * trained[c.id][:SHARED].astype(float) for c in clients)
        shared = (shared / sum(c.n_samples for c in clients)).astype(np.float32)
        own = {k: model[SHARED:] for k, model in trained.items()}
    np.testing.assert_allclose(end, shared, rtol=0, atol=1e-5)
    for c, model in zip(clients, models, strict=True):
        np.testing.assert_allclose(model, np.concatenate([shared, own[c.id]]), rtol=0, atol=1e-5)
    assert min(np.abs(own[0] - own[k]).max() for k in range(1, 6)) > 0.1


def test_own_layers_never_leave():
    """What reaches the server does not depend on a client's own layers' move, in length or in value."""
    seen = []

    class Watching(PersonalLayers):
        def server_update(self, state, updates):
            seen.extend(updates)
            np.testing.assert_array_equal(state["own"], theta[SHARED:])
            return super().server_update(state, updates)

    algorithm = Watching(mlp, 2, 10, 0.1)
    end, models, history = personal_of(algorithm, clients, theta, rounds=2)
    assert len(seen) == 12
    assert end.shape == (SHARED,)
    for update in seen:
        assert (update.vector.shape, dict(update.more), dict(update.memory)) == ((SHARED,), {}, {})
        sent = update.vector.tobytes()
        for model in models:
            assert model[-5:].tobytes() not in sent
    assert {sent for r in history for sent in r.per_client["bytes_sent"]} == {4.0 * SHARED}
    assert 4 * mlp.size == 4.0 * (SHARED + 13 * 10)


def test_with_one_client_nothing_is_personal():
    one, other = (
        simulate(kind(mlp, 2, 10, 0.1), clients[:1], theta, rounds=3)[0] for kind in (FedAvg, PersonalLayers)
    )
    np.testing.assert_allclose(one[:SHARED], other, rtol=0, atol=1e-6)


def test_a_client_without_a_round_has_no_layers_of_its_own():
    algorithm = PersonalLayers(mlp, own_layers=1)
    with pytest.raises(ValueError, match="client 5 without memory"):
        algorithm.personal(theta[:SHARED], clients[5])
    with pytest.raises(ValueError, match="own_layers must be below the 2 layers of mlp"):
        PersonalLayers(mlp, own_layers=2)
    with pytest.raises(ValueError, match="own_layers must be an integer >= 1"):
        PersonalLayers(mlp, own_layers=0)
    deep = PersonalLayers(MLP((64, 12, 11, 10)), own_layers=2)
    assert deep.shared_size == SHARED


# ---- Ditto ----


def lines():
    """Two clients with points near lines of their own; their Hessians and minima."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-1, 0, 30), rng.uniform(0, 2, 30)])
    target = np.where(x < 0, 2 * x + 1.5, 1 - x / 2)
    halves = np.split(np.arange(60), 2)
    A = [np.c_[x[rows], np.ones(30)] for rows in halves]
    minima = [np.linalg.lstsq(a, target[rows], rcond=None)[0] for a, rows in zip(A, halves, strict=True)]
    return make_clients(x[:, None], target[:, None], halves), [2 * a.T @ a / 30 for a in A], minima


@pytest.mark.parametrize("lam", [0.0, 0.3, 2.0])
def test_a_step_of_ditto(lam):
    """eq-ditto: three steps by hand from a θₖ that is not θ, towards the loss and towards θ."""
    two, H, minima = lines()
    common, own = np.array([0.3, -0.2]), np.array([1.0, 2.0])
    ditto = Ditto(FedAvg(line, 1, None, 0.1), lam, 3, None, 0.2)
    client = two[0].with_memory({"ditto": own})
    update = ditto.client_update({"theta": common}, client, np.random.default_rng(0))
    expected = own
    for _ in range(3):
        expected = expected - 0.2 * (H[0] @ (expected - minima[0]) + lam * (expected - common))
    np.testing.assert_allclose(update.memory["ditto"], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("lam", [0.0, 0.1, 1.0, 5.0])
def test_ditto_comes_to_rest_between_the_two_models(lam):
    """eq-ditto-minimum, from no leash to a strong one; θ of FedSGD's kind is the minimum of F."""
    two, H, minima = lines()
    ditto = Ditto(FedAvg(line, 1, None, 0.2), lam, 5, None, 0.2)
    end, models, _ = personal_of(ditto, two, np.zeros(2), rounds=350)
    best = np.linalg.solve(H[0] + H[1], H[0] @ minima[0] + H[1] @ minima[1])
    np.testing.assert_allclose(end, best, rtol=0, atol=1e-8)
    for h, minimum, model in zip(H, minima, models, strict=True):
        expected = np.linalg.solve(h + lam * np.eye(2), h @ minimum + lam * best)
        np.testing.assert_allclose(model, expected, rtol=0, atol=1e-8)


def test_dittos_limits():
    """Without a leash it learns alone; on a very short one it stays at the θ that it was sent."""
    two, _, _ = lines()
    base = FedAvg(line, 1, None, 0.25)
    _, models, _ = personal_of(Ditto(base, 0.0, 5, None, 0.25), two, np.zeros(2), rounds=7)
    for client, model in zip(two, models, strict=True):
        alone, _ = local_sgd(line, np.zeros(2), client, epochs=35, batch_size=None, learning_rate=0.25, rng=0)
        np.testing.assert_allclose(model, alone, rtol=0, atol=1e-12)
    before, _ = simulate(base, two, np.zeros(2), rounds=6)
    near = Ditto(base, 1e6, 1, None, 1e-6)
    _, models, _ = personal_of(near, two, np.zeros(2), rounds=7)
    for model in models:
        np.testing.assert_allclose(model, before, rtol=0, atol=1e-5)
        assert np.linalg.norm(model - before) > 0


@pytest.mark.parametrize(
    "algorithm",
    [
        FedAvg(mlp, 2, 10, 0.1, coordinate_median),
        Scaffold(mlp, 2, 10, 0.1, total_samples=240),
        DifferentiallyPrivate(FedAvg(mlp, 2, 10, 0.1), 6, 1.0, 0.1),
    ],
    ids=["median", "scaffold", "private"],
)
def test_ditto_leaves_the_common_model_alone_bit_for_bit(algorithm):
    ditto = Ditto(algorithm, 0.1, 2, 10, 0.1)
    end, models, history = personal_of(ditto, clients, theta, rounds=3, client_fraction=0.5)
    expected, expected_history = simulate(algorithm, clients, theta, rounds=3, client_fraction=0.5)
    np.testing.assert_array_equal(end, expected)
    assert history == expected_history
    taken_part = {k for r in history for k in r.clients}
    assert 0 < len(taken_part) < 6
    assert [np.array_equal(m, end) for m in models] == [c.id not in taken_part for c in clients]


def test_the_mean_of_squared_errors_when_means_are_shrunk():
    """eq-shrink, eq-best-lambda: exact for any number of clients, here over many draws."""
    K, n, sigma, tau = 5, 4, 1.5, 0.8
    rng = np.random.default_rng(0)
    mu = rng.normal(0, tau, (200_000, K))
    own = rng.normal(mu, sigma / np.sqrt(n))
    noise = sigma**2 / n
    lams = np.array([0.0, 0.3, noise / tau**2, 3.0])
    formula = noise / K + (1 - 1 / K) * (noise + lams**2 * tau**2) / (1 + lams) ** 2
    for lam, expected in zip(lams, formula, strict=True):
        errors = (own + lam * own.mean(axis=1, keepdims=True)) / (1 + lam) - mu
        assert abs(np.mean(errors**2) / expected - 1) < 0.01
    fine = np.linspace(0, 5, 5001)
    at = np.argmin((noise + fine**2 * tau**2) / (1 + fine) ** 2)
    assert abs(fine[at] - noise / tau**2) < 2e-3


def test_bad_settings_of_ditto():
    for settings, message in (
        ({"lam": -1}, "lam must be"),
        ({"epochs": 0}, "epochs must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"learning_rate": 0}, "learning_rate must be"),
    ):
        with pytest.raises(ValueError, match=message):
            Ditto(FedAvg(mlp), **settings)
    with pytest.raises(ValueError, match=f"algorithm must learn all {mlp.size} numbers"):
        simulate(Ditto(PersonalLayers(mlp)), clients, theta, rounds=1)


# ---- both ----


def test_they_compose_and_pickle_and_resume(tmp_path):
    def halve(update, state, client, rng):
        return update._replace(vector=update.vector / 2)

    layers = PersonalLayers(mlp, 2, 10, 0.1)
    for algorithm in (layers, Ditto(FedAvg(mlp, 2, 10, 0.1), 0.1, 2, 10, 0.1)):
        assert pickle.loads(pickle.dumps(algorithm)) == algorithm
        whole, models, _ = personal_of(algorithm, clients, theta, rounds=4, client_fraction=0.8, seed=1)
        path = tmp_path / f"{type(algorithm).__name__}.npz"
        simulate(algorithm, clients, theta, rounds=2, client_fraction=0.8, seed=1, checkpoint=path)
        options = {"rounds": 4, "client_fraction": 0.8, "seed": 1, "checkpoint": path}
        memories = {}
        resumed, _ = simulate(algorithm, clients, theta, memories=memories, **options)
        np.testing.assert_array_equal(resumed, whole)
        for c, model in zip(clients, models, strict=True):
            kept = algorithm.personal(resumed, c.with_memory(memories.get(c.id, {})))
            np.testing.assert_array_equal(kept, model)
    halved, _ = simulate(Altered(layers, halve), clients, theta, rounds=1)
    full, _ = simulate(layers, clients, theta, rounds=1)
    np.testing.assert_allclose(halved - theta[:SHARED], (full - theta[:SHARED]) / 2, rtol=0, atol=1e-6)
    silent = DifferentiallyPrivate(layers, 6, 1e6, 0.0)
    unweighted, _ = simulate(silent, clients, theta, rounds=1)
    np.testing.assert_allclose(unweighted, full, rtol=0, atol=1e-6)


def test_a_server_optimizer_moves_the_shared_layers_alone():
    layers = PersonalLayers(mlp, 1, 10, 0.1)
    plain, _ = simulate(layers, clients, theta, rounds=2)
    stepped, _ = simulate(FedOpt(layers, SGD(1.0)), clients, theta, rounds=2)
    np.testing.assert_allclose(stepped, plain, rtol=0, atol=1e-6)
    adam, _ = simulate(FedOpt(layers, Adam(0.01)), clients, theta, rounds=1)
    assert adam.shape == (SHARED,)
    assert np.max(np.abs(adam - theta[:SHARED])) < 0.0101  # its first step is 0.01 at most


def test_memories_are_filled_before_a_round_is_evaluated():
    seen, memories = [], {}
    algorithm = PersonalLayers(mlp, 1, 10, 0.1)
    simulate(
        algorithm, clients, theta, rounds=2, memories=memories,
        evaluate=lambda _: seen.append({k: m["own"].copy() for k, m in memories.items()}) or {},
    )  # fmt: skip
    assert sorted(seen[0]) == list(range(6))
    assert not np.array_equal(seen[0][0], seen[1][0])
    np.testing.assert_array_equal(seen[1][0], memories[0]["own"])
    with pytest.raises(ValueError, match="memories must be empty, to be filled, got those of 6"):
        simulate(algorithm, clients, theta, rounds=1, memories=memories)


def test_personal_models_serve_clients_that_contradict_each_other():
    """Half of the clients call every digit five more: no single θ can serve both halves."""
    shifted = transform_clients(make_clients(X, y, np.array_split(np.arange(len(X)), 8)), lambda X, _: X, 0)
    contrary = [replace(c, y=(c.y + 5 * (c.id % 2)) % 10) for c in shifted]
    accuracy = {}
    for algorithm in (PersonalLayers(mlp, 3, 20, 0.3), Ditto(FedAvg(mlp, 3, 20, 0.3), 0.05, 3, 20, 0.3)):
        end, models, _ = personal_of(algorithm, contrary, theta, rounds=8)
        accuracy[type(algorithm).__name__] = min(
            mlp.accuracy(model, c.X, c.y) for model, c in zip(models, contrary, strict=True)
        )
    one = np.mean([mlp.accuracy(end, c.X, c.y) for c in contrary])
    assert one < 0.65
    assert min(accuracy.values()) > 0.85
