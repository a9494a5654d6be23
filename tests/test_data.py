"""Loaders: what they give, and what they say when there is nothing to give."""

import gzip
import os
import struct

import numpy as np
import pytest

from nnbrain.data import load_digits, load_mnist, minibatches


def write_idx(path, array):
    path.write_bytes(
        gzip.compress(struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes())
    )


def write_mnist(folder):
    """Write a data set of MNIST's size, sparse in ones, as the original's four files; return its labels."""
    labels = np.random.default_rng(0).integers(0, 10, 70000)
    images = np.zeros((70000, 28, 28), np.uint8)
    images[np.arange(70000), labels, labels] = 255
    for name, part in (("train", slice(60000)), ("t10k", slice(60000, None))):
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", images[part])
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", labels[part].astype(np.uint8))
    return labels, images


def test_digits_are_all_there_scaled_and_split_by_seed():
    split = load_digits()
    assert (len(split.X_train), len(split.X_test)) == (1438, 359)
    assert split.X_train.dtype == np.float32
    assert (split.X_train.min(), split.X_train.max()) == (0, 1)
    assert set(split.y_train) == set(range(10))
    np.testing.assert_array_equal(split.X_test, load_digits().X_test)
    assert not np.array_equal(split.X_test, load_digits(seed=1).X_test)


def test_minibatches_cover_every_sample_once():
    batches = list(minibatches(10, 4, np.random.default_rng(0)))
    assert [len(b) for b in batches] == [4, 4, 2]
    assert sorted(np.concatenate(batches)) == list(range(10))


def test_mnist_from_idx_files_and_from_npz_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("NNBRAIN_DATA", str(tmp_path))
    labels, images = write_mnist(tmp_path)
    from_idx = load_mnist()
    assert from_idx.X_train.shape == (60000, 784)
    np.testing.assert_array_equal(from_idx.y_test, labels[60000:])
    assert np.all(from_idx.X_train[np.arange(60000), labels[:60000] * 29] == 1)
    np.savez(tmp_path / "mnist.npz", x_train=images[:60000], y_train=labels[:60000],
             x_test=images[60000:], y_test=labels[60000:])  # fmt: skip
    for one, other in zip(from_idx, load_mnist(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_mnist_missing_or_damaged_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setenv("NNBRAIN_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"holds neither mnist\.npz nor"):
        load_mnist()
    for name in ("train-images", "train-labels", "t10k-images", "t10k-labels"):
        (tmp_path / f"{name}-idx-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x09short")
    with pytest.raises(ValueError, match="not a whole IDX file"):
        load_mnist()
    (tmp_path / "mnist.npz").write_bytes(b"not an archive")
    with pytest.raises(ValueError, match="not a readable MNIST file"):
        load_mnist()
    np.savez(tmp_path / "mnist.npz", **dict.fromkeys(["x_train", "y_train", "x_test", "y_test"], np.zeros(3)))
    with pytest.raises(ValueError, match="is not MNIST"):
        load_mnist()


def test_mnist_without_a_network_is_said_so(tmp_path, monkeypatch):
    monkeypatch.delenv("NNBRAIN_DATA", raising=False)

    def refuse(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", refuse)
    with pytest.raises(ConnectionError, match="set NNBRAIN_DATA"):
        load_mnist()


@pytest.mark.skipif("NNBRAIN_DATA" not in os.environ, reason="NNBRAIN_DATA is not set: no MNIST to read")
def test_real_mnist_is_learnt():
    """The 60,000 digits are in order of writing, 5,923 zeros among them; a linear model reads nine in ten."""
    from nnbrain.mlp import MLP, fit

    split = load_mnist()
    assert np.sum(split.y_train == 0) == 5923
    mlp = MLP((784, 10))
    theta, _ = fit(mlp, mlp.init(0), split.X_train, split.y_train, epochs=1)
    assert mlp.accuracy(theta, split.X_test, split.y_test) > 0.9
