"""Run by test_flower.py: a federation on Flower's simulation, beside ours. Exits with 77 without Ray."""

import logging
import sys

import numpy as np
import ray

from nnbrain.data import load_digits
from nnbrain.federated import Scaffold, make_clients, partition_shards, simulate
from nnbrain.federated.flower_simulation import simulate_on_flower
from nnbrain.mlp import MLP


def main():
    try:
        ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR)
    except Exception as error:  # of many kinds: a node that does not start in time, no room for sockets
        print(error, file=sys.stderr)
        sys.exit(77)
    X, y, *_ = load_digits()
    mlp = MLP((64, 16, 10))
    theta = mlp.init(0)
    clients = make_clients(X, y, partition_shards(y, 6, rng=0))
    algorithm = Scaffold(mlp, 2, 10, 0.1, total_samples=len(y))  # whose clients remember
    options = {"rounds": 3, "client_fraction": 0.5, "seed": 3}
    served, history = simulate_on_flower(algorithm, clients, theta, **options)
    simulated, rounds = simulate(algorithm, clients, theta, **options)
    np.testing.assert_array_equal(served, simulated)
    assert [r.clients for r in history] == [r.clients for r in rounds]
    assert [r.metrics["loss"] for r in history] == [r.metrics["loss"] for r in rounds]
    print("the same bits and clients")


if __name__ == "__main__":
    main()
