"""A table cut by columns trains to the θ of the joint table."""

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.distributed import Metered, run_ranks
from nnbrain.federated import FeatureOwner, FixedPoint, LabelOwner, VerticalCut, train_vertical
from nnbrain.mlp import MLP, SGD, Adam, fit

X, y, _, _ = load_digits()
X, y = X[:301].astype(np.float64), y[:301]
halves = [np.arange(32), np.arange(32, 64)]
unequal = [np.arange(0, 64, 7), np.setdiff1d(np.arange(64), np.r_[np.arange(0, 64, 7), 5]), np.array([5])]


def train(mlp, columns, theta, X, y, **options):
    """Return the joined θ, the losses, and what each rank sent."""
    cut = VerticalCut(mlp, columns)

    def program(comm):
        metered, rank = Metered(comm), comm.Get_rank()
        part = cut.split(theta)[rank]
        if rank:
            party = FeatureOwner(X[:, cut.columns[rank - 1]], part)
        else:
            party = LabelOwner(mlp, y, part, options["batch_size"])
        with np.errstate(over="ignore", invalid="ignore"):  # a thread has its own
            losses = train_vertical(metered, party, n_samples=len(X), **options)
        return party.theta, losses, metered.bytes_sent

    parts, losses, sent = zip(*run_ranks(cut.ranks, program), strict=True)
    return cut.join(parts), losses[0], sent


@pytest.mark.parametrize("columns", [halves, unequal, [np.arange(64)]], ids=["halves", "unequal", "one"])
@pytest.mark.parametrize(
    ("optimizer", "l2"),
    [(SGD(0.3), 0.0), (SGD(0.05, momentum=0.9), 1e-3), (Adam(1e-3), 0.01)],
    ids=["sgd", "momentum", "adam"],
)
def test_vertical_training_ends_at_the_joint_theta(columns, optimizer, l2):
    """eq-vertical-sum, eq-vertical-gradient: 40 steps, the last batch of an epoch smaller."""
    mlp = MLP((64, 20, 15, 10))
    theta = mlp.init(0, np.float64)
    options = {"optimizer": optimizer, "epochs": 4, "batch_size": 32, "rng": 3, "l2": l2}
    joint, history = fit(mlp, theta, X, y, **options)
    apart, losses, _ = train(mlp, columns, theta, X, y, **options)
    assert np.abs(joint - theta).max() > 0.02
    np.testing.assert_allclose(apart, joint, rtol=0, atol=1e-12 * np.abs(joint).max())
    np.testing.assert_allclose(losses, history.loss, rtol=1e-12)


@pytest.mark.parametrize(
    ("mlp", "target"),
    [
        (MLP((64, 10)), y),
        (MLP((64, 12, 10), activation="tanh"), y),
        (MLP((64, 12, 1), loss="binary_cross_entropy"), y == 8),
        (MLP((64, 9, 3), activation="gelu", loss="mse"), X[:, :3]),
    ],
    ids=["no hidden layer", "tanh", "binary", "mse"],
)
def test_other_networks(mlp, target):
    theta = mlp.init(1, np.float64)
    options = {"optimizer": SGD(0.1), "epochs": 2, "batch_size": 50, "rng": 0, "l2": 1e-3}
    joint, _ = fit(mlp, theta, X, target, **options)
    apart, _, _ = train(mlp, halves, theta, X, target, **options)
    np.testing.assert_allclose(apart, joint, rtol=0, atol=1e-12)


def test_bytes():
    """eq-vertical-bytes: each owner sends n d_1 numbers an epoch and is sent as many, however wide it is."""
    mlp = MLP((64, 20, 10))
    options = {"epochs": 2, "batch_size": 32}
    _, _, sent = train(mlp, unequal, mlp.init(0), X.astype(np.float32), y, **options)
    one_way = 2 * 301 * 20 * 4
    assert sent == (3 * one_way, one_way, one_way, one_way)


def test_the_label_owner_needs_only_the_sum():
    """Masked as in secure aggregation, the parts look like noise, and the sum is right to rounding."""
    mlp = MLP((64, 20, 10))
    theta, rows = mlp.init(0, np.float64), np.arange(40)
    cut = VerticalCut(mlp, unequal)
    parts = cut.split(theta)
    owners = [FeatureOwner(X[:, mine], part) for mine, part in zip(cut.columns, parts[1:], strict=True)]
    code = FixedPoint(bits=32, fraction_bits=20)
    open_parts = [code.encode(owner.forward(rows), n_summands=3) for owner in owners]
    rng = np.random.default_rng(0)
    masks = rng.integers(2**32, size=(3, 40, 20), dtype=np.uint32)  # of pairs (0, 1), (0, 2), (1, 2)
    signs = [(1, 1, 0), (-1, 0, 1), (0, -1, -1)]
    sent = [
        part + sum((np.uint32(s % 2**32) * m for s, m in zip(row, masks, strict=True)), np.uint32(0))
        for part, row in zip(open_parts, signs, strict=True)
    ]
    total = code.decode(sum(sent[1:], sent[0]))
    exact = X[rows] @ mlp.layers(theta)[0].W
    assert np.abs(total - exact).max() <= 3 * 2**-21
    for plain, masked in zip(open_parts, sent, strict=True):
        assert abs(np.corrcoef(code.decode(plain).ravel(), code.decode(masked).ravel())[0, 1]) < 0.15
    gradients = []
    for z in (total, exact):
        owner = LabelOwner(mlp, y, parts[0].copy(), 40)
        owner.loss_and_delta(rows, z.copy())
        gradients.append(owner.grad.copy())
    np.testing.assert_allclose(*gradients, rtol=0, atol=1e-5)


