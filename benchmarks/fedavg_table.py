"""The FedAvg paper's table on MNIST (2NN, 97%, E = 1): rounds beside the paper's, cell by cell.

python benchmarks/run.py fedavg_table                     all cells, the quick ones first: some hours
python benchmarks/run.py fedavg_table iid:0.1:10 …        those named, by partition, C and B; B may be inf

MNIST is looked for where NNBRAIN_DATA says. Each cell is one command of nnbrain's, printed and recorded,
so that anyone can repeat it alone. Finished runs are in results/runs/fedavg_table.json: started again after
whatever stopped it, this goes on after the last of them.
"""

from common import RESULTS, record  # first: it pins the BLAS threads

import json
import shlex
import sys

import numpy as np

from nnbrain.federated.__main__ import main as command_line
from nnbrain.federated.commands import PAPER, from_json
from nnbrain.federated.rounds_to_target import FARTHEST, rate_beyond, runs_at_best_rate

SEEDS = ("0", "1", "2")
# The likeliest first: a rate is given up once it has taken more rounds than an earlier one. Where the best is
# the first or the last in order of size, the command goes on beyond it.
RATES = {10: ("0.2", "0.1", "0.4", "0.05"), None: ("0.4", "0.8", "0.2", "0.1")}
RUNS = RESULTS / "runs" / "fedavg_table.json"


def name(cell):
    partition, fraction, batch_size = cell
    return f"{partition}:{fraction:g}:{batch_size or 'inf'}"


def command(cell):
    """Return the arguments of ``python -m nnbrain.federated`` that measure a cell."""
    partition, fraction, batch_size = cell
    options = {
        "--data": ["mnist"],
        "--partition": [partition],
        "--fraction": [f"{fraction:g}"],
        "--batch-size": [str(batch_size or "inf")],
        "--learning-rate": RATES[batch_size],
        "--extend": [],
        "--seeds": SEEDS,
        "--rounds": [str(3 * PAPER[cell])],
    }
    return ["table", *(word for option, values in options.items() for word in (option, *values))]


def row(cell, runs):
    """Return what the table has of a cell whose runs are all there, else None."""
    partition, fraction, batch_size = cell
    mine = [r for r in runs if (r.cell.partition, r.cell.fraction, r.cell.batch_size) == cell]
    first_seeds = [r for r in mine if r.seed == 0]
    grid, tried = [float(rate) for rate in RATES[batch_size]], {r.learning_rate for r in first_seeds}
    if not tried.issuperset(grid) or rate_beyond(grid, first_seeds) is not None:
        return None
    best = runs_at_best_rate(mine)
    if len(best) < len(SEEDS):
        return None
    rate = best[0].learning_rate
    found = [r.rounds for r in best]
    return {
        "partition": partition,
        "C": f"{fraction:g}",
        "B": str(batch_size or "∞"),
        "rate": f"{rate:g}" + ("*" if rate in (min(tried), max(tried)) else ""),
        "rounds to 97%, by seed": ", ".join(
            f">{r.limit}" if r.rounds is None else f"{r.rounds:.0f}" for r in best
        ),
        "mean": "–" if None in found else f"{np.mean(found):.0f}",
        "paper": PAPER[cell],
        "command": f"python -m nnbrain.federated {shlex.join(command(cell))}",
    }


def main():
    cells = {
        name(cell): cell for cell in sorted(PAPER, key=lambda c: (c[2] is None, PAPER[c] * max(c[1], 0.05)))
    }
    wanted = sys.argv[1:] or list(cells)
    unknown = set(wanted) - set(cells)
    if unknown:
        sys.exit(f"There is no cell {', '.join(sorted(unknown))}; there are {', '.join(cells)}")
    RUNS.parent.mkdir(parents=True, exist_ok=True)
    for cell in (cells[one] for one in wanted):
        print(f"\npython -m nnbrain.federated {shlex.join(command(cell))}", flush=True)
        code = command_line([*command(cell), "--workers", "2", "--json", str(RUNS)])
        if code:
            sys.exit(code)
        runs = [
            from_json(r) for r in json.loads(RUNS.read_text(encoding="utf-8"))["runs"] if r["data"] == "mnist"
        ]
        rows = [found for one in PAPER if (found := row(one, runs))]
        heading = "Federated averaging on MNIST: rounds to 97%, ours and the paper's"
        if any(found["rate"].endswith("*") for found in rows):
            heading += f" (* no worse rate was found on one side, up to {FARTHEST} times beyond those given)"
        record(
            "fedavg_table",
            heading,
            rows,
            table=[{k: v for k, v in r.items() if k != "command"} for r in rows],
        )


if __name__ == "__main__":
    main()
