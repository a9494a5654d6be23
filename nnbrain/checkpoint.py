"""Checkpoints: arrays in one file that is always whole, and says which run it belongs to."""

import json
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from nnbrain.checks import Stored

Arrays = dict[str, npt.NDArray[Any]]
FORMAT = "nnbrain checkpoint 1"


def save_checkpoint(path: str | Path, arrays: Mapping[str, npt.ArrayLike], run: Mapping[str, Any]) -> None:
    """Write `arrays` to `path`, atomically: at every moment the old file or the new one is there, whole.

    Parameters
    ----------
    path : str or Path
        Of a NumPy ``.npz`` file in an existing folder.
    arrays : mapping of str to array
        Of numbers; none may be called ``about``.
    run : mapping of str to anything that JSON knows
        What the checkpoint belongs to: settings that must be the same when it is read.

    Raises
    ------
    TypeError
        If an array holds objects.
    OSError
        If it cannot be written, a full disk for one; an older checkpoint is then as it was.
    """
    plain: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype.hasobject:
            raise TypeError(f"arrays[{name!r}] must be a plain array, got dtype {array.dtype}")
    about = np.frombuffer(json.dumps({"format": FORMAT, "run": dict(run)}).encode(), np.uint8)
    write_whole(path, lambda file: np.savez(file, about=about, **plain))


def write_whole(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a file under another name, then rename it to `path`: it is whole or not there.

    Raises
    ------
    OSError
        If it cannot be written; an older file is then as it was, and of the new one nothing is left.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # on the disk before it takes the old one's name
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def load_checkpoint(path: str | Path, run: Mapping[str, Any]) -> Arrays:
    """Return the arrays in the checkpoint at `path`, if it is whole and of this `run`.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is damaged, is no checkpoint of ours, or belongs to another run; the file is left as it is.
    """
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:  # it checks the CRC
            arrays = {name: file[name] for name in file.files}
        about = json.loads(arrays.pop("about").tobytes())
        if about["format"] != FORMAT:
            raise KeyError(about["format"])
        saved = about["run"]
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise ValueError(
            f"checkpoint {str(path)!r} is damaged or not one of nnbrain's ({error}); move it away to "
            "begin anew"
        ) from error
    expected = json.loads(json.dumps(dict(run)))
    for name in {**saved, **expected}:
        if saved.get(name) != expected.get(name):
            raise ValueError(
                f"checkpoint {str(path)!r} is of another run: its {name} is {saved.get(name)!r}, this run's "
                f"{expected.get(name)!r}; name another file or move it away to begin anew"
            )
    return arrays


def load_if_there(path: str | Path, run: Mapping[str, Any]) -> Arrays | None:
    """Return what `load_checkpoint` does, or None if none has been written yet.

    Raises
    ------
    ValueError
        As `load_checkpoint` does, and if there is no folder to write it to.
    """
    path = Path(path)
    if path.exists():
        return load_checkpoint(path, run)
    if not path.parent.is_dir():
        raise ValueError(f"checkpoint must be in an existing folder, got {str(path)!r}")
    return None


def generator_state(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return the whole state of a random generator as an array of bytes."""
    state = json.dumps(rng.bit_generator.state, default=lambda array: array.tolist())
    return np.frombuffer(state.encode(), np.uint8)


def restore_generator(rng: np.random.Generator, state: npt.NDArray[np.uint8]) -> None:
    """Put `rng` into a state that `generator_state` returned; it must be of the same kind."""
    rng.bit_generator.state = json.loads(state.tobytes())


def digest(*arrays: npt.ArrayLike | Stored | None) -> str:
    """Return a short fingerprint of arrays: their shapes, types and every byte."""
    total = blake2b(digest_size=8)
    for given in arrays:
        if isinstance(given, Stored):
            total.update(given.digest.encode())
            continue
        array = np.asarray(given)
        total.update(f"{array.shape}{array.dtype}".encode())
        total.update(np.ascontiguousarray(array).data if array.dtype != object else b"")
    return total.hexdigest()
