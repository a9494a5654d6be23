"""Handwritten digits, small (8x8, always there) and large (MNIST, 28x28), and ways to vary them."""

import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from nnbrain import checks
from nnbrain.checks import Floats, Ints, Seed

IDX_NAMES = ("train-images", "train-labels", "t10k-images", "t10k-labels")


class Split(NamedTuple):
    """Data for training and for testing: X in [0, 1] float32 (n, features), y labels 0..9 (n,)."""

    X_train: Floats
    y_train: Ints
    X_test: Floats
    y_test: Ints


def load_digits(test_fraction: float = 0.2, seed: Seed = 0) -> Split:
    """Return the 1,797 digits of 8x8 pixels that come with scikit-learn, shuffled and split.

    Parameters
    ----------
    test_fraction : float
        Share of the digits held out for testing, in (0, 1).
    seed : int or Generator
        Of the shuffle; the same seed gives the same split.

    Returns
    -------
    Split
        With the default, 1,438 rows to train on and 359 to test, each of 64 features.

    Raises
    ------
    ValueError
        If `test_fraction` is outside (0, 1).

    Notes
    -----
    The digits are the test part of Alpaydin & Kaynak's "Optical Recognition of Handwritten Digits"
    (UCI Machine Learning Repository, 1998).
    """
    from sklearn.datasets import load_digits as load

    checks.number("test_fraction", test_fraction, above=0, below=1)
    X, y = load(return_X_y=True)
    order = checks.generator("seed", seed).permutation(len(X))
    X = (X[order] / 16).astype(np.float32)
    y = y[order].astype(np.int64)
    n_test = min(max(round(len(X) * test_fraction), 1), len(X) - 1)
    return Split(X[n_test:], y[n_test:], X[:n_test], y[:n_test])


def load_mnist() -> Split:
    """Return MNIST's 60,000 training and 10,000 test digits of 28x28 pixels.

    The folder named by the environment variable ``NNBRAIN_DATA`` is read if it is set: it holds either
    ``mnist.npz`` (Keras' layout) or the four IDX files of the original, gzipped or not. Otherwise
    scikit-learn's OpenML cache is used, and filled by a download of 15 MB if it is empty.

    Returns
    -------
    Split
        Features in [0, 1], shape (60000, 784) and (10000, 784).

    Raises
    ------
    FileNotFoundError
        If ``NNBRAIN_DATA`` is set to a folder without MNIST.
    ValueError
        If the file there is damaged or is not MNIST.
    ConnectionError
        If there is neither a local file nor a cache nor a network.
    """
    folder = os.environ.get("NNBRAIN_DATA")
    if not folder:
        return _mnist_from_openml()
    path = Path(folder).expanduser()
    npz = path / "mnist.npz"
    parts = _mnist_from_npz(npz) if npz.is_file() else _mnist_from_idx(path)
    return _as_split(str(path), *parts)


class Shuffler(Protocol):
    """What decides the order of the samples: a NumPy Generator is one."""

    def permutation(self, n: int, /) -> Ints:
        """Return the numbers 0 … n-1 in the order of the next epoch."""


def minibatches(n: int, batch_size: int, rng: Shuffler) -> Iterator[Ints]:
    """Yield the indices 0..n-1 in random order, `batch_size` at a time; the last may be smaller."""
    order = rng.permutation(n)
    for start in range(0, n, batch_size):
        yield order[start : start + batch_size]


def shift(X: Floats, rng: np.random.Generator, pixels: int = 1) -> Floats:
    """Return each picture moved by up to `pixels` both ways, at random; what comes in is blank.

    Parameters
    ----------
    X : array (n, side²)
        Square pictures, one a row; not changed. So in `rotate` and `add_noise`.
    rng : Generator
    pixels : int
        At least 0.

    Raises
    ------
    ValueError
        If the pictures are not square or `pixels` is negative.
    """
    checks.integer("pixels", pixels, minimum=0)
    pictures = _pictures(X)
    side = pictures.shape[1]
    padded = np.pad(pictures, ((0, 0), (pixels, pixels), (pixels, pixels)))
    down, right = rng.integers(0, 2 * pixels + 1, (2, len(X), 1)) + np.arange(side)
    moved: Floats = padded[np.arange(len(X))[:, None, None], down[:, :, None], right[:, None, :]]
    return moved.reshape(X.shape)


