"""What the benchmarks share: the best of several runs, the machine's peak, and a record with versions."""

import itertools
import json
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path

os.environ |= {  # before any library is imported, numpy's BLAS included
    **{f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL")},
    "VECLIB_MAXIMUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "NPROC": "1",  # XLA's pool of threads
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "CUDA_VISIBLE_DEVICES": "",
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}

import numpy as np

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "scipy", "scikit-learn")


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


def peak_product(n=3000):
    """Return a function that multiplies two float32 n x n matrices, and the operations it takes."""
    A = np.random.default_rng(0).random((n, n), dtype=np.float32)
    return (lambda: A @ A), 2 * n**3


def peak_flops(processes=1):
    """Return the operations a second of large float32 products, one at a time in each process.

    Cores that work at the same time share clock rate, cache and memory: two are not twice as fast as one.
    """
    if processes == 1:
        product, flops = peak_product()
        return flops / best_times(product)[0]
    context = get_context("spawn")
    barrier, answers = context.Barrier(processes), context.SimpleQueue()
    crew = [context.Process(target=_peak_beside_others, args=(barrier, answers)) for _ in range(processes)]
    for process in crew:
        process.start()
    total = sum(answers.get() for _ in crew)
    for process in crew:
        process.join()
    return total


def _peak_beside_others(barrier, answers):
    product, flops = peak_product()

    def together():
        barrier.wait()
        start = time.perf_counter()
        product()
        return time.perf_counter() - start

    answers.put(flops / min(together() for _ in range(7)))


def training_flops(sizes):
    """Return the operations a sample: two a weight forward, four backward, two for the first layer's."""
    products = [a * b for a, b in itertools.pairwise(sizes)]
    return 6 * sum(products) - 2 * products[0]


def record(name, heading, rows, packages=(), table=None, more_versions=()):
    """Write rows, the machine and the versions of packages as JSON, and all records together as a page.

    The page shows the rows, or, where they are too many or too long, a `table` made of them. Versions of what
    is in other environments come as `more_versions`.
    """
    document = {
        "heading": heading,
        "machine": machine(),
        "versions": {
            "Python": platform.python_version(),
            **versions(*PACKAGES, *packages),
            **dict(more_versions),
        },
        "rows": rows,
    }
    if table is not None:
        document["table"] = table
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    write_table()


def versions(*packages):
    """Return a dictionary of the versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine():
    """Return a few words: the system, the processor and how many cores it shows."""
    processor = platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        processor += f" ({names[0]})" if names else ""
    return f"{platform.system()} {processor}, {os.cpu_count()} cores"


def write_table():
    """Write results/table.md, which the book includes, from all records."""
    lines = []
    for path in sorted(RESULTS.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = document.get("table", document["rows"])
        columns = list(rows[0])
        lines += [f"### {document['heading']}", ""]
        lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
        lines += ["| " + " | ".join(str(row.get(c, "–")) for c in columns) + " |" for row in rows]
        used = ", ".join(f"{package} {number}" for package, number in document["versions"].items())
        lines += ["", f"({document['machine']}; {used}.)", ""]
    (RESULTS / "table.md").write_text("\n".join(lines), encoding="utf-8")
