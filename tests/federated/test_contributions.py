"""What an update is worth: against all orders of arrival, and against what any fair share must be."""

from itertools import permutations

import numpy as np
import pytest

from nnbrain.federated import (
    Adaptive,
    DifferentiallyPrivate,
    FedAvg,
    FedOpt,
    Scaffold,
    Update,
    Useful,
    Valued,
    flip_labels,
    make_clients,
    partition_iid,
    shapley,
    simulate,
)
from nnbrain.mlp import MLP

mlp = MLP((64, 8, 10))
theta = mlp.init(0, np.float64)


@pytest.fixture(scope="module")
def federation(digits):
    """The server's forty digits, and twelve clients who have sixty each."""
    X, y, *_ = digits
    parts = [40 + part for part in partition_iid(720, 12, 0)]
    return X[:40], y[:40], make_clients(X, y, parts)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_players_value_is_what_it_adds_on_average_over_all_orders(n):
    """eq-shapley."""
    rng = np.random.default_rng(n)
    table = {}

    def worth(group):
        return table.setdefault(group, float(rng.normal()))

    found = shapley(worth, n)
    assert len(table) == 2**n
    added = np.zeros(n)
    orders = list(permutations(range(n)))
    for order in orders:
        for i, k in enumerate(order):
            before = order[:i]
            added[k] += table[tuple(sorted((*before, k)))] - table[tuple(sorted(before))]
    np.testing.assert_allclose(found, added / len(orders), atol=1e-14)
    assert found.sum() == pytest.approx(table[tuple(range(n))] - table[()], abs=1e-14)


def test_equal_players_share_equally_and_who_adds_nothing_gets_nothing():
    """Gloves: a right one and three left ones make one pair; player 4 has none. 3/4, and 1/12 each."""
    np.testing.assert_allclose(
        shapley(lambda A: float(0 in A and any(k in A for k in (1, 2, 3))), 5),
        [3 / 4, 1 / 12, 1 / 12, 1 / 12, 0],
        atol=1e-15,
    )


algorithms = {
    "FedAvg": FedAvg(mlp, 1, 20, 0.2),
    "Scaffold": Scaffold(mlp, 1, 20, 0.2, total_samples=720),
    "FedOpt": FedOpt(FedAvg(mlp, 1, 20, 0.2), Adaptive("adam", 0.05)),
}


@pytest.mark.parametrize("name", algorithms)
def test_theta_goes_its_way_and_the_values_of_a_round_sum_to_its_progress(federation, name):
    X, y, clients = federation
    algorithm, thetas = algorithms[name], [theta]
    options = {"rounds": 4, "client_fraction": 0.25, "seed": 3}
    plain, _ = simulate(algorithm, clients, theta, evaluate=lambda t: thetas.append(t) or {}, **options)
    states = []

    class Watched(Valued):
        def server_update(self, state, updates):
            states.append(super().server_update(state, updates))
            return states[-1]

    valued, history = simulate(Watched(algorithm, X, y, 12), clients, theta, **options)
    np.testing.assert_array_equal(valued, plain)
    progress = -np.diff([mlp.mean_loss(t, X, y) for t in thetas])
    totals = [state["value"].sum() for state in states]
    np.testing.assert_allclose(np.diff([0, *totals]), progress, atol=1e-12)
    taken = np.bincount(np.concatenate([r.clients for r in history]), minlength=12)
    np.testing.assert_array_equal(states[-1]["valued"], taken)
    assert np.all(states[-1]["value"][taken == 0] == 0)
    assert np.all(states[-1]["value"][taken > 0] != 0)


def test_clients_who_swap_labels_are_found_where_the_others_are_alike(federation):
    X, y, clients = federation
    liars = {2, 5, 9}
    poisoned, asked = flip_labels(clients, liars, range(9, -1, -1)), np.zeros(12)
    rule = Useful(1)
    algorithm = Valued(FedAvg(mlp, 3, 20, 0.3), X, y, 12)
    _, history = simulate(algorithm, poisoned, theta, rounds=15, client_fraction=1 / 3, select=rule)
    for round in history[-8:]:
        asked[round.clients] += 1
    assert asked[list(liars)].sum() == 0
    assert asked.sum() == 8 * 4


def test_where_nobody_came_nobody_is_valued(federation):
    """Noise alone moves θ in such a round, and it is nobody's merit."""
    X, y, _ = federation
    private = DifferentiallyPrivate(FedAvg(mlp), 3, 1.0, 1.0)
    valued = Valued(private, X, y, 12)
    after = valued.server_update(valued.init(theta), [])
    np.testing.assert_array_equal(
        after["theta"], private.server_update(private.init(theta), [])["theta"], strict=True
    )
    assert not after["value"].any()
    assert not after["valued"].any()
    assert not np.array_equal(after["theta"], theta)


def test_other_samples_make_another_run(federation):
    X, y, _ = federation
    one, same, other = (Valued(algorithms["FedAvg"], A, y, 12) for A in (X, X.copy(), X + 1))
    assert str(one) == str(same) != str(other)
    assert one == same != other


def test_bad_input_is_refused(federation):
    X, y, clients = federation
    with pytest.raises(ValueError, match="n must be at most 12, as 2\\*\\*n groups are looked at, got 13"):
        shapley(lambda A: 0.0, 13)
    with pytest.raises(ValueError, match="n_clients must be an integer >= 1, got 0"):
        Valued(algorithms["FedAvg"], X, y, 0)
    with pytest.raises(ValueError, match=r"ids in 0\.\.4, as n_clients of Valued says, got \[5, 6, 7, 8, 9"):
        simulate(Valued(algorithms["FedAvg"], X, y, 5), clients, theta, rounds=1)
    valued = Valued(algorithms["FedAvg"], X, y, 12)
    stranger = Update(-1, np.zeros_like(theta), 1, 0.0)
    with pytest.raises(ValueError, match=r"ids in 0\.\.11, as n_clients of Valued says, got \[-1\]"):
        valued.server_update(valued.init(theta), [stranger])
    with pytest.raises(ValueError, match="vectors must be one or more, got none: nobody took part"):
        valued.server_update(valued.init(theta), [])
    with pytest.raises(ValueError, match="y must have shape"):
        simulate(Valued(algorithms["FedAvg"], X, y[:9], 12), clients, theta, rounds=1)
