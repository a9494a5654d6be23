"""Shards on disk: the same rows, the same bits of training, and damage that is found and named."""

import json
import tracemalloc
from math import comb

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.distributed import Shards, open_shards, run_ranks, train, write_shards
from nnbrain.mlp import MLP, SGD, fit

X, y, *_ = load_digits()
mlp = MLP((64, 8, 10))


@pytest.fixture
def folder(tmp_path):
    """Shards of 500, 1, 400 and 537 rows."""
    cuts = [500, 501, 901]
    write_shards(tmp_path / "digits", zip(np.split(X, cuts), np.split(y, cuts), strict=True))
    return tmp_path / "digits"


def test_rows_come_back_in_any_order_and_from_any_shard(folder):
    shards, labels = open_shards(folder)
    assert (shards.shape, shards.dtype, len(shards)) == (X.shape, X.dtype, len(X))
    np.testing.assert_array_equal(labels, y)
    rng = np.random.default_rng(0)
    for index in (rng.permutation(len(X)), rng.integers(-len(X), len(X), 50), [500], [], [[3, 1], [901, 0]]):
        index = np.asarray(index, int)
        np.testing.assert_array_equal(np.take(shards, index, 0), np.take(X, index, 0))
    out = np.full((4, 64), np.nan)  # another type: as an array of that type would be
    taken = np.take(shards, [0, 5000, 500, -7], 0, out=out, mode="clip")
    assert taken is out
    np.testing.assert_array_equal(out, X.astype(float)[[0, 1437, 500, 0]])
    index = np.array([[3, 1, 501], [901, 0, -1]])
    scattered = np.zeros((64, 3, 2)).transpose(2, 1, 0)
    shards.take(index, out=scattered)
    np.testing.assert_array_equal(scattered, X[index])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_training_from_disk_has_the_bits_of_training_from_memory(folder, tmp_path, dtype):
    shards, labels = open_shards(folder)
    theta = mlp.init(0, dtype)
    options = {"optimizer": SGD(0.1, momentum=0.9), "epochs": 3, "batch_size": 50, "rng": 1}
    ours, theirs = (run_ranks(3, train, mlp, theta, rows, y, **options) for rows in (shards, X))
    for (a, loss_a), (b, loss_b) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
        assert loss_a == loss_b
    np.testing.assert_array_equal(
        fit(mlp, theta, shards, labels, **options)[0], fit(mlp, theta, X, y, **options)[0]
    )
    interrupted = {**options, "epochs": 1, "checkpoint": tmp_path / "run.npz"}
    run_ranks(3, train, mlp, theta, shards, labels, **interrupted)
    resumed = run_ranks(3, train, mlp, theta, shards, labels, **{**interrupted, "epochs": 3})
    np.testing.assert_array_equal(resumed[0][0], ours[0][0])


def test_other_shards_are_another_run(folder, tmp_path):
    write_shards(tmp_path / "other", [(X[:900], y[:900])])
    options = {"epochs": 1, "checkpoint": tmp_path / "run.npz"}
    fit(mlp, mlp.init(0), *open_shards(folder), **options)
    with pytest.raises(ValueError, match="another run: its data"):
        fit(mlp, mlp.init(0), *open_shards(tmp_path / "other"), **options)


