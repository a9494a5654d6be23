"""One round of FedAvg (2NN, 100 clients of 600, C = 0.1, B = 10): nnbrain, six others, the products alone.

With --quick it takes fewer rounds and records nothing.
"""

from common import peak_flops, record, training_flops  # first: it pins the BLAS threads

import json
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
from run import make_environment

from nnbrain.federated import FedAvg, make_clients, partition_iid, simulate
from nnbrain.mlp import MLP

RIVALS = {  # each with the requirements of its environment, if not this one's, and how it computes
    "PyTorch, a loop": ("pytorch", None, "1 process"),
    "Flower's simulation, our fit": ("flower", "requirements-flower.txt", "2 Ray actors"),
    "Flower's simulation, PyTorch": ("flower_pytorch", "requirements-flower.txt", "2 Ray actors"),
    "fedjax": ("fedjax", "requirements-fedjax.txt", "1 process"),
    "FedLab": ("fedlab", "requirements-fedlab.txt", "1 process"),
    "pfl-research": ("pfl", "requirements-pfl.txt", "1 process"),
}
PROCESSES = {1: "1 process", 2: "2 processes"}
mlp = MLP((784, 200, 200, 10))


def federation(n_clients):
    rng = np.random.default_rng(0)
    X, y = rng.random((60000, 784), dtype=np.float32), rng.integers(0, 10, 60000)
    return make_clients(X, y, partition_iid(len(X), n_clients, 0))


def ours(epochs, workers, rounds):
    """Return the times from one round's end to the next's: starting the processes does not count."""
    ends = []

    def note_the_time(theta):
        ends.append(time.perf_counter())
        return {}

    simulate(
        FedAvg(mlp, epochs=epochs, batch_size=10, learning_rate=0.01),
        federation(100),
        mlp.init(0),
        rounds=rounds,
        client_fraction=0.1,
        workers=workers,
        evaluate=note_the_time,
    )
    return np.diff(ends)


def theirs(library, requirements, epochs, rounds):
    """Return the times of a library's rounds and its versions, or the reason why there are none."""
    python = make_environment(requirements) if requirements else sys.executable
    script = Path(__file__).with_name("federated_rivals.py")
    command = [python, script, library, str(epochs), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return None, {}, reason
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return found["seconds"], found["versions"], ""


def megabytes_beside_the_data(n_clients):
    """Return the most memory that making the clients and two rounds with ten of them allocate, data aside."""
    clients = federation(1)
    X, y = clients[0].X, clients[0].y
    tracemalloc.start()  # NumPy reports its arrays to it
    clients = make_clients(X, y, partition_iid(len(X), n_clients, 0))
    simulate(FedAvg(mlp), clients, mlp.init(0), rounds=2, client_fraction=10 / n_clients)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main():
    quick = "--quick" in sys.argv
    rows, reasons, installed = [], {}, {}
    peaks = {workers: peak_flops(workers) for workers in (1, 2)}
    for epochs in (1, 5):
        flops = 10 * 600 * epochs * training_flops(mlp.sizes)
        rounds = 3 if quick else 12 if epochs == 1 else 7

        def add(library, how, seconds, floor):
            rows.append(
                {
                    "library": library,
                    "E": epochs,
                    "on": how,
                    "seconds a round": f"{np.median(seconds):.3f}",
                    "fastest": f"{min(seconds):.3f}",
                    "times the floor of two cores": f"{np.median(seconds) / floor:.2f}",
                }
            )
            print(rows[-1], flush=True)

        floor = flops / peaks[2]
        for workers in (1, 2):
            add("the products alone", PROCESSES[workers], [flops / peaks[workers]], floor)
        own, others = {1: [], 2: []}, {}
        for name, (library, requirements, how) in RIVALS.items():
            for workers, seconds in own.items():  # ours again beside each, as a machine has its moods
                seconds.extend(ours(epochs, workers, 1 + rounds // 3))
            if name in reasons:
                continue
            found, numbers, reason = theirs(library, requirements, epochs, rounds)
            installed |= {f"{package} ({name})": number for package, number in numbers.items()}
            if reason:
                reasons[name] = reason
                rows.append({"library": name, "E": epochs, "on": f"did not run: {reason}"})
                print(rows[-1], flush=True)
            else:
                others[name] = how, found
        for workers, seconds in own.items():
            add("nnbrain", PROCESSES[workers], seconds, floor)
        for name, (how, seconds) in others.items():
            add(name, how, seconds, floor)
    for n_clients in (100, 10000):
        rows.append(
            {
                "library": "nnbrain",
                "on": f"{n_clients} clients: {megabytes_beside_the_data(n_clients):.0f} MB beside the data",
            }
        )
        print(rows[-1], flush=True)
    if quick:
        return
    heading = "A federated round: 2NN, 100 clients of 600, C = 0.1, B = 10"
    record("federated", heading, rows, more_versions=installed)


if __name__ == "__main__":
    main()
