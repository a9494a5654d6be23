"""Clients and their data: rows of their own, and who is named when there is something wrong with them."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from nnbrain.federated import FedSGD, flip_labels, make_clients, simulate
from nnbrain.mlp import MLP

mlp = MLP((64, 16, 10))
theta = mlp.init(0, np.float64)


@pytest.fixture
def clients(digits):
    """Twelve owners of 20 digits each; the others belong to nobody."""
    X, y, *_ = digits
    return make_clients(X.copy(), y.copy(), np.arange(240).reshape(12, 20))


def test_rows_are_a_clients_own_and_with_data_it_has_others(clients):
    X, y = clients[3].rows
    np.testing.assert_array_equal(X, clients[0].X[60:80])
    np.testing.assert_array_equal(y, clients[0].y[60:80])
    assert not np.shares_memory(X, clients[3].X)
    client = replace(clients[3], memory={"a": np.ones(1)}).with_data(X[:5], y[:5])
    assert (client.id, client.n_samples, list(client.memory)) == (3, 5, ["a"])
    np.testing.assert_array_equal(client.rows[0], X[:5])
    np.testing.assert_array_equal(client.rows[1], y[:5])


def spoil_X(clients, *rows):
    clients[0].X[list(rows), 5] = np.nan


def spoil_y(clients, *rows):
    clients[0].y[list(rows)] = 10


@pytest.mark.parametrize(
    ("spoil", "text"), [(spoil_X, "X must be finite"), (spoil_y, r"y must be in 0\.\.9, got .* to 10")]
)
@pytest.mark.parametrize(
    ("rows", "who"),
    [
        ([145], "client 7"),
        ([145, 71, 150], r"clients \[3, 7\]"),
        ([300], "rows that no client owns"),
        ([300, 0], "client 0"),
        (range(240), r"clients \[0, 1, 2, 3, 4, 5, 6, 7, 8, 9\] and 2 others"),
    ],
)
def test_of_clients_who_share_their_arrays_those_with_bad_rows_are_named(clients, spoil, text, rows, who):
    spoil(clients, *rows)
    with pytest.raises(ValueError, match=f"^{who}: {text}"):
        simulate(FedSGD(mlp), clients, theta, rounds=1)


def test_labels_too_few_are_all_their_owners_fault(clients):
    short = [replace(client, y=client.y[:230]) for client in clients[:2]]
    short = [replace(client, y=short[0].y) for client in short]
    with pytest.raises(ValueError, match=r"^clients \[0, 1\]: y must have shape \(1438,\)"):
        simulate(FedSGD(mlp), short, theta, rounds=1)


def test_a_liar_costs_no_more_than_its_own_rows(clients):
    """Copies of all labels would be 12 times 1438 · 8 bytes, and the shared X would be checked 12 times."""
    tracemalloc.start()
    try:
        liars = flip_labels(clients, range(12), range(9, -1, -1))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * sum(X.nbytes + y.nbytes for X, y in (client.rows for client in clients))
    assert [len(client.X) for client in liars] == [20] * 12
