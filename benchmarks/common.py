"""What the benchmarks share: the best of several runs, the machine's peak, and a record with versions."""

import itertools
import json
import os
import platform
import time
from pathlib import Path

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[name] = "1"  # before numpy is imported

import numpy as np
import scipy
import sklearn

RESULTS = Path(__file__).parent / "results"


def best_times(*functions, repeats=7):
    """Return each function's shortest run, in seconds: the one that was disturbed least.

    The functions take turns, so that a machine that is slower for a while is so for all of them.
    """
    best = [float("inf")] * len(functions)
    for _ in range(repeats):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def peak_flops(n=3000):
    """Return the operations a second of a float32 product of two n x n matrices, on one thread."""
    A = np.random.default_rng(0).random((n, n), dtype=np.float32)
    (seconds,) = best_times(lambda: A @ A)
    return 2 * n**3 / seconds


def training_flops(sizes):
    """Return the operations a sample: two a weight forward, four backward, two for the first layer's."""
    products = [a * b for a, b in itertools.pairwise(sizes)]
    return 6 * sum(products) - 2 * products[0]


def record(name, rows):
    """Write rows with the machine and versions as JSON, and all records together as a table."""
    document = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "scikit-learn": sklearn.__version__,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    write_table()


def write_table():
    """Write results/table.md, which the book includes, from all records."""
    lines = []
    for path in sorted(RESULTS.glob("*.json")):
        document = json.loads(path.read_text())
        columns = list(document["rows"][0])
        lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
        lines += ["| " + " | ".join(str(row[c]) for c in columns) + " |" for row in document["rows"]]
        versions = ", ".join(f"{k} {document[k]}" for k in ("numpy", "scipy", "scikit-learn"))
        lines += ["", f"({document['machine']}; Python {document['python']}, {versions}.)", ""]
    (RESULTS / "table.md").write_text("\n".join(lines))
