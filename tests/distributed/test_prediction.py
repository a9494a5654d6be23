"""Rows shared out among ranks, and their answers collected."""

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.distributed import open_shards, predict, rows_of_rank, run_ranks, write_shards
from nnbrain.mlp import MLP, fit

X, y, *_ = load_digits()
mlp = MLP((64, 8, 10))
theta, _ = fit(mlp, mlp.init(0), X, y, epochs=2)


@pytest.mark.parametrize("p", range(1, 9))
@pytest.mark.parametrize("block", [1, 7, 64])
def test_rows_of_rank(p, block):
    """eq-rows-of-rank: as NumPy cuts an array of blocks; every row once, in order."""
    for n in (0, 1, p - 1, p, p + 1, 100, 1438):
        ranges = [rows_of_rank(r, p, n, block) for r in range(p)]
        parts = np.array_split(np.arange(0, n, block), p)
        assert [len(range(r.start, r.stop, block)) for r in ranges] == [len(part) for part in parts]
        assert [row for r in ranges for row in r] == list(range(n))


@pytest.mark.parametrize("p", [1, 2, 3, 4, 7])
def test_any_number_of_ranks_gives_the_answers_of_one(p, tmp_path):
    write_shards(tmp_path / "digits", zip(np.split(X, [700]), np.split(y, [700]), strict=True))
    shards, _ = open_shards(tmp_path / "digits")
    for rows in (X, shards):
        first, *others = run_ranks(p, predict, mlp, theta, rows, 300)  # 5 blocks: for 7 ranks too few
        np.testing.assert_array_equal(first, mlp.predict(theta, X))
        assert others == [None] * (p - 1)


def test_other_losses_answer_in_their_own_shape():
    values = MLP((64, 3), loss="mse")
    t = values.init(0, np.float64)
    got = run_ranks(3, predict, values, t, X[:50].astype(float), 8)[0]
    np.testing.assert_allclose(got, values.predict(t, X[:50]), rtol=0, atol=1e-14)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="block must be an integer >= 1, got 0"):
        run_ranks(2, predict, mlp, theta, X, 0)
    with pytest.raises(ValueError, match=r"X must have shape \(n, 64\), got \(300, 9\)"):
        run_ranks(2, predict, mlp, theta, X[:300, :9])
    with pytest.raises(ValueError, match="at least one row"):
        run_ranks(2, predict, mlp, theta, X[:0])
    with pytest.raises(ValueError, match=r"rank must be in 0\.\.1, got 2"):
        rows_of_rank(2, 2, 5)
