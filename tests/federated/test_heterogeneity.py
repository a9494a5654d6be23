"""FedProx, SCAFFOLD and FedNova against algebra: of lines through points, F_k is a parabola."""

from dataclasses import replace

import numpy as np
import pytest

from nnbrain.federated import (
    Altered,
    FedAvg,
    FedNova,
    FedProx,
    Scaffold,
    UnequalWork,
    Update,
    local_gradient,
    local_sgd,
    make_clients,
    simulate,
)
from nnbrain.mlp import MLP

line = MLP((1, 1), loss="mse")
zero = np.zeros(2)
WHOLE = {"batch_size": None, "learning_rate": 0.3}


def make_lines(sizes=(30, 30)):
    """Return clients with points near lines of their own, and each one's Hessian and minimum."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-1, 0, sizes[0]), rng.uniform(0, 2, sizes[1])])
    target = np.where(x < 0, 2 * x + 1.5, 1 - x / 2) + 0.1 * rng.normal(size=len(x))
    parts = np.split(np.arange(len(x)), [sizes[0]])
    clients = make_clients(x[:, None], target[:, None], parts)
    A = [np.c_[x[part], np.ones(len(part))] for part in parts]
    H = [2 * a.T @ a / len(a) for a in A]
    minima = [np.linalg.lstsq(a, target[part], rcond=None)[0] for a, part in zip(A, parts, strict=True)]
    return clients, H, minima


clients, H, minima = make_lines()
uneven, H_uneven, minima_uneven = make_lines((10, 50))


def still_point(H, minima, weights, steps, rate, mu=0.0, per_step=False):
    """Where Σ p_k Δ_k = 0, with the moves Δ_k = M_k (θ*_k - θ) of gradient descent on parabolas."""
    moves = []
    for h, p, s in zip(H, weights, steps, strict=True):
        A = np.linalg.matrix_power(np.eye(2) - rate * (h + mu * np.eye(2)), s)
        moves.append(p / (s if per_step else 1) * (np.eye(2) - A) @ np.linalg.solve(h + mu * np.eye(2), h))
    return np.linalg.solve(sum(moves), sum(m @ best for m, best in zip(moves, minima, strict=True)))


def minimum(H, minima, weights):
    return still_point(H, minima, weights, [1] * len(H), 1e-9)


def assert_rests(algorithm, clients, point):
    """A round leaves `point` where it is, and from elsewhere rounds lead towards it."""
    stay, _ = simulate(algorithm, clients, point, rounds=1)
    np.testing.assert_allclose(stay, point, rtol=0, atol=1e-12)
    far = point + np.array([1.0, -0.5])
    end, _ = simulate(algorithm, clients, far, rounds=8)
    assert np.linalg.norm(end - point) < 0.8 * np.linalg.norm(far - point)


# ---- drift ----


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_local_descent_on_a_parabola(steps):
    """eq-local-parabola: the distance to the client's own minimum shrinks by (I - η H_k)^s."""
    for client, h, best in zip(clients, H, minima, strict=True):
        theta_k, _ = local_sgd(line, zero, client, epochs=steps, rng=0, **WHOLE)
        A = np.linalg.matrix_power(np.eye(2) - 0.3 * h, steps)
        np.testing.assert_allclose(theta_k - zero, (np.eye(2) - A) @ (best - zero), rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_fedavg_comes_to_rest_where_moves_cancel_and_not_in_the_minimum(steps):
    """eq-drifted-point, for clients with 10 and 50 samples; with one step it is the minimum of F."""
    weights = [10 / 60, 50 / 60]
    point = still_point(H_uneven, minima_uneven, weights, [steps] * 2, 0.3)
    assert_rests(FedAvg(line, steps, **WHOLE), uneven, point)
    distance = np.linalg.norm(point - minimum(H_uneven, minima_uneven, weights))
    assert distance < 1e-6 if steps == 1 else distance > 0.05


def test_after_many_steps_the_point_of_rest_is_the_mean_of_the_clients_minima():
    """eq-drifted-point in the limit."""
    far = still_point(H, minima, [0.5, 0.5], [5000] * 2, 0.3)
    np.testing.assert_allclose(far, np.mean(minima, axis=0), rtol=0, atol=1e-9)


# ---- FedProx ----


def test_fedprox_without_leash_is_fedavg_bit_for_bit():
    one, history = simulate(FedProx(line, 3, 7, 0.1, mu=0), clients, zero, rounds=3)
    other, expected = simulate(FedAvg(line, 3, 7, 0.1), clients, zero, rounds=3)
    np.testing.assert_array_equal(one, other)
    assert history == expected


def test_a_step_of_fedprox():
    """eq-fedprox: three steps by hand, on the gradient and the distance from the start."""
    theta = np.array([0.3, -0.2])
    algorithm = FedProx(line, 3, mu=0.7, **WHOLE)
    update = algorithm.client_update(algorithm.init(theta), clients[0], np.random.default_rng(0))
    theta_k = theta.copy()
    for _ in range(3):
        theta_k = theta_k - 0.3 * (local_gradient(line, theta_k, clients[0])[0] + 0.7 * (theta_k - theta))
    np.testing.assert_allclose(update.vector, theta_k - theta, rtol=0, atol=1e-14)


def test_fedprox_comes_to_rest_nearer_to_the_minimum_than_fedavg():
    best = minimum(H, minima, [0.5, 0.5])
    points = [still_point(H, minima, [0.5, 0.5], [20] * 2, 0.3, mu) for mu in (0.0, 1.0)]
    for mu, point in zip((0.0, 1.0), points, strict=True):
        assert_rests(FedProx(line, 20, mu=mu, **WHOLE), clients, point)
    assert 0.05 < np.linalg.norm(points[1] - best) < np.linalg.norm(points[0] - best) / 2


# ---- SCAFFOLD ----


def test_scaffolds_first_round_is_fedavgs_and_with_variates_kept_zero_all_are():
    class Forgetful(Scaffold):
        def client_update(self, state, client, rng):
            update = super().client_update(state, client, rng)
            return update._replace(more={"change": np.zeros(2)}, memory={})

    settings = (line, 2, 7, 0.1)
    for algorithm, rounds in ((Scaffold, 1), (Forgetful, 4)):
        got, _ = simulate(algorithm(*settings, total_samples=60), clients, zero, rounds=rounds)
        expected, _ = simulate(FedAvg(*settings), clients, zero, rounds=rounds)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)