def rotate(X: Floats, rng: np.random.Generator, degrees: float = 10.0) -> Floats:
    """Return each picture turned about its centre by a random angle up to `degrees` both ways.

    Raises
    ------
    ValueError
        If the pictures are not square or `degrees` is negative.
    """
    from scipy import ndimage  # half a second that every rank and worker would spend at its start

    checks.number("degrees", degrees, minimum=0)
    angles = rng.uniform(-degrees, degrees, len(X))
    turned = [
        ndimage.rotate(picture, angle, reshape=False, order=1, mode="grid-constant")  # else edges lose ink
        for picture, angle in zip(_pictures(X), angles, strict=True)
    ]
    return np.asarray(turned, X.dtype).reshape(X.shape)


def add_noise(X: Floats, rng: np.random.Generator, scale: float = 0.1) -> Floats:
    """Return X plus normal noise of standard deviation `scale`, kept within [0, 1].

    Raises
    ------
    ValueError
        If `scale` is negative.
    """
    checks.number("scale", scale, minimum=0)
    noisy: Floats = X + scale * rng.standard_normal(X.shape, X.dtype)
    return np.clip(noisy, 0, 1, out=noisy)


def _pictures(X: Floats) -> Floats:
    """Return the rows of X as square pictures (n, side, side)."""
    side = round(np.sqrt(X.shape[1])) if X.ndim == 2 else 0
    if X.ndim != 2 or side * side != X.shape[1]:
        raise ValueError(f"X must hold square pictures, shape (n, side²), got shape {X.shape}")
    return X.reshape(-1, side, side)


def _mnist_from_npz(path: Path) -> tuple[Ints, Ints, Ints, Ints]:
    try:
        with np.load(path) as file:
            return file["x_train"], file["y_train"], file["x_test"], file["y_test"]
    except Exception as error:  # numpy, zipfile and zlib each have their own for a damaged file
        raise ValueError(
            f"{path} is not a readable MNIST file with x_train, y_train, x_test, y_test ({error})"
        ) from error


def _mnist_from_idx(folder: Path) -> tuple[Ints, Ints, Ints, Ints]:
    found = [sorted(folder.glob(f"{name}*")) for name in IDX_NAMES]
    if not all(found):
        raise FileNotFoundError(
            f"NNBRAIN_DATA is {str(folder)!r}, which holds neither mnist.npz nor the files "
            f"{', '.join(IDX_NAMES)}-idx?-ubyte[.gz]; put one there or unset NNBRAIN_DATA"
        )
    images, labels, test_images, test_labels = (_read_idx(paths[0]) for paths in found)
    return images, labels, test_images, test_labels


def _read_idx(path: Path) -> Ints:
    """Return the array in an IDX file: two zeros, type 8 (byte), rank, the shape, then the bytes."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be unpacked; fetch it again ({error})") from error
    rank = raw[3] if len(raw) > 3 and raw[:3] == b"\x00\x00\x08" else 0
    shape = np.frombuffer(raw, ">u4", count=rank, offset=4) if len(raw) >= 4 + 4 * rank else ()
    body = raw[4 + 4 * rank :]
    if rank == 0 or len(body) != np.prod(shape, dtype=int):
        raise ValueError(f"{path} is not a whole IDX file of bytes; fetch it again")
    return np.frombuffer(body, np.uint8).reshape([int(n) for n in shape])


def _mnist_from_openml() -> Split:
    from sklearn.datasets import fetch_openml

    try:
        X, y = fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False, parser="liac-arff")
    except OSError as error:  # urllib's errors are all OSErrors
        raise ConnectionError(
            "MNIST is not on this machine and could not be downloaded from OpenML; set NNBRAIN_DATA to "
            f"a folder with mnist.npz, or connect to the network once ({error})"
        ) from error
    y = y.astype(np.int64)
    return _as_split("OpenML's mnist_784", X[:60000], y[:60000], X[60000:], y[60000:])


def _as_split(source: str, X: Any, y: Ints, X_test: Any, y_test: Ints) -> Split:
    if X.size != 60000 * 784 or X_test.size != 10000 * 784 or len(y) != 60000 or len(y_test) != 10000:
        raise ValueError(
            f"{source} is not MNIST: expected 60000 and 10000 images of 28x28, got {X.shape} and "
            f"{X_test.shape} with {len(y)} and {len(y_test)} labels"
        )
    X, X_test = (np.divide(part.reshape(-1, 784), 255, dtype=np.float32) for part in (X, X_test))
    return Split(X, y.astype(np.int64), X_test, y_test.astype(np.int64))
