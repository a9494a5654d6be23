"""Real numbers as integers modulo a power of two, in which sums are exact and have no order."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats

Residues = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class FixedPoint:
    """Multiples of 2**-fraction_bits, as integers modulo 2**bits.

    A number x becomes round(x 2**fraction_bits), a half rounded to the even neighbour, so it is off by at
    most 2**-(fraction_bits + 1); a negative integer q is written as 2**bits + q. NumPy's unsigned integers
    of that many bits add modulo 2**bits by themselves.

    Parameters
    ----------
    bits : {8, 16, 32, 64}
    fraction_bits : int
        At least 0 and below `bits`.

    Raises
    ------
    TypeError, ValueError
        If a setting is not one of these.

    Examples
    --------
    >>> code = FixedPoint(bits=8, fraction_bits=4)
    >>> code.encode([1.5, -0.25])
    array([ 24, 252], dtype=uint8)
    >>> code.decode(code.encode([1.5]) + code.encode([-0.25]))
    array([1.25])
    """

    bits: int = 32
    fraction_bits: int = 16

    def __post_init__(self) -> None:
        if checks.integer("bits", self.bits) not in (8, 16, 32, 64):
            raise ValueError(f"bits must be 8, 16, 32 or 64, got {self.bits}")
        if checks.integer("fraction_bits", self.fraction_bits, minimum=0) >= self.bits:
            raise ValueError(f"fraction_bits must be below bits = {self.bits}, got {self.fraction_bits}")

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The unsigned type that holds an encoded number, the same bytes on every machine."""
        return np.dtype(f"<u{self.bits // 8}")

    def limit(self, n_summands: int = 1) -> float:
        """Return the largest magnitude that each of `n_summands` may have if their sum must not wrap."""
        return float(np.ldexp(float(self._largest(n_summands)), -self.fraction_bits))

    def encode(self, values: npt.ArrayLike, n_summands: int = 1) -> Residues:
        """Return `values` as integers modulo 2**bits, of the same shape.

        Parameters
        ----------
        values : array
        n_summands : int
            Into a sum of how many such arrays this one will go.

        Raises
        ------
        TypeError, ValueError
            If a value is not a finite number, or so large that a sum of `n_summands` of them could leave
            the range and wrap around unnoticed.
        """
        array = checks.floats("values", values)
        scaled = np.rint(np.ldexp(array, self.fraction_bits))
        if float(np.abs(scaled).max(initial=0)) > self._largest(n_summands):
            raise ValueError(
                f"values must be at most {self.limit(n_summands):g} in magnitude, so that a sum of "
                f"{n_summands} fits in {self.bits} bits with {self.fraction_bits} after the point, got "
                f"{np.abs(array).max():g}"
            )
        return scaled.astype(np.int64).astype(self.dtype)

    def decode(self, residues: Residues) -> Floats:
        """Return the real numbers (float64) that `residues`, perhaps a sum of encoded arrays, stand for.

        Raises
        ------
        TypeError
            If `residues` are not of this code's type.
        """
        if residues.dtype != self.dtype:
            raise TypeError(f"residues must have dtype {self.dtype}, got {residues.dtype}")
        signed = residues.view(self.dtype.str.replace("u", "i"))
        return np.ldexp(signed.astype(np.float64), -self.fraction_bits)

    def _largest(self, n_summands: int) -> int:
        return int((2 ** (self.bits - 1) - 1) // checks.integer("n_summands", n_summands))
