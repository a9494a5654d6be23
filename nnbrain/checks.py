"""Checks of arguments: each raises an error that names the argument, what was given, what is accepted.

Public functions call these once, at the door; the loops behind the door do not check again.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Seed = int | np.random.Generator


class Stored:
    """Base of rows that lie on disk, found finite when written: training reads them by `take` alone."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    digest: str  # stands for all rows in a fingerprint


def integer(name: str, value: object, minimum: int = 1) -> int:
    """Return `value` as an int that is at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be an integer >= {minimum}, got {value}")
    return int(value)


def number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    minimum: float | None = None,
    below: float | None = None,
    maximum: float | None = None,
) -> float:
    """Return `value` as a finite float within the given open (above, below) or closed bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} must be a number, got {value!r}")
    accepted = [
        text
        for text, bound in (
            (f"> {above}", above),
            (f">= {minimum}", minimum),
            (f"< {below}", below),
            (f"<= {maximum}", maximum),
        )
        if bound is not None
    ]
    inside = (
        np.isfinite(value)
        and (above is None or value > above)
        and (minimum is None or value >= minimum)
        and (below is None or value < below)
        and (maximum is None or value <= maximum)
    )
    if not inside:
        raise ValueError(f"{name} must be {' and '.join(['finite', *accepted])}, got {value}")
    return float(value)


def flag(name: str, value: object) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def choice(name: str, value: object, accepted: Collection[str]) -> str:
    """Return `value` if it is one of the `accepted` names."""
    if not isinstance(value, str) or value not in accepted:
        raise ValueError(f"{name} must be one of {sorted(accepted)}, got {value!r}")
    return value


def generator(name: str, value: Seed) -> np.random.Generator:
    """Return the random generator that `value`, a seed or already a generator, stands for."""
    if isinstance(value, np.random.Generator):
        return value
    return np.random.default_rng(integer(name, value, minimum=0))


def finite(name: str, values: Floats) -> Floats:
    """Return `values` if they have neither NaN nor infinity."""
    bad = values.size - np.count_nonzero(np.isfinite(values))
    if bad:
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite of {values.size}")
    return values


def floats(name: str, values: npt.ArrayLike, dtype: npt.DTypeLike = np.float64) -> Floats:
    """Return `values` as a finite array of floats of type `dtype`."""
    try:
        given = np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise TypeError(f"{name} must be an array of numbers, got {type(values).__name__}") from error
    if given.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be an array of real numbers, got {given.dtype} numbers or objects")
    return finite(name, given.astype(dtype, copy=False))


def theta(values: object, size: int) -> Floats:
    """Return θ if it is one contiguous, finite float vector of `size` entries; never a copy."""
    if not isinstance(values, np.ndarray) or values.dtype not in (np.float32, np.float64):
        given = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise TypeError(f"theta must be an array of float32 or float64, got {given}")
    if values.shape != (size,):
        raise ValueError(f"theta must have shape ({size},), got {values.shape}")
    if not values.flags.c_contiguous:
        raise ValueError("theta must be contiguous, got a strided view; pass np.ascontiguousarray(theta)")
    return finite("theta", values)


def features(X: npt.ArrayLike, n_features: int, dtype: npt.DTypeLike) -> Floats:
    """Return `X` as a finite, contiguous array of shape (n >= 1, n_features) and type `dtype`."""
    array: Floats = _of_width(np.ascontiguousarray(floats("X", X, dtype)), n_features)
    if len(array) == 0:
        raise ValueError("X must have at least one row, got none")
    return array


def rows(X: npt.ArrayLike | Stored, n_features: int, dtype: npt.DTypeLike) -> Floats:
    """Return `X` as `features` does, or, if it is `Stored`, as it is: to look at all of it would read it."""
    return _of_width(X, n_features) if isinstance(X, Stored) else features(X, n_features, dtype)


def _of_width(X: Any, n_features: int) -> Any:
    if len(X.shape) != 2 or X.shape[1] != n_features:
        raise ValueError(f"X must have shape (n, {n_features}), got {X.shape}")
    return X


def labels(name: str, y: npt.ArrayLike, n: int, n_classes: int | None = None) -> Ints:
    """Return `y` as `n` integer labels, each at least 0 and, where given, below `n_classes`."""
    array = np.asarray(y)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integer class labels, got dtype {array.dtype}")
    if array.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one label a row of X, got {array.shape}")
    if n and (array.min() < 0 or (n_classes is not None and array.max() >= n_classes)):
        accepted = "0 or more" if n_classes is None else f"in 0..{n_classes - 1}"
        raise ValueError(f"{name} must be {accepted}, got values from {array.min()} to {array.max()}")
    return array


def weights(name: str, values: npt.ArrayLike, n: int, dtype: npt.DTypeLike) -> Floats:
    """Return `values` as `n` weights of samples, none negative and not all of them zero."""
    array = floats(name, values, dtype)
    if array.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one weight a row of X, got {array.shape}")
    if array.min() < 0 or not array.any():
        raise ValueError(f"{name} must be 0 or more and not all 0, got values from {array.min():g} on")
    return array


def signs(name: str, values: npt.ArrayLike, ndim: int = 1) -> Floats:
    """Return `values` as floats that are all -1 or 1, at least one of them, of `ndim` dimensions."""
    array = floats(name, values)
    if array.ndim != ndim or array.size == 0:
        raise ValueError(f"{name} must have {ndim} dimension(s) and entries, got shape {array.shape}")
    if not np.all(np.abs(array) == 1):
        raise ValueError(f"{name} must be -1 or 1, got values from {array.min():g} to {array.max():g}")
    return array


def batch_size(value: object, n: int) -> int:
    """Return `value` as a batch size between 1 and the `n` samples there are."""
    size = integer("batch_size", value)
    if size > n:
        raise ValueError(f"batch_size must be at most the {n} samples there are, got {size}")
    return size
