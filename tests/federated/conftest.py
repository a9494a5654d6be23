"""The digits, and four owners of them."""

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.federated import make_clients


@pytest.fixture(scope="session")
def digits():
    X, y, X_test, y_test = load_digits()
    return X.astype(np.float64), y, X_test, y_test


@pytest.fixture(scope="session")
def unequal(digits):
    """Four clients with 5, 40, 300 and 1093 samples."""
    X, y, *_ = digits
    return make_clients(X, y, np.split(np.random.default_rng(0).permutation(len(X)), [5, 45, 345]))
