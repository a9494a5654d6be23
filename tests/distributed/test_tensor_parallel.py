"""Layers cut over ranks against the whole network: forward, gradient, steps, bytes."""

import numpy as np
import pytest

from nnbrain.distributed import Metered, TensorCut, TensorParallel, ring_allreduce, run_ranks
from nnbrain.mlp import MLP, SGD, fit, run_epoch

RNG = np.random.default_rng(5)
X, Y = RNG.normal(size=(9, 6)), RNG.integers(0, 4, 9)
DEPTHS = [(6, 4), (6, 7, 4), (6, 7, 5, 4), (6, 9, 5, 8, 4)]


def network(sizes, activation="tanh", loss="cross_entropy"):
    mlp = MLP(sizes, activation=activation, loss=loss)
    theta = mlp.init(1, np.float64)
    return mlp, theta + 0.1 * np.random.default_rng(2).normal(size=theta.shape)  # biases too


def on_all_ranks(cut, theta, X, y):
    """Return each rank's logits, loss, part of the gradient, and its meter."""

    def program(comm):
        metered = Metered(comm)
        ours = TensorParallel(metered, cut, cut.split(theta)[comm.Get_rank()], len(X))
        loss = ours.loss_and_grad(X, y)
        sent = metered.bytes_sent, metered.messages_sent
        return ours.forward(X).copy(), loss, ours.grad, sent

    return run_ranks(cut.ranks, program)


@pytest.mark.parametrize("sizes", DEPTHS)
@pytest.mark.parametrize(("p", "shares"), [(1, None), (2, None), (3, (1, 3, 2)), (4, None)])
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_the_parts_compute_what_the_whole_does(sizes, p, shares, activation):
    """eq-tensor-forward, eq-tensor-backward: uneven parts, odd and even numbers of layers."""
    mlp, theta = network(sizes, activation)
    cut = TensorCut(mlp, p, shares)
    loss, grad = mlp.loss_and_grad(theta, X, Y)
    logits, losses, parts, _ = zip(*on_all_ranks(cut, theta, X, Y), strict=True)
    np.testing.assert_allclose(logits[0], mlp.forward(theta, X), rtol=0, atol=1e-12)
    np.testing.assert_allclose(cut.join(parts), grad, rtol=0, atol=1e-12)
    for other, other_loss in zip(logits, losses, strict=True):
        np.testing.assert_array_equal(other, logits[0])  # bit for bit, so that all take the same step
        assert other_loss == losses[0] == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy"])
def test_every_loss_and_float32(loss):
    mlp, theta = network((6, 5, 3), "relu", loss)
    y = RNG.integers(0, 2, (9, 3)).astype(float)
    _, grad = mlp.loss_and_grad(theta, X, y)
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        cut = TensorCut(mlp, 2)
        parts = [part for _, _, part, _ in on_all_ranks(cut, theta.astype(dtype), X, y)]
        assert parts[0].dtype == dtype
        np.testing.assert_allclose(cut.join(parts), grad, rtol=0, atol=tolerance)


@pytest.mark.parametrize("sizes", DEPTHS)
def test_every_number_of_theta_is_on_one_rank(sizes):
    mlp, _ = network(sizes)
    theta = np.arange(1.0, mlp.size + 1)
    cut = TensorCut(mlp, 3, (1, 2, 2))
    parts = cut.split(theta)
    assert [len(part) for part in parts] == [cut.thin(rank).size for rank in range(3)]
    held = np.concatenate(parts)
    np.testing.assert_array_equal(np.sort(held[held > 0]), theta)
    np.testing.assert_array_equal(cut.join(parts), theta)


def test_a_hidden_layer_s_logits_are_a_sum_of_thin_networks_logits():
    """eq-tensor-forward: with one hidden layer, Σ of the thin networks' own forward passes."""
    mlp, theta = network((6, 7, 4))
    cut = TensorCut(mlp, 3, (4, 2, 1))
    assert [cut.thin(rank).sizes for rank in range(3)] == [(6, 4, 4), (6, 2, 4), (6, 1, 4)]
    total = sum(cut.thin(rank).forward(part, X) for rank, part in enumerate(cut.split(theta)))
    np.testing.assert_allclose(total, mlp.forward(theta, X), rtol=0, atol=1e-12)


def test_an_odd_number_of_layers_reads_only_a_rank_s_columns_of_x():
    mlp, theta = network((6, 7, 5, 4))
    cut = TensorCut(mlp, 3)
    expected = on_all_ranks(cut, theta, X, Y)

    def program(comm):
        mine = np.full_like(X, 1e9)
        columns = cut.units(comm.Get_rank())[0]
        mine[:, columns] = X[:, columns]
        return TensorParallel(comm, cut, cut.split(theta)[comm.Get_rank()], 9).forward(mine).copy()

    np.testing.assert_array_equal(run_ranks(3, program)[1], expected[1][0])