def test_scaffold_by_hand():
    """eq-scaffold-step, eq-scaffold-variates: five rounds, in turn one client and both, written out."""
    turns = [[0], [0, 1], [1], [0, 1], [0]]
    algorithm = Scaffold(line, 4, total_samples=60, **WHOLE)

    def in_turn(state, clients, n, rng, history):
        return turns[len(history)]

    got, history = simulate(algorithm, uneven, zero, rounds=5, select=in_turn)
    theta, c, c_k = zero, zero, [zero, zero]
    for turn in turns:
        moves, changes = [], []
        for k in turn:
            theta_k = theta
            for _ in range(4):
                theta_k = theta_k - 0.3 * (local_gradient(line, theta_k, uneven[k])[0] + c - c_k[k])
            new = c_k[k] - c + (theta - theta_k) / (0.3 * 4)
            moves.append(theta_k - theta)
            changes.append(new - c_k[k])
            c_k[k] = new
        n = [uneven[k].n_samples for k in turn]
        theta = theta + np.average(moves, axis=0, weights=n)
        c = c + sum(n_k / 60 * change for n_k, change in zip(n, changes, strict=True))
    np.testing.assert_allclose(got, theta, rtol=0, atol=1e-13)
    np.testing.assert_allclose(c, (10 * c_k[0] + 50 * c_k[1]) / 60, rtol=0, atol=1e-14)
    assert history[1].per_client["bytes_sent"] == [2 * theta.nbytes] * 2


def test_a_variate_is_the_mean_gradient_of_the_round():
    """eq-scaffold-variates says so, whatever the variates were before: here with batches of 7."""
    algorithm = Scaffold(line, 2, 7, 0.1, total_samples=60)
    state = {"theta": np.array([0.5, 0.1]), "variate": np.array([0.3, -0.4])}
    client = clients[0].with_memory({"variate": np.array([-1.0, 2.0])})
    update = algorithm.client_update(state, client, np.random.default_rng(5))
    theta, rng, seen = state["theta"], np.random.default_rng(5), []
    for _ in range(2):
        order = rng.permutation(30)
        for start in range(0, 30, 7):
            batch = replace(client, index=client.index[order[start : start + 7]])
            seen.append(local_gradient(line, theta, batch)[0])
            theta = theta - 0.1 * (seen[-1] + state["variate"] - client.memory["variate"])
    assert len(seen) == 10
    np.testing.assert_allclose(update.memory["variate"], np.mean(seen, axis=0), rtol=0, atol=1e-13)
    np.testing.assert_allclose(update.vector, theta - state["theta"], rtol=0, atol=1e-14)


@pytest.mark.parametrize("epochs", [[20, 20], [2, 30]])
def test_scaffold_comes_to_rest_in_the_minimum_even_with_unequal_work(epochs):
    algorithm = UnequalWork(Scaffold(line, total_samples=60, **WHOLE), epochs)
    end, _ = simulate(algorithm, uneven, zero, rounds=100)
    best = minimum(H_uneven, minima_uneven, [10 / 60, 50 / 60])
    np.testing.assert_allclose(end, best, rtol=0, atol=1e-5)


# ---- FedNova ----


