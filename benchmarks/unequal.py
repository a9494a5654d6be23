"""Which method helps when clients differ: eight methods, five federations of the digits, tuned alike.

python benchmarks/unequal.py            all, recorded: about ten minutes on one core
python benchmarks/unequal.py quick      two methods, three rounds, printed only: a second

Each method's settings are tuned for each kind of federation, on three federations that are then not used
any more, by accuracy on a quarter of the clients' own digits. They are found by climbing: one step of one
setting at a time, until none is better, so that the winner never lies at the end of what was tried, unless
that is a zero which switches the method off. The winner runs on eight new federations, and is judged on the
test digits.
"""

from common import record  # first: it pins the BLAS threads

import sys
from functools import cache

import numpy as np
from scipy import ndimage

from nnbrain.data import load_digits, rotate
from nnbrain.federated import (
    Adaptive,
    FedAvg,
    FedNova,
    FedOpt,
    FedProx,
    Scaffold,
    UnequalWork,
    make_clients,
    partition_dirichlet,
    partition_iid,
    partition_quantity,
    partition_shards,
    simulate,
    transform_clients,
)
from nnbrain.mlp import MLP, SGD

X, y, X_TEST, Y_TEST = load_digits()
TURNED_TEST = rotate(X_TEST, np.random.default_rng(0), 45)
NETWORK = MLP((64, 32, 10))
CLIENTS, FRACTION, ROUNDS, LAST = 20, 0.25, 30, 10
EPOCHS = 5
LOCAL = NETWORK, EPOCHS, 36  # what clients do: the last is the size of a batch
TRIALS, SEEDS = (100, 101, 102), tuple(range(8))

