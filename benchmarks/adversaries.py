"""What liars do to a federation: seven attacks, seven rules, 0 to 5 liars of ten, five seeds.

python benchmarks/adversaries.py

Needs nnbrain alone, and less than two minutes. Each entry is the result of ``outcome`` in the chapter
"adversaries", which draws the record and trains some of its entries again.
"""

from common import record  # first: it pins the BLAS threads

import sys

import numpy as np
from tqdm import tqdm

from nnbrain.data import load_digits
from nnbrain.federated import (
    ALittle,
    Altered,
    Clipped,
    Colluding,
    FedAvg,
    GeometricMedian,
    InnerProduct,
    Krum,
    Scaled,
    Trigger,
    TrimmedMean,
    coordinate_median,
    flip_labels,
    make_clients,
    partition_iid,
    plant_trigger,
    simulate,
    weighted_mean,
)
from nnbrain.mlp import MLP

K, LIARS, SEEDS = 10, range(1, 6), range(5)
MLP_OF_ALL = MLP((64, 32, 10), "tanh")
TURNED = np.arange(9, -1, -1)
TRIGGER = Trigger(features=(0, 7, 56, 63), target=0)
RULES = {
    "mean": weighted_mean,
    "clipped mean": Clipped(weighted_mean),
    "median": coordinate_median,
    "trimmed mean": TrimmedMean(f=3),
    "Krum": Krum(f=3),
    "multi-Krum": Krum(f=3, keep=7),
    "geometric median": GeometricMedian(),
}
ATTACKS = (
    "labels turned round",
    "sign flip",
    "sign flip, times 5",
    "model replacement",
    "inner product",
    "a little",
    "backdoor",
)


def attack(name, clients, liars, algorithm):
    """Return the clients and the algorithm, as the liars make them."""
    replacing = Altered(algorithm, Scaled(liars, K / len(liars)))
    match name:
        case "labels turned round":
            return flip_labels(clients, liars, TURNED), algorithm
        case "sign flip":
            return clients, Altered(algorithm, Scaled(liars, -1))
        case "sign flip, times 5":
            return clients, Altered(algorithm, Scaled(liars, -5))
        case "model replacement":
            return flip_labels(clients, liars, TURNED), replacing
        case "inner product":
            return clients, Colluding(algorithm, liars, InnerProduct(0.2))
        case "a little":
            return clients, Colluding(algorithm, liars, ALittle(1.5))
        case "backdoor":
            return plant_trigger(clients, liars, TRIGGER), replacing


def outcome(data, rule, name, n_liars, seed):
    """Return, in per cent, the test digits read right, read as 9 - d, and read as 0 with the trigger on."""
    X, y, X_test, y_test = data
    clients = make_clients(X, y, partition_iid(len(X), K, rng=seed))
    algorithm = FedAvg(MLP_OF_ALL, epochs=1, batch_size=24, learning_rate=0.7, aggregate=rule)
    if n_liars:
        clients, algorithm = attack(name, clients, frozenset(range(n_liars)), algorithm)
    theta, _ = simulate(algorithm, clients, MLP_OF_ALL.init(seed), rounds=4, seed=seed)
    shares = (
        MLP_OF_ALL.accuracy(theta, X_test, y_test),
        MLP_OF_ALL.accuracy(theta, X_test, TURNED[y_test]),
        TRIGGER.success_rate(MLP_OF_ALL, theta, X_test, y_test),
    )
    return [round(100 * share, 1) for share in shares]


def in_table(rows, attack, measure):
    """Return what the page has of an attack: for each rule, the mean over seeds at 0, 10, … 50% of liars."""
    means = {
        rule: " ".join(
            f"{np.mean(row[measure]):.0f}" for row in rows if (row["attack"], row["rule"]) == (attack, rule)
        )
        for rule in RULES
    }
    return {"attack": attack, "measure, %": measure, **means}


def main():
    data, rows = load_digits(), []
    seeds = {rule: [outcome(data, of, None, 0, seed) for seed in SEEDS] for rule, of in RULES.items()}
    wanted = [(name, rule, liars) for name in ATTACKS for rule in RULES for liars in (0, *LIARS)]
    for name, rule, liars in tqdm(wanted, disable=not sys.stderr.isatty()):
        runs = [outcome(data, RULES[rule], name, liars, seed) for seed in SEEDS] if liars else seeds[rule]
        right, turned, triggered = zip(*runs, strict=True)
        rows.append(
            {
                "attack": name,
                "rule": rule,
                "liars": liars,
                "right": right,
                "turned": turned,
                "triggered": triggered,
            }
        )
    pairs = [(name, "right") for name in ATTACKS]
    pairs += [("model replacement", "turned"), ("backdoor", "triggered")]
    heading = "Ten clients, of which 0 to 5 lie: what the network reads after four rounds, mean of five seeds"
    record("adversaries", heading, rows, table=[in_table(rows, *pair) for pair in pairs])


if __name__ == "__main__":
    main()
