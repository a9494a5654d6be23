"""Data sets in shards on disk, larger than memory if need be, that training reads as if they were arrays."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbrain.checks import Ints, Stored

Array = npt.NDArray[Any]
FORMAT = "nnbrain shards 1"
MANIFEST = "manifest.json"


def write_shards(folder: str | Path, blocks: Iterable[tuple[npt.ArrayLike, npt.ArrayLike | None]]) -> None:
    """Write rows and their labels to a new folder, a shard for each block; there is all of it or nothing.

    Parameters
    ----------
    folder : str or Path
        That does not exist yet, within one that does.
    blocks : iterable of (X, y)
        One after the other, so that only one must fit in memory: X (n, d) of real, finite numbers and y
        (n, …), or None where there are no labels. All blocks agree in d and in their types.

    Raises
    ------
    TypeError, ValueError
        If a block is not of this form; the message says which.
    FileExistsError
        If `folder` is there already.
    OSError
        If it cannot be written, a full disk for one. Nothing is left then.

    Examples
    --------
    >>> X, y = np.eye(6), np.arange(6)
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     write_shards(f"{place}/six", zip(np.split(X, 3), np.split(y, 3), strict=True))
    ...     shards, labels = open_shards(f"{place}/six")
    ...     np.take(shards, [5, 0], axis=0)
    array([[0., 0., 0., 0., 0., 1.],
           [1., 0., 0., 0., 0., 0.]])
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"folder must be a new one, got {str(folder)!r}, which is there already")
    if not folder.parent.is_dir():
        raise ValueError(f"folder must be within an existing one, got {str(folder)!r}")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a writer that was killed
    part.mkdir()
    try:
        shards: list[dict[str, Any]] = []
        for i, (X, y) in enumerate(blocks):
            arrays = _checked(i, X, y)
            shards.append({name: _write(part / f"{name}-{i:05}.npy", a) for name, a in arrays.items()})
            if (now := _form(shards[i])) != (first := _form(shards[0])):
                raise ValueError(f"blocks[{i}] must be as the first, {first}, got {now}")
        if not shards:
            raise ValueError("blocks must be at least one, got none")
        # Last: a folder without it is no data set. The disk need not be flushed, as checksums find a loss.
        (part / MANIFEST).write_text(json.dumps({"format": FORMAT, "shards": shards}, indent=1))
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def open_shards(folder: str | Path, verify: bool = True) -> tuple["Shards", Array | None]:
    """Return what `write_shards` wrote: the rows, which stay on disk, and their labels, in memory.

    Parameters
    ----------
    folder : str or Path
    verify : bool
        Read every file once, whatever its size, and compare its checksum. Without, only files that are
        missing or of another shape are found. Of many ranks on one file system, one is enough.

    Returns
    -------
    X : Shards
    y : array (n, …) or None

    Raises
    ------
    FileNotFoundError
        If `folder` has no manifest, or a file is missing.
    ValueError
        If the manifest or a file is damaged. The messages name the file.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{str(path)!r} is missing: this is no folder of shards, or an unfinished one"
        )
    try:
        text = path.read_bytes()
        manifest = json.loads(text)
        if manifest["format"] != FORMAT:
            raise KeyError(manifest["format"])
        files = {
            name: [
                _open(path.with_name(shard[name]["file"]), shard[name], verify)
                for shard in manifest["shards"]
            ]
            for name in manifest["shards"][0]
        }
        parts = files["X"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{str(path)!r} is damaged or not one of nnbrain's ({error})") from error
    y = np.concatenate(files["y"]) if "y" in files else None
    return Shards(parts, hashlib.blake2b(text, digest_size=8).hexdigest()), y


class Shards(Stored):
    """The rows of several arrays as one, where `take` copies those that are asked for and no others.

    `MLP`'s training takes it in the place of X. The arrays of `open_shards` are mapped into memory: the
    operating system reads a page of a file when it is touched, keeps it while there is room, and all
    processes of a machine share it. Each shard is an open file of the process.

    Parameters
    ----------
    parts : sequence of array (nᵢ, d)
        Of one type, without NaN and infinity.
    digest : str
        A fingerprint of all rows: what the data are for a checkpoint.

    Attributes
    ----------
    shape : (n, d)
    dtype : dtype
    digest : str
    """

    def __init__(self, parts: Sequence[Array], digest: str) -> None:
        self._parts = [np.asarray(part) for part in parts]  # not memmap, whose views are slow to make
        self._ends = np.cumsum([len(part) for part in parts])
        self.shape = (int(self._ends[-1]), *parts[0].shape[1:])
        self.dtype = parts[0].dtype
        self.digest = digest

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        raise TypeError(
            f"Shards of shape {self.shape} are not read into one array by themselves; take(...) the rows"
        )

    def take(
        self, indices: npt.ArrayLike, axis: int = 0, out: Array | None = None, mode: str = "raise"
    ) -> Array:
        """Return the rows at `indices`, as `numpy.take` does, which calls this.

        Parameters
        ----------
        indices : array of int
        axis : 0
        out : array (len(indices), d), optional
            Where to put them, of any type of float.
        mode : {"raise", "clip"}
            What to do with an index that is out of range.

        Raises
        ------
        IndexError
            If an index is out of range and `mode` is "raise".
        ValueError
            If `axis` is not 0, `mode` another, or `out` of another shape.
        """
        if axis != 0 or mode not in ("raise", "clip"):
            raise ValueError(f"axis must be 0 and mode 'raise' or 'clip', got {axis} and {mode!r}")
        index = np.asarray(indices)
        n = len(self)
        index = index.clip(0, n - 1) if mode == "clip" else _counted_from_the_start(index, n)
        shape = (*index.shape, *self.shape[1:])
        rows = np.empty(shape, self.dtype) if out is None else out
        if rows.shape != shape:
            raise ValueError(f"out must have shape {shape}, got {rows.shape}")
        where = np.searchsorted(self._ends, index, side="right")
        for i in np.unique(where):  # a shard at a time, however many rows it gives
            here = where == i
            part = self._parts[i]
            rows[here] = part[index[here] - (self._ends[i] - len(part))]
        return rows


def _counted_from_the_start(index: Ints, n: int) -> Ints:
    """Return an index in which -1, the last row, has become n - 1, and so on."""
    if index.size and not -n <= index.min() <= index.max() < n:
        raise IndexError(f"indices must be in {-n}..{n - 1}, got {index.min()}..{index.max()}")
    return np.where(index < 0, index + n, index)


def _checked(i: int, X: npt.ArrayLike, y: npt.ArrayLike | None) -> dict[str, Array]:
    rows = np.asarray(X)
    if rows.dtype.kind not in "biuf":
        raise TypeError(f"blocks[{i}]: X must be an array of real numbers, got {rows.dtype}")
    if rows.ndim != 2 or rows.size == 0:
        raise ValueError(f"blocks[{i}]: X must have shape (n >= 1, d >= 1), got {rows.shape}")
    if not np.isfinite(rows).all():  # checked now, so that training need not
        raise ValueError(f"blocks[{i}]: X must be finite, got NaN or infinite")
    if y is None:
        return {"X": rows}
    labels = np.asarray(y)
    if labels.dtype.kind not in "biuf" or labels.ndim == 0 or len(labels) != len(rows):
        raise ValueError(
            f"blocks[{i}]: y must be {len(rows)} numbers or rows of numbers, one a row of X, got "
            f"{labels.dtype} of shape {labels.shape}"
        )
    return {"X": rows, "y": labels}


def _write(path: Path, array: Array) -> dict[str, Any]:
    """Write a file; return what the manifest says of it."""
    np.save(path, array)
    return {
        "file": path.name,
        "shape": list(array.shape),
        "dtype": array.dtype.str,
        "checksum": _checksum(path),
    }


def _form(shard: dict[str, Any]) -> dict[str, str]:
    """Return what all shards have in common: their types and their shapes but for the number of rows."""
    return {name: f"{about['dtype'][1:]}{about['shape'][1:]}" for name, about in shard.items()}


def _open(path: Path, about: dict[str, Any], verify: bool) -> Array:
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} is missing, of the shards that the manifest names")
    try:
        if verify and _checksum(path) != about["checksum"]:
            raise ValueError("another checksum")
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        if (list(array.shape), array.dtype.str) != (about["shape"], about["dtype"]):
            raise ValueError(f"{array.dtype} of shape {array.shape}")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{str(path)!r} is damaged or not the shard that was written ({error})") from error
    return array


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
