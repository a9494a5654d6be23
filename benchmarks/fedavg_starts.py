"""Do the first weights explain why we need fewer rounds than the FedAvg paper? One entry of its table.

python benchmarks/fedavg_starts.py                     all: half an hour
python benchmarks/fedavg_starts.py "Glorot, uniform"   those named; what was recorded of the others stays

MNIST dealt at random, C = 0.1, B = 10, E = 1, which took the paper 87 rounds to 97%: once for each way of
drawing the first weights, and once with pixels scaled in another way. MNIST is looked for where NNBRAIN_DATA
says.
"""

from common import RESULTS, record  # first: it pins the BLAS threads

import json
import sys

import numpy as np

from nnbrain.data import load_mnist
from nnbrain.federated.commands import PAPER
from nnbrain.federated.rounds_to_target import Cell, run, runs_at_best_rate, tune
from nnbrain.mlp import MLP

SEEDS, LIMIT = (0, 1, 2), 261
RATES = (0.2, 0.1, 0.4, 0.05)  # as fedavg_table's, the likeliest first
CELL = Cell("iid", fraction=0.1, batch_size=10)

# How a layer's weights are drawn, with its fan-in m and fan-out n, and its biases.
STARTS = {
    "He, normal": (lambda rng, m, n: rng.normal(0, np.sqrt(2 / m), (m, n)), lambda rng, m, n: 0),
    "normal, 0.1; biases 0.1": (lambda rng, m, n: rng.normal(0, 0.1, (m, n)), lambda rng, m, n: 0.1),
    "normal, 0.01": (lambda rng, m, n: rng.normal(0, 0.01, (m, n)), lambda rng, m, n: 0),
    "Glorot, uniform": (lambda rng, m, n: uniform(rng, 6 / (m + n), (m, n)), lambda rng, m, n: 0),
    "uniform, 1/√fan-in, biases too": (
        lambda rng, m, n: uniform(rng, 1 / m, (m, n)),
        lambda rng, m, n: uniform(rng, 1 / m, n),
    ),
}
SCALED = "He, normal; pixels standardised"


def uniform(rng, square, shape):
    return rng.uniform(-np.sqrt(square), np.sqrt(square), shape)


def first_theta(mlp, start, seed):
    weights, biases = STARTS[start]
    theta, rng = np.zeros(mlp.size, np.float32), np.random.default_rng(seed)
    for W, b in mlp.layers(theta):
        W[:] = weights(rng, *W.shape)
        b[:] = biases(rng, *W.shape)
    return theta


def row(data, name, start):
    """Tune the rate with the first seed, and measure the best with all."""

    def train(rate, seed, limit):
        theta = first_theta(MLP(CELL.sizes), start, seed)
        result = run(CELL, data, learning_rate=rate, seed=seed, limit=limit, theta=theta)
        print(name, rate, result.rounds, flush=True)
        return result

    best = runs_at_best_rate(tune(RATES, SEEDS, LIMIT, train))
    rate, found = best[0].learning_rate, [one.rounds for one in best]
    return {
        "first weights": name,
        "rate": f"{rate:g}" + ("*" if rate in (min(RATES), max(RATES)) else ""),
        "rounds to 97%, by seed": ", ".join(f">{LIMIT}" if r is None else f"{r:.0f}" for r in found),
        "mean": "–" if None in found else f"{np.mean(found):.0f}",
        "paper": PAPER["iid", 0.1, 10],
    }


def standardised(data):
    mean, std = data.X_train.mean(), data.X_train.std()
    return data._replace(X_train=(data.X_train - mean) / std, X_test=(data.X_test - mean) / std)


def main():
    cases = {**{name: name for name in STARTS}, SCALED: "He, normal"}
    wanted = sys.argv[1:] or list(cases)
    unknown = set(wanted) - set(cases)
    if unknown:
        sys.exit(f"There is no start {', '.join(sorted(unknown))}; there are {', '.join(cases)}")
    path = RESULTS / "fedavg_starts.json"
    known = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    rows = {r["first weights"]: r for r in known}
    data = load_mnist()
    for name in wanted:
        rows[name] = row(standardised(data) if name == SCALED else data, name, cases[name])
        record(
            "fedavg_starts",
            "The entry of 87 rounds (iid, C = 0.1, B = 10), begun otherwise (* the grid's last rate)",
            [rows[one] for one in cases if one in rows],
        )


if __name__ == "__main__":
    main()