@pytest.mark.parametrize("sizes", DEPTHS)
def test_bytes_of_a_step(sizes):
    """eq-tensor-bytes: 2 (p - 1)/p B s (2 Σ d - d_L), the sum over the layers that are whole."""
    mlp, theta = network(sizes)
    p, n = 3, len(X)  # 9 rows: pieces of the ring are equal
    whole = [d for level, d in enumerate(sizes) if level and (len(sizes) - 1 - level) % 2 == 0]
    for _, _, _, (sent, messages) in on_all_ranks(TensorCut(mlp, p), theta, X, Y):
        assert sent == 2 * (p - 1) / p * n * 8 * (2 * sum(whole) - sizes[-1])
        assert messages == 2 * (p - 1) * (2 * len(whole) - 1)


def test_tensor_against_data_parallel_bytes():
    """eq-cut-crossover: (L - 1) B / (L (d + 1)) for equally wide layers, about B/d if they are many."""
    layers, d, n, p = 10, 40, 20, 3
    mlp = MLP((d,) * (layers + 1))
    x, y = RNG.normal(size=(n, d)), RNG.integers(0, d, n)
    sent = sum(meter[0] for *_, meter in on_all_ranks(TensorCut(mlp, p), mlp.init(0, np.float64), x, y))

    def data_parallel(comm):
        metered = Metered(comm)
        ring_allreduce(metered, np.zeros(mlp.size))
        return metered.bytes_sent

    ratio = sent / sum(run_ranks(p, data_parallel))
    assert ratio == pytest.approx((layers - 1) * n / (layers * (d + 1)), rel=1e-12)
    assert ratio == pytest.approx(n / d, rel=1 / layers + 1 / d)


@pytest.mark.parametrize("sizes", [(6, 7, 4), (6, 7, 5, 4)])
def test_steps_are_those_of_one_rank(sizes):
    """SGD with momentum, a short last batch: the others' zero biases stay zero."""
    mlp, theta = network(sizes)
    optimizer = SGD(0.1, momentum=0.9)
    expected, history = fit(mlp, theta, X, Y, optimizer=optimizer, epochs=4, batch_size=4, rng=3)
    cut = TensorCut(mlp, 3, (3, 2, 1))

    def program(comm):
        ours = TensorParallel(comm, cut, cut.split(theta)[comm.Get_rank()], 4)
        state, rng = optimizer.init(ours.theta), np.random.default_rng(3)

        def gradient(batch):
            return ours.loss_and_grad(X[batch], Y[batch])

        return ours.theta, [run_epoch(gradient, ours, optimizer, state, 9, 4, rng) for _ in range(4)]

    results = run_ranks(3, program)
    np.testing.assert_allclose(cut.join([part for part, _ in results]), expected, rtol=0, atol=1e-12)
    assert results[2][1] == pytest.approx(history.loss, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, (1,)), "shares must have one entry for each of 2 ranks, got 1"),
        ((2, (1, 0)), r"shares\[1\] must be finite and > 0, got 0"),
        ((0,), "ranks must be an integer >= 1, got 0"),
        ((8,), "leave every rank a unit in each layer that is cut; rank 4 gets none of the 7 in layer 1"),
        ((2, (1, 99)), "rank 0 gets none of the 7 in layer 1"),
    ],
)
def test_a_cut_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TensorCut(MLP((6, 7, 4)), *arguments)


def test_parts_and_batches_that_do_not_fit_are_refused():
    mlp, theta = network((6, 7, 4))
    cut = TensorCut(mlp, 2)
    parts = cut.split(theta)
    with pytest.raises(ValueError, match="parts must have one vector for each of 2 ranks, got 1"):
        cut.join(parts[:1])
    with pytest.raises(ValueError, match=r"parts\[0\] must have shape"):
        cut.join(parts[::-1])
    with pytest.raises(ValueError, match="theta must have shape"):
        cut.split(theta[1:])
    for wrong, message in (
        (lambda c: TensorParallel(c, TensorCut(mlp, 3), parts[0], 9), "cut must be for the 2 ranks"),
        (lambda c: TensorParallel(c, cut, theta, 9), "theta must have shape"),
        (
            lambda c: TensorParallel(c, cut, parts[c.Get_rank()], 8).loss_and_grad(X, Y),
            "at most batch_size = 8",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            run_ranks(2, wrong)