RATES = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
LEASHES = (0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
MOMENTA = (0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
SERVER_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3)


def adaptive(rule):
    return lambda work, rate, server: FedOpt(work(FedAvg(*LOCAL, rate)), Adaptive(rule, server))


# Of each method the settings it has, and how it is made of them; `work` says how much each client does.
METHODS = {
    "FedAvg": ((RATES,), lambda work, rate: work(FedAvg(*LOCAL, rate))),
    "FedProx": ((RATES, LEASHES), lambda work, rate, mu: work(FedProx(*LOCAL, rate, mu=mu))),
    "SCAFFOLD": ((RATES,), lambda work, rate: work(Scaffold(*LOCAL, rate, total_samples=len(X)))),
    "FedNova": ((RATES,), lambda work, rate: work(FedNova(*LOCAL, rate))),
    "FedAvgM": (
        (RATES, MOMENTA),
        lambda work, rate, momentum: FedOpt(work(FedAvg(*LOCAL, rate)), SGD(1.0, momentum=momentum)),
    ),
    "FedAdam": ((RATES, SERVER_RATES), adaptive("adam")),
    "FedYogi": ((RATES, SERVER_RATES), adaptive("yogi")),
    "FedAdagrad": ((RATES, SERVER_RATES), adaptive("adagrad")),
}
START = {RATES: 0.2, LEASHES: 0.1, MOMENTA: 0.5, SERVER_RATES: 0.03}
KINDS = ("nothing", "labels", "features", "amounts", "labels and amounts")


def turn(pictures, rng):
    """Turn all pictures of a client by the same angle."""
    angle = rng.uniform(-45, 45)
    how = {"reshape": False, "order": 1, "mode": "grid-constant"}
    return ndimage.rotate(pictures.reshape(-1, 8, 8), angle, (1, 2), **how).reshape(pictures.shape)


def federation(kind, seed):
    """Return the clients, and what makes an algorithm do as much on each as it can."""
    parts = {
        "labels": lambda: partition_shards(y, CLIENTS, seed),
        "amounts": lambda: partition_quantity(len(X), CLIENTS, 1.5, seed),
        "labels and amounts": lambda: partition_dirichlet(y, CLIENTS, 0.1, seed),
    }.get(kind, lambda: partition_iid(len(X), CLIENTS, seed))()
    clients = make_clients(X, y, parts)
    if kind == "features":
        clients = transform_clients(clients, turn, seed)
    if "amounts" not in kind:
        return clients, lambda algorithm: algorithm
    epochs = np.random.default_rng(seed).integers(1, 2 * EPOCHS + 1, CLIENTS)
    return clients, lambda algorithm: UnequalWork(algorithm, epochs)


def accuracies(method, setting, kind, seed, rounds, test=None):
    """Return the accuracy after each round on `test`, by default a quarter of the clients' own digits."""
    clients, work = federation(kind, seed)
    if test is None:
        pictures = np.concatenate([client.X[client.index] for client in clients])[::4]
        test = pictures, np.concatenate([client.y[client.index] for client in clients])[::4]
    reached = []
    try:
        simulate(
            METHODS[method][1](work, *setting),
            clients,
            NETWORK.init(seed),
            rounds=rounds,
            client_fraction=FRACTION,
            seed=seed,
            evaluate=lambda theta: reached.append(NETWORK.accuracy(theta, *test)) or {},
        )
    except FloatingPointError:  # too large a step is no use, however well it began
        return np.zeros(rounds)
    return np.array(reached)


def climb(score, ladders, start):
    """Return the setting that no neighbour beats, and how many were tried.

    A neighbour has one of its entries a step up or down its ladder. `start` is a setting.
    """
    score = cache(score)
    here = start
    while True:
        around = [here]
        for i, ladder in enumerate(ladders):
            place = ladder.index(here[i])
            for value in ladder[max(place - 1, 0) : place + 2]:
                around.append((*here[:i], value, *here[i + 1 :]))
        best = max(around, key=score)  # of equals the first: it stays where it is
        if best == here:
            return here, score.cache_info().currsize
        here = best


def measure(kind, methods=tuple(METHODS), trials=TRIALS, seeds=SEEDS, rounds=ROUNDS):
    """Return a row for each method, FedAvg first, which the others are compared with."""
    rows, last = [], min(LAST, rounds)
    test = (TURNED_TEST if kind == "features" else X_TEST), Y_TEST
    for method in methods:
        ladders = METHODS[method][0]

        def score(setting, method=method):
            return np.mean([accuracies(method, setting, kind, s, rounds)[-last:].mean() for s in trials])

        setting, tries = climb(score, ladders, tuple(START[ladder] for ladder in ladders))
        runs = np.array([accuracies(method, setting, kind, seed, rounds, test) for seed in seeds])
        level = runs[:, -last:].mean(axis=1)
        if method == "FedAvg":
            fedavg = level
        there = runs >= fedavg[:, None]  # as good as FedAvg in the end, in the same federation
        rows.append(
            {
                "clients differ in": kind,
                "method": method,
                "setting": setting,
                "tries": tries,
                "at an end": [
                    bool(value in (ladder[-1], ladder[0]) and value != 0)
                    for value, ladder in zip(setting, ladders, strict=True)
                ],
                "accuracy": level.round(4).tolist(),
                "rounds": [int(t.argmax()) + 1 if t.any() else None for t in there],
            }
        )
        print(f"{kind}: {method} {setting}, {tries} tried, {level.mean():.3f}", flush=True)
    return rows


def table(rows):
    """Return the matrix: a row for each method, a column for each kind."""
    fedavg = {row["clients differ in"]: row["accuracy"] for row in rows if row["method"] == "FedAvg"}
    lines = {row["method"]: {"method": row["method"]} for row in rows}
    for row in rows:
        kind, own = row["clients differ in"], np.array(row["accuracy"])
        gain = own - fedavg[kind]
        beside = f"; {100 * gain.mean():+.1f}, {sum(gain > 0)} of {len(gain)}"
        text = f"{100 * own.mean():.1f}%" + (beside if row["method"] != "FedAvg" else "")
        lines[row["method"]]["they differ in " + kind] = text
    return list(lines.values())


def main():
    if sys.argv[1:] == ["quick"]:
        rows = measure("labels", ("FedAvg", "SCAFFOLD"), trials=(100,), seeds=(0,), rounds=3)
        print(table(rows))
        return
    rows = [row for kind in KINDS for row in measure(kind)]
    heading = (
        "Clients that differ: accuracy on test digits in rounds 21 to 30, mean over eight federations, and "
        "against FedAvg in points, with the number of federations in which it was better"
    )
    record("unequal", heading, rows, table=table(rows))


if __name__ == "__main__":
    main()
