"""Unequal partitions: nothing lost, nothing twice, nobody empty, and as unequal as they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnbrain.federated import make_clients, partition_dirichlet, partition_quantity, transform_clients


@given(
    k=st.integers(1, 60),
    concentration=st.sampled_from([1e-3, 0.1, 1.0, 100.0]),
    minimum=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_dirichlet_parts_lose_and_duplicate_nothing_and_nobody_is_empty(k, concentration, minimum, seed):
    y = np.random.default_rng(seed).integers(0, 7, 300)
    parts = partition_dirichlet(y, k, concentration, seed, minimum)
    assert len(parts) == k
    assert sorted(np.concatenate(parts)) == list(range(300))
    assert min(map(len, parts)) >= minimum


@given(
    n=st.integers(1, 300),
    k=st.integers(1, 60),
    spread=st.floats(0, 5),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_quantity_parts_lose_and_duplicate_nothing_and_nobody_is_empty(n, k, spread, seed, data):
    k = min(n, k)
    minimum = data.draw(st.integers(1, n // k))
    parts = partition_quantity(n, k, spread, seed, minimum)
    assert len(parts) == k
    assert sorted(np.concatenate(parts)) == list(range(n))
    assert min(map(len, parts)) >= minimum
    if spread == 0:
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_shares_of_a_label_vary_as_dirichlet_shares_do():
    """A share's variance is (1/K)(1 - 1/K)/(K α + 1): here over 1,000 labels, 5 clients, α = 0.5."""
    y = np.repeat(np.arange(1000), 200)
    parts = partition_dirichlet(y, 5, 0.5, 0)
    shares = np.array([np.bincount(y[part], minlength=1000) for part in parts]) / 200
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-12)
    assert shares.mean() == pytest.approx(0.2, abs=1e-12)
    assert shares.var() == pytest.approx(0.2 * 0.8 / 3.5, rel=0.06)


def test_logarithms_of_sizes_spread_as_told():
    sizes = [len(part) for part in partition_quantity(2_000_000, 1000, 1.0, 0)]
    assert np.std(np.log(sizes)) == pytest.approx(1.0, rel=0.08)


def test_a_seed_gives_one_partition_and_another_another():
    y = np.arange(200) % 5
    for deal in (lambda s: partition_dirichlet(y, 8, 0.5, s), lambda s: partition_quantity(200, 8, 1.0, s)):
        first, again, other = deal(0), deal(0), deal(1)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_transformed_clients_have_copies_of_their_own_rows_and_eyes_of_their_own():
    X, y = np.ones((6, 4), np.float32), np.arange(6)
    clients = make_clients(X, y, [np.array([4, 1]), np.array([0, 2, 5])])
    seen = transform_clients(clients, lambda X, rng: X * rng.uniform(2, 3), 0)
    assert [client.id for client in seen] == [0, 1]
    assert [client.y[client.index].tolist() for client in seen] == [[4, 1], [0, 2, 5]]
    assert [client.X.shape for client in seen] == [(2, 4), (3, 4)]
    assert all(client.X.dtype == np.float32 and not np.shares_memory(client.X, X) for client in seen)
    assert len({float(client.X[0, 0]) for client in seen}) == 2
    assert all(np.ptp(client.X) == 0 for client in seen)
    np.testing.assert_array_equal(X, 1)


def spoil(X, rng):
    X[:] = 0
    return X


def test_a_transform_cannot_change_the_data_of_others():
    X, y = np.ones((3, 2)), np.arange(3)
    transform_clients(make_clients(X, y, [np.arange(3)]), spoil, 0)
    np.testing.assert_array_equal(X, 1)


two = np.array([0, 1])
some = make_clients(np.ones((2, 1)), two, [two])
BAD = {
    "concentration": (lambda: partition_dirichlet(two, 1, 0, 0), ValueError, "concentration .* > 0, got 0"),
    "labels": (lambda: partition_dirichlet([0.5], 1, 1, 0), TypeError, "y must hold integer .* float64"),
    "clients": (lambda: partition_dirichlet(two, 3, 1, 0), ValueError, "n_clients .* 2 samples .* got 3"),
    "minimum": (
        lambda: partition_dirichlet(two, 2, 1, 0, 2),
        ValueError,
        "min_samples .* at most 1, .* got 2",
    ),
    "no minimum": (lambda: partition_quantity(2, 2, 1, 0, 0), ValueError, "min_samples .* >= 1, got 0"),
    "spread": (lambda: partition_quantity(2, 2, -1, 0), ValueError, "spread .* >= 0, got -1"),
    "many": (lambda: partition_quantity(2, 3, 1, 0), ValueError, "n_clients .* got 3"),
    "seed": (lambda: partition_quantity(2, 1, 1, -1), ValueError, "rng .* got -1"),
    "shape": (
        lambda: transform_clients(some, lambda X, rng: X[:1], 0),
        ValueError,
        r"transform .*\(2, 1\), got",
    ),
    "NaN": (lambda: transform_clients(some, lambda X, rng: X * np.nan, 0), ValueError, "transform.* 2 NaN"),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