def test_blame_tells_labels():
    """eq-label-leak: without a hidden layer owners are sent (p - Y)/n, negative at the label alone."""
    mlp = MLP((64, 10))
    theta, rows = mlp.init(0, np.float64), np.arange(50)
    owner = LabelOwner(mlp, y, VerticalCut(mlp, halves).split(theta)[0], 50)
    _, delta = owner.loss_and_delta(rows, X[rows] @ mlp.layers(theta)[0].W)
    np.testing.assert_array_equal(delta.argmin(axis=1), y[rows])
    assert np.all((delta < 0).sum(axis=1) == 1)
    np.testing.assert_allclose(
        delta, (mlp.predict_proba(theta, X[rows]) - np.eye(10)[y[rows]]) / 50, rtol=0, atol=1e-15
    )


def test_exponents_commute():
    """eq-blind-match: blinded by both, in either order, equal names are equal and others are not.

    The chapter's q and (q - 1)/2 are prime (Fermat's test, for three bases), so that each power of squares
    can be undone, and tells nothing of the exponent's remainders, as it would if q - 1 had small factors.
    """
    q = 2**512 - 38117
    half = (q - 1) // 2
    assert all(pow(base, n - 1, n) == 1 for base in (2, 3, 5) for n in (q, half))
    u, v = 3**200 % half, 5**150 % half
    names = [7**198 % q, 11**160 % q, 13**140 % q]
    one = [pow(pow(h, u, q), v, q) for h in names]
    other = [pow(pow(h, v, q), u, q) for h in names]
    assert one == other
    assert len({*one, *names}) == 6
    assert [pow(h, pow(u * v, -1, half), q) for h in one] == names
    assert {pow(h, half, q) for h in (*names, *one)} == {1}


def test_split_and_join():
    mlp = MLP((64, 20, 10))
    cut = VerticalCut(mlp, unequal)
    theta = mlp.init(0)
    parts = cut.split(theta)
    assert sum(len(part) for part in parts) == mlp.size
    np.testing.assert_array_equal(cut.join(parts), theta)
    parts[0][:] = 0
    assert theta[64 * 20 + 20 :].any()  # parts are copies
    with pytest.raises(ValueError, match="parts must have shapes"):
        cut.join(parts[:2])
    for columns, found in (
        ([np.arange(33), np.arange(32, 64)], r"more than one of \[32\]"),
        ([np.arange(1, 63)], r"no owner of \[0, 63\]"),
        ([np.arange(63), [-1, 64]], r"no owner of \[63\], unknown \[-1, 64\]"),
        ([], r"no owner of \[0, 1, 2, .*, 63\]"),
    ):
        with pytest.raises(
            ValueError, match=rf"columns must give each of 0\.\.63 to one owner, got {found}$"
        ):
            VerticalCut(mlp, columns)
    with pytest.raises(TypeError, match=r"columns\[1\] must be one or more integers"):
        VerticalCut(mlp, [np.arange(64), []])


def test_bad_input():
    mlp = MLP((64, 20, 10))
    parts = VerticalCut(mlp, halves).split(mlp.init(0))
    with pytest.raises(ValueError, match="X must have shape"):
        FeatureOwner(X[:, :33], parts[1])
    with pytest.raises(ValueError, match="X must be finite"):
        FeatureOwner(np.full((3, 32), np.nan), parts[1])
    with pytest.raises(ValueError, match="theta must have shape"):
        LabelOwner(mlp, y, parts[1], 10)
    owner = FeatureOwner(X[:, :32], parts[1])

    def program(comm, party, n_samples):
        train_vertical(comm, party, n_samples=n_samples)

    with pytest.raises(TypeError, match="party must be a LabelOwner on rank 0 alone, got FeatureOwner on 0"):
        run_ranks(1, program, owner, 301)
    with pytest.raises(ValueError, match="n_samples must be the 301 rows that rank 0 has, got 300"):
        run_ranks(1, program, LabelOwner(mlp, y, parts[0], 32), 300)
    with pytest.raises(
        ValueError, match="batch_size must be at most the 31 that the LabelOwner is for, got 32"
    ):
        run_ranks(1, program, LabelOwner(mlp, y, parts[0], 31), 301)
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got 0"):
        LabelOwner(mlp, y, parts[0], 0)
    huge = {"optimizer": SGD(1e30), "epochs": 3, "batch_size": 100}
    with pytest.raises(FloatingPointError, match="smaller learning_rate"):
        train(MLP((64, 20, 10), loss="mse"), halves, mlp.init(0, np.float64), X, np.eye(10)[y], **huge)
