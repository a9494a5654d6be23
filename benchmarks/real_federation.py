"""A federation on Flower's simulation, and one of real processes in which a node is killed: for the chapter.

Three to four minutes on two cores; with `--simulation` the first alone, and what is recorded of the second
stays. It fails if θ differs from that of `simulate` in a single bit.
"""

from common import RESULTS, machine, record, versions, write_table  # first: it pins all threads

import argparse
import base64
import json
import logging
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from federation_program import algorithm, mlp

from nnbrain.data import load_digits
from nnbrain.federated import FedAvg, make_clients, partition_shards, simulate
from nnbrain.federated.certificates import make_authority, make_node_key
from nnbrain.federated.deployment import Deployment
from nnbrain.federated.flower_simulation import simulate_on_flower
from nnbrain.federated.served import Replayed, load_run

SIZES, ROUNDS, TIMEOUT = (400, 150, 50), 6, 30.0
PROGRAM = Path(__file__).with_name("federation_program.py").read_text(encoding="utf-8")


def owners():
    """Return three clients with 400, 150 and 50 of the digits."""
    X, y, *_ = load_digits()
    order = np.random.default_rng(0).permutation(len(X))[: sum(SIZES)]
    return make_clients(X, y, np.split(order, np.cumsum(SIZES)[:-1]))


def run(clients, rounds=ROUNDS, timeout=TIMEOUT, killed=1, kill_in=2):
    """Return θ, the rounds, and what happened when, of a federation in which a client's node is killed."""
    events, start = [], time.monotonic()

    def note(who, what):
        events.append({"second": round(time.monotonic() - start, 1), "who": who, "what": what})

    with Deployment(PROGRAM) as deployment:
        note("superlink", "listens")
        for client in clients:
            data = deployment.folder / f"owner-{client.id}.npz"  # on the owner's own disk, in earnest
            np.savez(data, X=client.X[client.index], y=client.y[client.index])
            deployment.register(str(client.id))
            deployment.start_node(str(client.id), client=client.id, data=str(data))
            note(f"node-{client.id}", "registered and started")

        # Two who may not take part: one whose key nobody has registered, and one, with a registered key,
        # that believes another authority than the one that signed the server's certificate.
        make_node_key(deployment.folder, "node-stranger")
        deployment.start_node("stranger", client=0, data="")
        deployment.register("99")
        make_authority(deployment.folder, "foreign")
        deployment.start_node("99", authority="foreign", client=99, data="")

        result = deployment.folder / "result.npz"
        deployment.run(result=str(result), rounds=rounds, n_clients=len(clients), timeout=timeout)
        note("superlink", "run begins")
        victim = f"node-{killed}"
        received = f"ROUND {kill_in}]"
        deployment.wait_for(f"round {kill_in}", lambda: received in deployment.log(victim), timeout=150)
        deployment.kill(victim)
        note(victim, "killed")
        data = deployment.folder / f"owner-{killed}.npz"

        def back():
            """Start it as often as it takes: the SuperLink thinks for a minute that it is still there."""
            if not deployment.running(victim):
                deployment.start_node(str(killed), client=killed, data=str(data))
                note(victim, "started again")
            return deployment.log(victim).count("SuperNode ID") == 2

        deployment.wait_for(f"the return of {victim}", back, timeout=150)
        note(victim, "is back")
        for name in ("node-stranger", "node-99"):
            deployment.wait_for(f"the end of {name}", lambda name=name: not deployment.running(name))
        refused = {name: reason(deployment.log(name)) for name in ("node-stranger", "node-99")}
        deployment.wait_for("the result", result.exists, timeout=60 * rounds)
        note("superlink", "run has ended")
        theta, history = load_run(result)
    return theta, history, events, refused


def reason(log):
    """Return the line of a SuperNode's log that says why it has ended."""
    (line,) = [line for line in log.splitlines() if "CERTIFICATE_VERIFY_FAILED" in line or "[code:" in line]
    return line.strip()


def simulation(nodes=20, workers=2):
    """Return what there is to record of a run on Flower's simulation, and of ours beside it."""
    X, y, *_ = load_digits()
    clients = make_clients(X, y, partition_shards(y, nodes, rng=0))
    averaging = FedAvg(mlp, epochs=2, batch_size=10, learning_rate=0.1)
    options = {"rounds": 5, "client_fraction": 0.5}
    logging.getLogger("flwr").setLevel(logging.ERROR)
    start = time.perf_counter()
    expected, _ = simulate(averaging, clients, mlp.init(0), **options)
    middle = time.perf_counter()
    theta, history = simulate_on_flower(averaging, clients, mlp.init(0), workers=workers, **options)
    end = time.perf_counter()
    assert np.array_equal(theta, expected), np.abs(theta - expected).max()
    return {
        "kind": "simulation",
        "nodes": nodes,
        "workers": workers,
        **options,
        "seconds": round(end - middle, 2),
        "seconds of rounds": round(sum(r.metrics["seconds"] for r in history), 2),
        "seconds of simulate": round(middle - start, 2),
        "theta": as_text(theta),
        "equal": True,
        "machine": machine(),
        "versions": versions("flwr", "ray", "numpy"),
    }


def as_text(theta):
    """Return the bytes of θ as JSON can have them."""
    return base64.b64encode(theta.tobytes()).decode()


def processes():
    """Return what there is to record of a federation of processes, and a table of its rounds."""
    clients = owners()
    theta, history, events, refused = run(clients)
    expected, _ = simulate(
        algorithm, clients, mlp.init(0), rounds=len(history), seed=0, select=Replayed(history)
    )
    assert np.array_equal(theta, expected), np.abs(theta - expected).max()
    *_, X_test, y_test = load_digits()
    rows = [
        {
            "kind": "end",
            "theta": as_text(theta),
            "equal": True,
            "refused": refused,
        },
        *({"kind": "event", **event} for event in events),
        *({"kind": "round", **asdict(r)} for r in history),
    ]
    table = [
        {
            "round": r.number,
            "answered": ", ".join(map(str, r.clients)),
            "failed": json.dumps(r.failed) if r.failed else "none",
            "seconds": round(r.metrics["seconds"], 1),
        }
        for r in history
    ]
    print(json.dumps(table, indent=1), f"accuracy {mlp.accuracy(theta, X_test, y_test):.3f}", refused)
    return rows, table


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--simulation", action="store_true", help="record Flower's simulation alone")
    alone = parser.parse_args().simulation
    simulated = simulation()
    if alone:
        path = RESULTS / "real_federation.json"
        document = json.loads(path.read_text(encoding="utf-8"))
        others = [row for row in document["rows"] if row["kind"] != "simulation"]
        document["rows"] = [*others, simulated]
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        write_table()
        return
    rows, table = processes()
    heading = "A federation of processes with TLS and keys; client 1's node is killed in round 2"
    record("real_federation", heading, [*rows, simulated], ("flwr", "cryptography"), table)


if __name__ == "__main__":
    main()
