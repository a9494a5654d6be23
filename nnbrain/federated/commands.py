"""What the command line does: the table of rounds to an accuracy, cell by cell, and its file."""

import argparse
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from nnbrain import __version__
from nnbrain.checkpoint import write_whole
from nnbrain.command_line import say, wants_bar
from nnbrain.data import Split, load_digits, load_mnist
from nnbrain.federated.rounds_to_target import Cell, Run, run, runs_at_best_rate, tune

# Where nothing else is said. MNIST's is the paper's set-up.
DEFAULTS: dict[str, dict[str, Any]] = {
    "mnist": {"clients": 100, "hidden": [200, 200], "target": 0.97, "rounds": 5000},
    "digits": {"clients": 20, "hidden": [32], "target": 0.93, "rounds": 500},
}
DATA: dict[str, Callable[[], Split]] = {"mnist": load_mnist, "digits": load_digits}
LEAST_SAMPLES = {"iid": 1, "shards": 2}  # of a client

# McMahan et al. (2017), the 2NN's rounds to 97% with E = 1: by partition, C and B; None is infinity.
PAPER: dict[tuple[str, float, int | None], int] = {
    ("iid", 0.0, None): 1455,
    ("iid", 0.0, 10): 316,
    ("iid", 0.1, None): 1474,
    ("iid", 0.1, 10): 87,
    ("iid", 0.2, None): 1658,
    ("iid", 0.2, 10): 77,
    ("iid", 0.5, 10): 75,
    ("iid", 1.0, 10): 70,
    ("shards", 0.0, None): 4278,
    ("shards", 0.0, 10): 3275,
    ("shards", 0.1, None): 1796,
    ("shards", 0.1, 10): 664,
    ("shards", 0.2, None): 1528,
    ("shards", 0.2, 10): 619,
    ("shards", 0.5, 10): 443,
    ("shards", 1.0, 10): 380,
}


def table_command(options: argparse.Namespace) -> None:
    """Measure each cell, and print a line for it."""
    settings = DEFAULTS[options.data] | {k: v for k, v in vars(options).items() if v is not None}
    data = DATA[options.data]()
    sizes = (data.X_train.shape[1], *settings["hidden"], 10)
    cells = [
        Cell(partition, fraction, batch_size, epochs, settings["clients"], sizes, settings["target"])
        for partition, epochs, batch_size, fraction in product(
            options.partition, options.epochs, options.batch_size, options.fraction
        )
    ]
    _check_clients(settings["clients"], options.partition, len(data.y_train))
    if options.extend and len(set(options.learning_rate)) < 2:
        raise ValueError(f"--extend needs two rates of --learning-rate, got {options.learning_rate[0]:g}")
    several = len(cells) * len(options.learning_rate) * len(options.seeds) > 1
    if options.checkpoint and several and not options.json:
        raise ValueError("--checkpoint needs --json where there are several runs: that has the finished ones")
    bar = wants_bar(options)
    ledger = Ledger(options.json, options.data)
    say(
        f"{'partition':>9} {'C':>5} {'B':>5} {'E':>3} {'rate':>7}   rounds to {settings['target']:g}, by seed"
    )
    for cell in cells:

        def train(learning_rate: float, seed: int, limit: int, cell: Cell = cell) -> Run:
            known = ledger.find(cell, learning_rate, seed, limit)
            if known is not None:
                return known
            result = run(
                cell,
                data,
                learning_rate=learning_rate,
                seed=seed,
                limit=limit,
                workers=options.workers,
                checkpoint=options.checkpoint,
                progress=bar,
            )
            ledger.add(result)
            if options.checkpoint:
                options.checkpoint.unlink(missing_ok=True)
            return result

        runs = tune(options.learning_rate, options.seeds, settings["rounds"], train, extend=options.extend)
        say(line(runs_at_best_rate(runs), options.data))


def _check_clients(n_clients: int, partitions: list[str], n_samples: int) -> None:
    for partition in partitions:
        most = n_samples // LEAST_SAMPLES[partition]
        if n_clients > most:
            raise ValueError(
                f"--clients must be at most {most}, as there are {n_samples} samples for {partition} to deal "
                f"out, got {n_clients}"
            )


class Ledger:
    """The finished runs, and the JSON file that has them too."""

    def __init__(self, path: Path | None, data: str) -> None:
        self._path, self._data = path, data
        self._runs: list[dict[str, Any]] = []
        if path is not None and path.exists():
            try:
                document = json.loads(path.read_text(encoding="utf-8"))
                of_all = {"versions": document.get("versions")}  # older files have them once for all runs
                self._runs = [of_all | known for known in document["runs"]]
                for known in self._runs:
                    from_json(known)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"--json: {path} is not a file of this command ({error!r}); name another"
                ) from error

    def find(self, cell: Cell, learning_rate: float, seed: int, limit: int) -> Run | None:
        """Return the run with these settings, if it is known and the limit makes no difference."""
        wanted = {"data": self._data, "cell": to_json(cell), "learning_rate": learning_rate, "seed": seed}
        for known in self._runs:
            if all(known[name] == value for name, value in wanted.items()):
                found = from_json(known)
                if found.diverged or (
                    found.limit >= limit if found.rounds is None else found.rounds <= limit
                ):
                    return found
        return None

    def add(self, result: Run) -> None:
        """Add a run, and write the file, so that it is the old one or the new one but never a part."""
        about = {"data": self._data, "versions": versions()}
        self._runs.append({**about, **asdict(result), "cell": to_json(result.cell)})
        if self._path is not None:
            text = json.dumps({"runs": self._runs}, indent=1) + "\n"
            write_whole(self._path, lambda file: file.write(text.encode()))


def versions() -> dict[str, str]:
    """Return the versions of all that may make a run another one."""
    return {
        "nnbrain": __version__,
        "Python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def to_json(cell: Cell) -> dict[str, Any]:
    """Return a cell as JSON has it."""
    return {**asdict(cell), "sizes": list(cell.sizes)}


def from_json(known: Mapping[str, Any]) -> Run:
    """Return a run from what JSON has of it."""
    fields = {name: value for name, value in known.items() if name not in ("data", "versions")}
    cell = Cell(**{**known["cell"], "sizes": tuple(known["cell"]["sizes"])})
    return Run(**{**fields, "cell": cell})


def line(runs: list[Run], data: str) -> str:
    """Return a cell's line: its settings, the rounds of each seed, their mean, and the paper's."""
    cell = runs[0].cell
    rounds = [r.rounds for r in runs]
    text = f"{cell.partition:>9} {cell.fraction:5g} {cell.batch_size or 'inf':>5} {cell.epochs:3} "
    text += f"{runs[0].learning_rate:7g}  "
    text += "".join(f" {given_up(r):>8}" if r.rounds is None else f" {r.rounds:8.1f}" for r in runs)
    reached = [r for r in rounds if r is not None]
    if len(reached) == len(rounds) > 1:
        text += f"   mean {np.mean(reached):.1f}"
    paper = PAPER.get((cell.partition, cell.fraction, cell.batch_size))
    if data == "mnist" and paper and is_papers(cell):
        text += f"   paper {paper}"
    return text


def given_up(result: Run) -> str:
    """Return what stands in place of a number of rounds."""
    return "diverged" if result.diverged else f">{result.limit}"


def is_papers(cell: Cell) -> bool:
    """Return whether all but partition, C and B are as in the table of `PAPER`."""
    return cell == Cell(cell.partition, cell.fraction, cell.batch_size)
