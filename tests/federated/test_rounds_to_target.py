"""Rounds to an accuracy: the curve they are read off, a run of them, and the rate that needs the fewest."""

import json

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.federated import FedAvg, make_clients, partition_shards, simulate
from nnbrain.federated.rounds_to_target import (
    Cell,
    Curve,
    Run,
    rate_beyond,
    rounds_to_target,
    run,
    runs_at_best_rate,
    tune,
)
from nnbrain.mlp import MLP

data = load_digits()
cell = Cell("shards", 0.2, 10, 1, 20, (64, 32, 10), 0.85)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([0.1, 0.5, 0.96, 0.98], 2.5),
        ([0.1, 0.97], 1.0),
        ([0.1, 0.5, 0.5, 0.97, 0.99], 3.0),
        ([0.99, 0.99], 0.0),
        ([0.1, 0.969], None),
    ],
)
def test_rounds_to_target_are_read_off_a_straight_line(curve, expected):
    assert rounds_to_target(curve, 0.97) == (None if expected is None else pytest.approx(expected))


def test_the_curve_is_the_best_accuracy_so_far_though_not_all_is_looked_at():
    """Against `MLP.accuracy` on all test data; shards, so that the accuracy falls as often as it rises."""
    mlp = MLP(cell.sizes)
    theta = mlp.init(3)
    clients = make_clients(data.X_train, data.y_train, partition_shards(data.y_train, 20, 3))
    plain = [mlp.accuracy(theta, data.X_test, data.y_test)]
    curve = Curve(mlp, theta, data.X_test, data.y_test, block=50)

    def evaluate(theta):
        plain.append(mlp.accuracy(theta, data.X_test, data.y_test))
        return curve.evaluate(theta)

    _, history = simulate(
        FedAvg(mlp, learning_rate=0.3), clients, theta, rounds=30, client_fraction=0.1, evaluate=evaluate
    )
    curve.take_over(history)
    assert np.any(np.diff(plain) < 0)
    np.testing.assert_allclose(curve.values, np.maximum.accumulate(plain), rtol=0, atol=1e-12)


def test_a_run_stops_where_the_target_is_reached_and_resumes_with_the_same_result(tmp_path):
    settings = {"learning_rate": 0.1, "seed": 1}
    whole = run(cell, data, limit=200, **settings)
    assert whole.rounds is not None
    assert 0 < whole.rounds < 200
    assert whole.best_accuracy >= 0.85
    path = tmp_path / "run.npz"
    part = run(cell, data, limit=5, checkpoint=path, **settings)
    assert part.rounds is None
    assert part.best_accuracy < 0.85
    resumed = run(cell, data, limit=200, checkpoint=path, **settings)
    assert resumed.rounds == whole.rounds
    assert resumed.best_accuracy == whole.best_accuracy
    with np.load(path) as file:  # it did not go on to the limit
        assert len(json.loads(file["history"].tobytes())) == np.ceil(whole.rounds)


def test_tuning_takes_the_first_at_the_target_and_gives_up_the_others_early():
    rounds = {(0.1, 0): 40.5, (0.2, 0): 20.25, (0.4, 0): None, (0.2, 1): 22.0, (0.2, 2): None}
    asked = []

    def train(rate, seed, limit):
        asked.append((rate, seed, limit))
        return Run(cell, rate, seed, limit, rounds[rate, seed], 0.5, False, 0.0)

    runs = tune([0.1, 0.2, 0.4], [0, 1, 2], 100, train)
    assert asked == [(0.1, 0, 100), (0.2, 0, 41), (0.4, 0, 21), (0.2, 1, 100), (0.2, 2, 100)]
    assert [(r.learning_rate, r.seed, r.rounds) for r in runs_at_best_rate(runs)] == [
        (0.2, 0, 20.25),
        (0.2, 1, 22.0),
        (0.2, 2, None),
    ]


def valley(best, needed=10.0, limit=100):
    """Return a made-up `train`, in which the rounds double with each halving or doubling of the best rate."""
    asked = []

    def train(rate, seed, limit):
        asked.append((rate, seed, limit))
        rounds = needed * max(rate / best, best / rate)
        return Run(cell, rate, seed, limit, rounds if rounds <= limit else None, 1 / rounds, False, 0.0)

    return train, asked


@pytest.mark.parametrize(
    ("grid", "best", "beyond", "found"),
    [
        ([0.2, 0.1, 0.4, 0.05], 0.1, [], 0.1),
        ([0.4, 0.8, 0.2, 0.1], 1.6, [1.6, 3.2], 1.6),
        ([0.2, 0.1, 0.4, 0.05], 0.0125, [0.025, 0.0125, 0.00625], 0.0125),
        ([0.2, 0.1, 0.4, 0.05], 1e-3, [0.025, 0.0125, 0.00625], 0.00625),
        ([0.4, 0.8, 0.2, 0.1], 1e3, [1.6, 3.2, 6.4], 6.4),
        ([0.3, 0.1], 0.9, [0.9], 0.9),
    ],
)
def test_tuning_goes_beyond_the_grid_until_the_best_rate_lies_inside(grid, best, beyond, found):
    """By the ratio of the last two, exactly as typed; by a factor of eight and no farther."""
    train, asked = valley(best)
    runs = tune(grid, [0, 1], 10**6, train, extend=True)
    assert [rate for rate, _, _ in asked] == [*grid, *beyond, found]
    assert [(r.learning_rate, r.seed) for r in runs_at_best_rate(runs)] == [(found, 0), (found, 1)]
    first = [r for r in runs if r.seed == 0]
    assert rate_beyond(grid, first) is None
    limits = [limit for _, seed, limit in asked if seed == 0]  # given up as soon as another is better
    least = np.minimum.accumulate([10**6, *(np.inf if r.rounds is None else r.rounds for r in first)])
    assert limits == np.ceil(least[:-1]).tolist()
    assert asked[-1] == (found, 1, 10**6)
    plain, seen = valley(best)
    tune(grid, [0], 10**6, plain)
    assert [rate for rate, _, _ in seen] == grid


def test_a_grid_of_one_rate_cannot_be_extended():
    with pytest.raises(
        ValueError, match=r"learning_rates must be two or more to go beyond them, got \[0.1\]"
    ):
        tune([0.1], [0], 100, valley(1.0)[0], extend=True)