def test_fednova_with_equal_steps_is_fedavg():
    got, _ = simulate(FedNova(line, 3, 7, 0.1), clients, zero, rounds=3)
    expected, _ = simulate(FedAvg(line, 3, 7, 0.1), clients, zero, rounds=3)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-14)


def test_fednova_by_hand():
    """eq-fednova: 10 and 50 samples in batches of 7 are 2 and 8 steps an epoch; 3 and 1 epochs: 6 and 8."""
    algorithm = UnequalWork(FedNova(line, 1, 7, 0.1), [3, 1])
    state = algorithm.init(zero)
    updates = [algorithm.client_update(state, c, np.random.default_rng(1)) for c in uneven]
    assert [float(u.more["steps"]) for u in updates] == [6, 8]
    steps = 10 / 60 * 6 + 50 / 60 * 8
    expected = steps * (10 / 60 * updates[0].vector / 6 + 50 / 60 * updates[1].vector / 8)
    np.testing.assert_allclose(algorithm.server_update(state, updates)["theta"], expected, atol=1e-15)


def test_with_unequal_steps_fednova_goes_to_the_minimum_as_steps_shrink_and_fedavg_does_not():
    """eq-fednova: the objective is consistent. 2 and 20 steps; points of rest in closed form."""
    weights, steps = [0.5, 0.5], [2, 20]
    best = minimum(H, minima, weights)
    off = {}
    for kind in (FedAvg, FedNova):
        per_step = kind is FedNova
        algorithm = UnequalWork(kind(line, batch_size=None, learning_rate=0.1), steps)
        assert_rests(algorithm, clients, still_point(H, minima, weights, steps, 0.1, per_step=per_step))
        ends = [still_point(H, minima, weights, steps, rate, per_step=per_step) for rate in (0.1, 1e-5)]
        off[kind] = [np.linalg.norm(end - best) for end in ends]
    assert off[FedNova][1] < 1e-3 < 0.3 < off[FedAvg][1]
    biased = minimum(H, minima, [2 / 22, 20 / 22])  # what FedAvg minimises instead: weights p_k s_k
    np.testing.assert_allclose(still_point(H, minima, weights, steps, 1e-6), biased, atol=1e-3)


# ---- composing, and bad input ----


def halve(update, state, client, rng):
    return update._replace(vector=update.vector / 2)


@pytest.mark.parametrize("kind", [FedProx, FedNova, Scaffold])
def test_they_compose_with_what_alters_updates_and_with_other_aggregates(kind):
    def median(vectors, weights):
        return np.median(vectors, axis=0)

    settings = {"total_samples": 60} if kind is Scaffold else {}
    whole, _ = simulate(kind(line, aggregate=median, **settings), clients, zero, rounds=1)
    half, _ = simulate(Altered(kind(line, aggregate=median, **settings), halve), clients, zero, rounds=1)
    np.testing.assert_allclose(half, whole / 2, rtol=0, atol=1e-14)


def after(algorithm, **more):
    """Return the state after client 7 has sent a move of ones and whatever else."""
    update = Update(7, np.ones(2), 30, 0.0, {name: np.array(array) for name, array in more.items()})
    return lambda: algorithm.server_update(algorithm.init(zero), [update])


variates = Scaffold(line, total_samples=60)
BAD = {
    "no steps": (
        after(FedNova(line)),
        ValueError,
        r"client 7 must send 'steps' of shape \(\), got nothing",
    ),
    "two steps": (after(FedNova(line), steps=[1, 2]), ValueError, r"'steps' of shape \(\), got \(2,\)"),
    "zero steps": (after(FedNova(line), steps=0), ValueError, "steps of client 7 must be .* >= 1, got 0"),
    "NaN steps": (after(FedNova(line), steps=np.nan), ValueError, "steps of client 7 must be .* got nan"),
    "no change": (
        after(variates),
        ValueError,
        r"client 7 must send 'change' of shape \(2,\), got nothing",
    ),
    "a scalar": (after(variates, change=1.0), ValueError, r"'change' of shape \(2,\), got \(\)"),
    "mu": (lambda: FedProx(line, mu=-1), ValueError, "mu must be .* >= 0, got -1"),
    "total": (lambda: Scaffold(line, total_samples=0), ValueError, "total_samples .* >= 1, got 0"),
    "few": (
        lambda: simulate(Scaffold(line, total_samples=59), clients, zero, rounds=1),
        ValueError,
        "total_samples must count all clients, got 59, and 60",
    ),
    "epochs": (lambda: UnequalWork(FedAvg(line), [1, 0]), ValueError, r"epochs\[1\] .* >= 1, got 0"),
    "missing": (
        lambda: simulate(UnequalWork(FedAvg(line), [1]), clients, zero, rounds=1),
        ValueError,
        "epochs must have an entry for client 1, got 1",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
