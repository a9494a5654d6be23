"""Whom `federate` asks, and how an interrupted federation goes on: as `simulate` does both."""

from dataclasses import replace

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.federated import (
    Deadline,
    DifferentiallyPrivate,
    FedAvg,
    PowerOfChoice,
    Round,
    Scaffold,
    Useful,
    Valued,
    make_clients,
    poisson,
    simulate,
)
from nnbrain.federated.served import load_run, save_run
from nnbrain.mlp import MLP

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from nnbrain.federated.flower import client_app, federate
from nnbrain.federated.local_grid import LocalGrid

mlp = MLP((64, 8, 10))
theta = mlp.init(0, np.float64)
averaging = FedAvg(mlp, 1, 10, 0.1)
X, y, *_ = load_digits()
CLIENTS = [replace(c, id=2 * c.id + 1) for c in make_clients(X, y, np.split(np.arange(120), 6))]


def grid(algorithm):
    return LocalGrid({c.id: client_app(algorithm, lambda context, c=c: c, seed=4) for c in CLIENTS})


def assert_equal(served, simulated):
    np.testing.assert_array_equal(served[0], simulated[0])
    assert [r.clients for r in served[1]] == [r.clients for r in simulated[1]]
    assert not any(r.failed for r in served[1])


class Alternating:
    """A rule that goes by the history, and answers in no order."""

    def __call__(self, state, clients, n, rng, history):
        return [5, 0] if history and history[-1].clients == [CLIENTS[1].id] else [1]


RULES = {
    "poisson": (
        DifferentiallyPrivate(averaging, clients_per_round=1, clip=0.5, noise_multiplier=0.1),
        poisson,
    ),
    "deadline": (averaging, Deadline(range(1, 13), deadline=7.5)),
    "useful": (Valued(averaging, X[120:160], y[120:160], 12), Useful(trials=1)),
    "of the history": (averaging, Alternating()),
}


@pytest.mark.parametrize("name", RULES)
def test_who_is_asked_is_as_in_the_simulation(name):
    algorithm, select = RULES[name]
    options = {"rounds": 8, "client_fraction": 1 / 6, "seed": 4, "select": select}
    served = federate(grid(algorithm), algorithm, theta, **options)
    assert_equal(served, simulate(algorithm, CLIENTS, theta, **options))
    assert len({tuple(r.clients) for r in served[1]}) > (name != "deadline")


def test_a_round_in_which_nobody_is_asked_is_one_of_noise_alone():
    algorithm, select = RULES["poisson"]
    options = {"rounds": 8, "client_fraction": 1 / 6, "seed": 4}
    _, history = federate(grid(algorithm), algorithm, theta, select=select, **options)
    assert [] in [r.clients for r in history]
    with pytest.raises(ValueError, match="got none: nobody"):  # which averaging cannot do without
        federate(grid(averaging), averaging, theta, select=lambda *_: [], **options)


def test_a_rule_that_looks_at_data_is_told_that_they_are_elsewhere():
    with pytest.raises(AttributeError, match="select must do without a client's n_samples: over Flower"):
        federate(
            grid(averaging), averaging, theta, rounds=1, select=PowerOfChoice(mlp, 6), client_fraction=0.5
        )


@pytest.mark.parametrize("chosen", [[0, 0], [6], [-1]])
def test_a_rule_must_return_positions(chosen):
    with pytest.raises(ValueError, match="select"):
        federate(grid(averaging), averaging, theta, rounds=1, select=lambda *_: chosen)


@pytest.mark.parametrize("algorithm", [averaging, Scaffold(mlp, 1, 10, 0.1, total_samples=120)])
def test_an_interrupted_federation_goes_on_with_the_same_bits(algorithm, tmp_path):
    options = {"client_fraction": 0.5, "seed": 4, "checkpoint": tmp_path / "run.npz"}
    nodes = grid(algorithm)  # which have kept what they remember
    _, first = federate(nodes, algorithm, theta, rounds=2, **options)
    resumed = federate(nodes, algorithm, theta, rounds=5, **options)
    options.pop("checkpoint")
    assert_equal(resumed, simulate(algorithm, CLIENTS, theta, rounds=5, **options))
    assert resumed[1][:2] == first


def test_what_was_interrupted_in_a_round_is_that_round_alone(tmp_path):
    """Somebody pulls the plug, in round 3."""
    options = {"client_fraction": 0.5, "seed": 4}
    unplugged = grid(averaging)
    send = unplugged.send_and_receive

    def pull(messages, *, timeout):
        if messages[0].metadata.group_id == "3":
            raise KeyboardInterrupt
        return send(messages, timeout=timeout)

    unplugged.send_and_receive = pull
    path = tmp_path / "run.npz"
    with pytest.raises(KeyboardInterrupt):
        federate(unplugged, averaging, theta, rounds=5, checkpoint=path, **options)
    resumed = federate(grid(averaging), averaging, theta, rounds=5, checkpoint=path, **options)
    assert_equal(resumed, simulate(averaging, CLIENTS, theta, rounds=5, **options))
    with pytest.raises(ValueError, match="of another run: its seed is 4"):
        federate(grid(averaging), averaging, theta, rounds=5, checkpoint=path, **options | {"seed": 5})
    with pytest.raises(ValueError, match="rounds must be at least the 5"):
        federate(grid(averaging), averaging, theta, rounds=4, checkpoint=path, **options)


def test_nodes_that_have_forgotten_what_the_run_needs_say_so(tmp_path):
    algorithm = Scaffold(mlp, 1, 10, 0.1, total_samples=120)
    path = tmp_path / "run.npz"
    federate(grid(algorithm), algorithm, theta, rounds=1, checkpoint=path)
    with pytest.raises(RuntimeError, match="the memory of round 1 is lost"):
        federate(grid(algorithm), algorithm, theta, rounds=2, checkpoint=path)


def test_a_run_comes_back_from_its_file(tmp_path):
    history = [
        Round(1, [2, 5], {"loss": 0.1}, {"seconds": [1.5, 2.5]}, {8: "no answer in time"}),
        Round(2, [8], {"loss": 1 / 3}, {"seconds": [0.1]}),
    ]
    save_run(tmp_path / "run.npz", theta, history)
    again, rounds = load_run(tmp_path / "run.npz")
    np.testing.assert_array_equal(again, theta)
    assert rounds == history
