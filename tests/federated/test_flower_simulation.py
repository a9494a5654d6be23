"""Flower's own simulation engine with our apps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_flowers_own_simulation_ends_with_the_bits_of_ours():
    pytest.importorskip("ray", reason="needs Flower's simulation engine")
    script = Path(__file__).with_name("on_flowers_simulation.py")  # alone: Ray leaves threads and warnings
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=400
    )
    if done.returncode == 77:
        pytest.skip("Ray does not start here")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "the same bits and clients"
