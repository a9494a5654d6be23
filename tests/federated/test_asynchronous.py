"""Buffered asynchronous rounds: synchronous ones as their limit, and a replay that knows no cluster."""

from dataclasses import dataclass

import numpy as np
import pytest

from nnbrain.distributed import Cluster, TopK, exponential, steady
from nnbrain.federated import (
    Compressed,
    FedAvg,
    Scaffold,
    inverse_root,
    make_clients,
    simulate,
    simulate_async,
    weighted_mean,
)
from nnbrain.mlp import MLP

rng = np.random.default_rng(0)
line = MLP((1, 1), loss="mse")
zero = np.zeros(2)
X = rng.normal(size=(60, 1))
clients = make_clients(X, 1 - X + 0.1 * rng.normal(size=(60, 1)), np.split(np.arange(60), [5, 20, 35]))
average = FedAvg(line, 2, 5, 0.05)


def cluster(seconds=1.0):
    return Cluster(4, steady(seconds))


@pytest.mark.parametrize("algorithm", [average, Scaffold(line, 2, 5, 0.05, total_samples=60)])
def test_with_room_for_all_it_is_synchronous(algorithm):
    """Equal clients, and a buffer of all of them: `simulate`, one round a second, nothing stale."""
    got, history = simulate_async(algorithm, clients, zero, cluster(), steps=6, buffer=4, seed=2)
    expected, rounds = simulate(algorithm, clients, zero, rounds=6, seed=2)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-14)
    assert [step.metrics["time"] for step in history] == [1, 2, 3, 4, 5, 6]
    assert [step.clients for step in history] == [r.clients for r in rounds]
    assert not np.any([step.per_client["staleness"] for step in history])


def test_unequal_clients_that_are_all_waited_for_take_the_time_of_the_slowest():
    got, history = simulate_async(average, clients, zero, cluster([1, 5, 2, 3]), steps=3, buffer=4)
    expected, _ = simulate(average, clients, zero, rounds=3)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-14)
    assert [step.metrics["time"] for step in history] == [5, 10, 15]
    assert history[0].clients == [0, 2, 3, 1]


def test_two_steps_by_hand():
    """Clients need 1, 2, 4 and 8 s; the buffer holds two.

    At 2 s come 0 and 1, both fresh, and start again; at 3 s comes 0 and waits; at 4 s come client 2, two
    steps' beginning old: it read θ₀, and one step has been made since; and so on.
    """
    moves = {}

    class Watched(FedAvg):
        def client_update(self, state, client, rng):
            update = super().client_update(state, client, rng)
            moves.setdefault(client.id, []).append(update.vector)
            return update

    end, history = simulate_async(
        Watched(line, 2, 5, 0.05), clients, zero, cluster([1, 2, 4, 8]), steps=2, buffer=2
    )
    assert [step.clients for step in history] == [[0, 1], [0, 2]]
    assert [step.metrics["time"] for step in history] == [2, 4]
    assert [step.per_client["staleness"] for step in history] == [[0, 0], [0, 1]]
    first = weighted_mean([moves[0][0], moves[1][0]], [5, 15])
    second = weighted_mean([moves[0][1], moves[2][0] / np.sqrt(2)], [5, 15])
    np.testing.assert_allclose(end, first + second, rtol=0, atol=1e-15)


def test_a_clients_memory_is_what_it_kept_last_as_in_synchronous_rounds():
    """It keeps its round's number, under a new name each time, and nothing in its third."""
    seen = {False: [], True: []}

    @dataclass(frozen=True)
    class Diary(FedAvg):
        asynchronous: bool = False

        def client_update(self, state, client, rng):
            if client.id == 0:
                seen[self.asynchronous].append(dict(client.memory))
            turn = max((int(name) for name in client.memory), default=0) + 1
            memory = {} if turn == 3 else {str(turn): np.array(turn)}
            return super().client_update(state, client, rng)._replace(memory=memory)

    simulate(Diary(line, 2, 5, 0.05), clients, zero, rounds=5)
    simulate_async(Diary(line, 2, 5, 0.05, asynchronous=True), clients, zero, cluster(), steps=5, buffer=4)
    assert seen[True] == seen[False] == [{}, {"1": 1}, {"2": 2}, {"2": 2}, {"2": 2}]

    seen[True].clear()
    earlier = [client.with_memory({"7": np.array(7)}) for client in clients]
    simulate_async(Diary(line, 2, 5, 0.05, asynchronous=True), earlier, zero, cluster(), steps=2, buffer=4)
    assert seen[True] == [{"7": 7}, {"8": 8}]


def test_vectors_that_are_sent_in_another_form_cannot_be_damped():
    with pytest.raises(ValueError, match=r"vectors of theta's shape \(2,\).* from client .*Compressed"):
        simulate_async(Compressed(average, TopK(0.5)), clients, zero, cluster(), steps=1, buffer=2)


def test_no_more_work_at_a_time_than_told_and_all_have_a_turn():
    _, history = simulate_async(
        average, clients, zero, Cluster(4, exponential(1.0)), steps=60, buffer=1, concurrency=1
    )
    assert not np.any([step.per_client["staleness"] for step in history])
    counts = np.bincount([step.clients[0] for step in history], minlength=4)
    assert counts.sum() == 60
    assert counts.min() >= 5
    _, crowded = simulate_async(average, clients, zero, Cluster(4, exponential(1.0)), steps=60, buffer=1)
    assert crowded[-1].metrics["time"] < history[-1].metrics["time"] / 2
    assert np.mean([step.per_client["staleness"] for step in crowded]) == pytest.approx(3, abs=0.5)


def test_it_learns_and_measures_and_repeats_itself():
    options = {"steps": 80, "buffer": 2, "seed": 1, "evaluate": lambda t: {"slope": float(t[0])}}
    runs = [simulate_async(average, clients, zero, Cluster(4, exponential(1.0)), **options) for _ in range(2)]
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert runs[0][1][-1].metrics["slope"] == runs[0][0][0]
    np.testing.assert_allclose(runs[0][0], [-1, 1], atol=0.1)


def test_the_damping_of_the_paper():
    assert inverse_root(0) == 1
    assert inverse_root(3) == 0.5
    one, _ = simulate_async(average, clients, zero, cluster(), steps=3, buffer=1, damping=lambda tau: 1.0)
    other, _ = simulate_async(average, clients, zero, cluster(), steps=3, buffer=1)
    assert np.abs(one - other).max() > 1e-3


def start(at=None, **settings):
    options = {"steps": 1, "buffer": 1, **settings}
    return lambda: simulate_async(average, clients, zero, at or cluster(), **options)


busy = cluster()
busy.start(2)
BAD = {
    "buffer": (start(buffer=5), ValueError, "buffer must be at most the 4 clients there are, got 5"),
    "no buffer": (start(buffer=0), ValueError, "buffer .* >= 1, got 0"),
    "concurrency": (start(concurrency=9), ValueError, "concurrency must be at most the 4 .* got 9"),
    "steps": (start(steps=-1), ValueError, "steps .* >= 0, got -1"),
    "workers": (start(Cluster(3, steady(1))), ValueError, "cluster must have .* 4 clients, got 3 workers"),
    "busy": (start(busy), ValueError, "cluster must have one idle worker .* 1 busy"),
    "rate": (start(damping=lambda tau: np.inf), FloatingPointError, "theta is no longer finite"),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
