"""The equation of the chapter real-federation that needs no federation."""

from itertools import product
from math import comb

import numpy as np
import pytest


def test_how_many_to_ask():
    """eq-enough against all 2^m cases of who answers."""
    m, q = 7, 0.3
    for s in range(m + 1):
        formula = sum(comb(m, a) * (1 - q) ** a * q ** (m - a) for a in range(s, m + 1))
        cases = [case for case in product((0, 1), repeat=m) if sum(case) >= s]
        assert formula == pytest.approx(
            sum(np.prod([1 - q if a else q for a in c]) for c in cases), rel=1e-12
        )