def test_only_one_block_must_fit_in_memory(tmp_path):
    """eq-memory-of-ranks: in memory each of p ranks holds n d s bytes; from shards none of them does."""
    n, p, blocks = 20_000, 2, 10
    rng = np.random.default_rng(0)
    block = n // blocks * 64 * 8
    tracemalloc.start()
    write_shards(
        tmp_path / "noise",
        ((rng.random((n // blocks, 64)), np.zeros(n // blocks, int)) for _ in range(blocks)),
    )
    assert tracemalloc.get_traced_memory()[1] < 4 * block < n * 64 * 8
    shards, labels = open_shards(tmp_path / "noise")

    def program(comm, in_memory):
        rows = np.take(shards, np.arange(n), 0) if in_memory else shards
        return train(comm, mlp, mlp.init(0, float), rows, labels, epochs=1, batch_size=500)[0]

    peak = {}
    for in_memory in (False, True):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        run_ranks(p, program, in_memory)
        peak[in_memory] = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert peak[True] - peak[False] == pytest.approx(p * n * 64 * 8, rel=0.15)
    assert peak[False] < 0.2 * p * n * 64 * 8  # batches, and the order of the rows


def test_pages_that_a_random_batch_touches():
    """eq-pages-of-a-batch: the mean over shuffles, counted, against the closed form."""
    n, q = 4096, 16
    rng = np.random.default_rng(0)
    for B in (1, 16, 64, 512, 4096):
        counted = [len(np.unique(rng.permutation(n)[:B] // q)) for _ in range(400)]
        expected = n / q * (1 - comb(n - q, B) / comb(n, B))
        assert np.mean(counted) == pytest.approx(expected, abs=4 * np.std(counted) / 20 + 1e-9)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("blocks", "error", "message"),
    [
        ([], ValueError, "blocks must be at least one"),
        ([(X[0], y[:1])], ValueError, r"blocks\[0\]: X must have shape .* got \(64,\)"),
        ([(X[:0], y[:0])], ValueError, r"X must have shape .* got \(0, 64\)"),
        ([(X[:2] * np.nan, y[:2])], ValueError, r"blocks\[0\]: X must be finite"),
        ([(X[:2].astype(str), y[:2])], TypeError, "X must be an array of real numbers"),
        ([(X[:2], y[:3])], ValueError, r"y must be 2 numbers .* got int64 of shape \(3,\)"),
        ([(X[:2], y[:2]), (X[:2].astype(float), y[:2])], ValueError, r"blocks\[1\] must be as the first"),
        ([(X[:2], y[:2]), (X[:2, :9], y[:2])], ValueError, r"blocks\[1\] must be as the first"),
        ([(X[:2], y[:2]), (X[:2], None)], ValueError, r"blocks\[1\] must be as the first"),
    ],
)
def test_bad_blocks_are_refused_and_leave_nothing(tmp_path, blocks, error, message):
    with pytest.raises(error, match=message):
        write_shards(tmp_path / "new", blocks)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_fails_midway_leaves_nothing(tmp_path):
    def blocks():
        yield X[:5], y[:5]
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_shards(tmp_path / "new", blocks())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="within an existing one"):
        write_shards(tmp_path / "no" / "new", blocks())


def test_nothing_is_overwritten(folder):
    with pytest.raises(FileExistsError, match="must be a new one"):
        write_shards(folder, [(X, y)])
    assert len(open_shards(folder)[0]) == len(X)


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("name", "damage", "error", "message"),
    [
        ("X-00002.npy", lambda p: p.unlink(), FileNotFoundError, "X-00002.npy' is missing"),
        ("X-00001.npy", flip, ValueError, "X-00001.npy' is damaged .*another checksum"),
        ("y-00003.npy", flip, ValueError, "y-00003.npy' is damaged .*another checksum"),
        ("manifest.json", lambda p: p.unlink(), FileNotFoundError, "manifest.json' is missing: .*unfinished"),
        ("manifest.json", lambda p: p.write_text("{"), ValueError, "manifest.json' is damaged"),
        ("manifest.json", lambda p: p.write_text("{}"), ValueError, "manifest.json' is damaged"),
    ],
)
def test_damage_is_found_and_the_file_named(folder, name, damage, error, message):
    damage(folder / name)
    with pytest.raises(error, match=message):
        open_shards(folder)


@pytest.mark.parametrize("contents", ["truncated", "empty", "of another shape"])
def test_files_of_another_size_are_found_without_reading_them_all(folder, contents):
    path = folder / "X-00000.npy"
    if contents == "of another shape":
        np.save(path, X[:7])
    else:
        path.write_bytes(path.read_bytes()[: 300 if contents == "truncated" else 0])
    with pytest.raises(ValueError, match=r"X-00000\.npy' is damaged"):
        open_shards(folder, verify=False)


def test_what_shards_cannot_do_is_said(folder):
    shards, labels = open_shards(folder)
    with pytest.raises(TypeError, match=r"take\(...\) the rows"):
        np.asarray(shards)
    with pytest.raises(TypeError, match=r"take\(...\) the rows"):
        mlp.predict(mlp.init(0), shards)
    with pytest.raises(IndexError, match=r"indices must be in -1438\.\.1437, got 0\.\.1438"):
        shards.take([0, 1438])
    with pytest.raises(ValueError, match="axis must be 0"):
        np.take(shards, [0], axis=1)
    with pytest.raises(ValueError, match=r"out must have shape \(2, 64\)"):
        shards.take([0, 1], out=np.zeros((3, 64)))
    with pytest.raises(ValueError, match=r"X must have shape \(n, 9\), got \(1438, 64\)"):
        fit(MLP((9, 10)), MLP((9, 10)).init(0), shards, labels)


def test_rows_without_labels(tmp_path):
    write_shards(tmp_path / "rows", [(X[:5], None)])
    shards, labels = open_shards(tmp_path / "rows")
    assert isinstance(shards, Shards)
    assert labels is None
    assert sorted(json.loads((tmp_path / "rows/manifest.json").read_text())["shards"][0]) == ["X"]
