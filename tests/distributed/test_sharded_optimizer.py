"""A step by pieces against a data-parallel one: the same θ, the same bytes, less to hold."""

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.distributed import Metered, ShardedOptimizer, part_of_gradient, run_ranks, train
from nnbrain.mlp import MLP, SGD, Adam, AdamW, RMSprop, Workspace, fit, run_epoch

X, y, *_ = load_digits()
X, y = X[:90].astype(np.float64), y[:90]
MLPS = MLP((64, 8, 10)), MLP((64, 7, 10))  # 610 and 535 numbers, which 3 and 4, and 2, 3 and 4, do not divide
every_mlp = pytest.mark.parametrize("mlp", MLPS, ids=str)
every_p = pytest.mark.parametrize("p", [1, 2, 3, 4])


def train_by_pieces(comm, mlp, optimizer, epochs=3):
    metered, workspace = Metered(comm), Workspace(mlp, mlp.init(0, np.float64), 20)
    sharded, rng = ShardedOptimizer(metered, optimizer), np.random.default_rng(1)
    state = sharded.init(workspace.theta)

    def gradient(batch):
        return part_of_gradient(comm, workspace, X, y, batch)

    for _ in range(epochs):
        run_epoch(gradient, workspace, sharded, state, len(X), 20, rng)
    return workspace.theta, state, metered.bytes_sent


@every_mlp
@every_p
@pytest.mark.parametrize(
    "optimizer", [SGD(0.1, momentum=0.9), SGD(0.1, 0.9, nesterov=True), RMSprop(), Adam(), AdamW()], ids=str
)
def test_it_trains_as_data_parallel_ranks_do(mlp, p, optimizer):
    """The sums are formed in the same order; only a library's multiply-and-add may round at a cut."""
    options = {"optimizer": optimizer, "epochs": 3, "batch_size": 20, "rng": 1}
    start = mlp.init(0, np.float64)
    whole = run_ranks(p, train, mlp, start, X, y, **options)[0][0]
    serial, _ = fit(mlp, start, X, y, **options)
    results = run_ranks(p, train_by_pieces, mlp, optimizer)
    assert np.abs(whole - start).max() > 1e-3
    for theta, *_ in results:
        np.testing.assert_array_equal(theta, results[0][0])  # replicas: the same bits
        np.testing.assert_allclose(theta, whole, rtol=0, atol=1e-13)
        np.testing.assert_allclose(theta, serial, rtol=0, atol=1e-9)
    if optimizer == SGD(0.1, momentum=0.9):  # NumPy alone, entry by entry
        np.testing.assert_array_equal(results[0][0], whole)


@every_mlp
@every_p
def test_it_sends_what_an_allreduce_sends_and_remembers_a_piece(mlp, p):
    """eq-ring-bytes, eq-numbers-held: two vectors of state, each cut over the ranks."""
    results, steps = run_ranks(p, train_by_pieces, mlp, Adam()), 3 * 5
    lengths = [len(piece) for piece in np.array_split(np.empty(mlp.size), p)]
    for rank, (_, state, sent) in enumerate(results):
        # it passes on all pieces of the gradient but its own, and of theta but its right neighbour's
        mine, right = lengths[(rank + 1) % p], lengths[(rank + 2) % p]
        assert sent == (steps * 8 * (2 * mlp.size - mine - right) if p > 1 else 0)
        assert [v.size for v in state.values() if v.ndim] == [mine, mine]
    assert sum(sent for *_, sent in results) == steps * 8 * 2 * (p - 1) * mlp.size


def test_the_state_of_another_rank_is_refused():
    """What would happen if all ranks read the one state that rank 0 has saved."""

    def program(comm, saved):
        theta = np.zeros(10)
        ShardedOptimizer(comm, Adam()).update(theta, np.ones(10), saved)

    saved = run_ranks(2, lambda comm: ShardedOptimizer(comm, Adam()).init(np.zeros(10)))[0]
    with pytest.raises(ValueError, match="state must be of piece 0, got piece 1's"):
        run_ranks(2, program, saved)
