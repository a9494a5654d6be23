"""Saying less: gradients that are encoded in fewer bytes before they travel, and the memory of what was lost.

A compressor is two pure functions, of a vector to bytes and back. An exchange, made once on every rank and
passed to `nnbrain.distributed.train` as its `allreduce`, sums the ranks' vectors with it.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.distributed.collectives import all_gather
from nnbrain.distributed.comm import Communicator

Payload = npt.NDArray[np.uint8]


class Compressor(Protocol):
    """Two pure functions; how long a payload is depends on the vector's length and type alone."""

    def encode(self, vector: Floats, rng: np.random.Generator) -> Payload:
        """Return the bytes to send for `vector` (n,), which is not changed."""

    def decode(self, payload: Payload, n: int, dtype: npt.DTypeLike) -> Floats:
        """Return the vector (n,) of type `dtype` that the bytes stand for."""


@dataclass(frozen=True)
class TopK:
    """The k entries of largest magnitude as they are, and zero for all others.

    k is `fraction` times n, rounded, and at least 1. A payload is k indices of 4 bytes and k values.

    Parameters
    ----------
    fraction : float
        Share of the entries that are sent, in (0, 1]; with 1 nothing is lost.

    Raises
    ------
    ValueError
        If `fraction` is outside (0, 1].

    Notes
    -----
    Aji & Heafield (2017); Stich, Cordonnier & Jaggi (2018).
    """

    fraction: float

    def __post_init__(self) -> None:
        checks.number("fraction", self.fraction, above=0, maximum=1)

    def k(self, n: int) -> int:
        """Return how many of n entries are sent."""
        return min(n, max(1, round(self.fraction * n)))

    def encode(self, vector: Floats, rng: np.random.Generator) -> Payload:
        """Return the indices and the values of the k largest entries."""
        k = self.k(len(vector))
        largest = np.sort(np.argpartition(-np.abs(vector), k - 1)[:k])
        indices, values = largest.astype(np.int32), vector[largest]
        return np.concatenate([indices.view(np.uint8), values.view(np.uint8)])

    def decode(self, payload: Payload, n: int, dtype: npt.DTypeLike) -> Floats:
        """Return the values at their places, among zeros."""
        indices, values = np.split(payload, [4 * self.k(n)])
        vector = np.zeros(n, dtype)
        vector[indices.view(np.int32)] = values.view(dtype)
        return vector


@dataclass(frozen=True)
class Half:
    """Each entry in half precision, 16 bits: half of single precision's bytes.

    The nearest number of 11 significant bits is sent; below 6.1e-5 it has fewer, and up to 3e-8 it is zero.
    `scale` lifts small entries out of there, as a large factor on the loss does.

    Parameters
    ----------
    scale : float
        Entries are multiplied by it before they are rounded, and divided by it afterwards; above 0. A power
        of two adds no rounding of its own.

    Raises
    ------
    TypeError, ValueError
        If `scale` is not a finite number above 0.
    FloatingPointError
        When it encodes, if an entry times `scale` is too large: half precision ends at 65,504.

    Notes
    -----
    Micikevicius et al. (2018).
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        checks.number("scale", self.scale, above=0)

    def encode(self, vector: Floats, rng: np.random.Generator) -> Payload:
        """Return the entries, scaled and rounded."""
        with np.errstate(over="ignore"):
            halves = (vector * float(self.scale)).astype(np.float16)
        if not np.all(np.isfinite(halves)):
            raise FloatingPointError(f"vector must be at most 65504 / scale, got {np.abs(vector).max():g}")
        return halves.view(np.uint8)

    def decode(self, payload: Payload, n: int, dtype: npt.DTypeLike) -> Floats:
        """Return the entries, divided by the scale."""
        vector: Floats = payload.view(np.float16).astype(dtype)
        return np.divide(vector, self.scale, out=vector)


@dataclass(frozen=True)
class Sign:
    """One bit an entry, whether it is below zero, and one number for all: the mean magnitude.

    A payload is that number and ⌈n/8⌉ bytes. The mean magnitude is the multiple of the signs that is nearest
    to the vector.

    Notes
    -----
    Karimireddy, Rebjock, Stich & Jaggi (2019).
    """

    def encode(self, vector: Floats, rng: np.random.Generator) -> Payload:
        """Return the mean magnitude and the signs."""
        scale = np.array([np.abs(vector).mean()], vector.dtype)
        return np.concatenate([scale.view(np.uint8), np.packbits(vector < 0)])

    def decode(self, payload: Payload, n: int, dtype: npt.DTypeLike) -> Floats:
        """Return the signs times the mean magnitude."""
        size = np.dtype(dtype).itemsize
        scale = payload[:size].view(dtype)
        negative = np.unpackbits(payload[size:], count=n).astype(bool)
        return np.where(negative, -scale, scale)


@dataclass(frozen=True)
class QSGD:
    """Each entry rounded at random to one of q levels between zero and the norm, so that its mean is right.

    The vector is cut into buckets. An entry x of a bucket v becomes ± ‖v‖ l/q, where l is one of the two
    whole numbers beside a = q abs(x)/‖v‖: the upper one with the fractional part of a as its probability, so
    that the expected value is x. A payload is the buckets' norms and ⌈nb/8⌉ bytes, for b = ⌈log₂(2q + 1)⌉
    bits an entry.

    Parameters
    ----------
    levels : int
        q, at least 1.
    bucket : int
        Entries that share a norm, at least 1. The expected squared error is at most min(d/4q², √d/q) times
        the squared norm for buckets of d entries.

    Raises
    ------
    TypeError, ValueError
        If a setting is not an integer of at least 1.

    Notes
    -----
    Alistarh, Grubic, Li, Tomioka & Vojnovic (2017), with codes of one width in the place of theirs, so that
    all ranks' payloads are of one length.
    """

    levels: int
    bucket: int = 512

    def __post_init__(self) -> None:
        checks.integer("levels", self.levels)
        checks.integer("bucket", self.bucket)

    @property
    def bits(self) -> int:
        """Bits of a code: 2 levels + 1 values must have one each."""
        return (2 * self.levels).bit_length()

    def encode(self, vector: Floats, rng: np.random.Generator) -> Payload:
        """Return the norms and a code an entry, drawn at random."""
        buckets = self._in_buckets(vector)
        # In float64, as squares of float32 may be too small or too large for float32.
        norms = np.linalg.norm(buckets.astype(np.float64), axis=1).astype(vector.dtype)
        norm = norms[:, None]
        share = np.divide(np.abs(buckets), norm, out=np.zeros_like(buckets), where=norm > 0)
        level = np.floor(self.levels * share + rng.random(buckets.shape, vector.dtype))
        np.minimum(level, self.levels, out=level)  # rounding may carry an entry as large as the norm above it
        codes = (np.copysign(level, buckets) + self.levels).astype(np.uint32).ravel()[: len(vector)]
        bits = (codes[:, None] >> np.arange(self.bits, dtype=np.uint32)) & 1
        return np.concatenate([norms.view(np.uint8), np.packbits(bits.astype(np.uint8))])

    def decode(self, payload: Payload, n: int, dtype: npt.DTypeLike) -> Floats:
        """Return each code's level times its bucket's norm over q."""
        end = -(-n // self.bucket) * np.dtype(dtype).itemsize
        norms = payload[:end].view(dtype)
        bits = np.unpackbits(payload[end:], count=n * self.bits).reshape(n, self.bits)
        codes = bits @ (1 << np.arange(self.bits, dtype=np.int64))
        buckets = self._in_buckets((codes - self.levels).astype(dtype))
        buckets *= norms[:, None] / np.asarray(self.levels, dtype)
        return buckets.ravel()[:n]

    def _in_buckets(self, vector: Floats) -> Floats:
        """Return the vector (n,) as rows of one bucket each, the last filled up with zeros."""
        rows = -(-len(vector) // self.bucket)
        return np.pad(vector, (0, rows * self.bucket - len(vector))).reshape(rows, self.bucket)


class CompressedAllreduce:
    """Sums the ranks' vectors by compressed messages: encode, gather, decode, add.

    Each rank sends its payload to all others, decodes all payloads and adds them up, its own included, in the
    order of the ranks, so all end with the same bits. With `feedback` a rank remembers what its payload left
    out, the residual, and adds it to the next vector: what was sent and the residual always make up what was
    given.

    Parameters
    ----------
    compressor : Compressor
    feedback : bool
        Whether the residual is kept, or else forgotten.
    seed : int
        Of the compressor's random numbers, at least 0; each rank's are its own.

    Attributes
    ----------
    residual : array (n,) or None
        What this rank still owes; None before the first call or without feedback. It is in no checkpoint.

    Raises
    ------
    TypeError, ValueError
        If a setting is not of these; when called, if a vector is not as long or of the type that the first
        was.
    FloatingPointError
        When called, if the vector has NaN or infinite entries: there is no code for them.

    Notes
    -----
    Seide et al. (2014); Karimireddy, Rebjock, Stich & Jaggi (2019), Algorithm 2.
    """

    def __init__(self, compressor: Compressor, *, feedback: bool = True, seed: int = 0) -> None:
        self.compressor = compressor
        self.residual: Floats | None = None
        self._feedback, self._seed = (
            checks.flag("feedback", feedback),
            checks.integer("seed", seed, minimum=0),
        )
        self._rng: np.random.Generator | None = None

    def __call__(self, comm: Communicator, vector: Floats) -> None:
        """Replace `vector` (n,), one on each rank, by the sum of what all ranks send for theirs."""
        add_residual(vector, self.residual)
        n, dtype = len(vector), vector.dtype
        if self._rng is None:
            self._rng = np.random.default_rng([self._seed, comm.Get_rank()])
        payloads = all_gather(comm, self.compressor.encode(vector, self._rng))
        decoded = [self.compressor.decode(payload, n, dtype) for payload in payloads]
        if self._feedback:
            self.residual = vector - decoded[comm.Get_rank()]
        vector[:] = 0
        for part in decoded:
            vector += part


def add_residual(vector: Floats, residual: Floats | None) -> None:
    """Check `vector`, and add to it, in place, what is still owed from before.

    Raises
    ------
    ValueError
        If `vector` is no vector of floats, or not of the residual's length and type.
    FloatingPointError
        If it has NaN or infinite entries.
    """
    if vector.ndim != 1 or vector.size == 0 or vector.dtype not in (np.float32, np.float64):
        raise ValueError(
            f"vector must be float32 or float64 of one dimension, got {vector.dtype}{list(vector.shape)}"
        )
    bad = vector.size - np.count_nonzero(np.isfinite(vector))
    if bad:
        raise FloatingPointError(f"vector must be finite, got {bad} NaN or infinite of {vector.size}")
    if residual is None:
        return
    if residual.shape != vector.shape or residual.dtype != vector.dtype:
        raise ValueError(
            f"vector must be {residual.dtype}{list(residual.shape)} as before, "
            f"got {vector.dtype}{list(vector.shape)}"
        )
    vector += residual
