"""Flower's own simulation: the apps of a real federation, its nodes played by processes of Ray.

`simulate` is our loop, and `federate` over the network a real federation; this stands between them. Needs
the extra ``flower``.
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.federated.algorithms import Algorithm
from nnbrain.federated.clients import Client, check_clients
from nnbrain.federated.flower import client_app, federate
from nnbrain.federated.rounds import Evaluate, Round

Config = dict[str, dict[str, Any]]
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
PATIENCE = 30.0  # seconds, before a node that has not said who it is, is asked again


def simulate_on_flower(
    algorithm: Algorithm,
    clients: Sequence[Client],
    theta: Floats,
    *,
    rounds: int,
    client_fraction: float = 1.0,
    seed: int = 0,
    workers: int = 2,
    evaluate: Evaluate | None = None,
) -> tuple[Floats, list[Round]]:
    """Return what `simulate` does, computed by the simulation engine of Flower.

    Parameters
    ----------
    algorithm, clients, theta, rounds, client_fraction, seed, evaluate
        As for `simulate`.
    workers : int
        Processes of Ray that play the nodes. They take some seconds to start.

    Returns
    -------
    theta : array (mlp.size,)
    history : list of Round

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or a client's data do not fit the network.
    AllClientsFailedError
        If no update arrives in a round.
    TimeoutError
        If a node does not say in two minutes which client it is.
    FloatingPointError
        If θ becomes NaN or infinite.

    Notes
    -----
    The engine numbers its nodes at random and registers no names, so that the server asks each node which
    client it is. In a real federation nobody should believe the answer.
    """
    checks.integer("workers", workers)
    clients = check_clients(algorithm.mlp, clients, theta)
    app = client_app(algorithm, lambda context: clients[_partition(context)], seed=seed)

    @app.query()
    def who(message: Message, context: Context) -> Message:
        record = MetricRecord({"client": clients[_partition(context)].id})
        return Message(RecordDict({"who": record}), reply_to=message)

    server = ServerApp()
    result: list[tuple[Floats, list[Round]]] = []

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        names = ask_names(grid, len(clients))
        done = federate(
            grid,
            algorithm,
            theta,
            rounds=rounds,
            client_fraction=client_fraction,
            seed=seed,
            evaluate=evaluate,
            nodes=lambda grid: names,
        )
        result.append(done)

    config: Config = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0},
        "init_args": {"num_cpus": workers, "include_dashboard": False, "logging_level": logging.ERROR},
    }
    with _quiet():
        run_simulation(server, app, num_supernodes=len(clients), backend_config=config)
    return result[0]


def ask_names(grid: Grid, n: int, timeout: float = 120.0) -> list[tuple[str, int]]:
    """Return which client each of `n` nodes says it is, and its number; who does not answer is asked again.

    Raises
    ------
    TimeoutError
        If some have not answered in `timeout` seconds.
    """
    names: dict[int, str] = {}
    end = time.monotonic() + timeout
    while len(names) < n:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{n} nodes should say who they are, {len(names)} have in {timeout:g} s")
        silent = [node for node in grid.get_node_ids() if node not in names]
        questions = [Message(RecordDict(), node, "query") for node in silent]
        for reply in grid.send_and_receive(questions, timeout=min(left, PATIENCE)) if questions else []:
            if reply.has_content():
                client = reply.content.metric_records["who"]["client"]
                names[reply.metadata.src_node_id] = str(client)
        time.sleep(0.05)  # nodes come one by one
    return [(name, node) for node, name in names.items()]


@contextmanager
def _quiet() -> Iterator[None]:
    """Say no to telemetry for a while, unless the user has said something of it."""
    ours = {name: value for name, value in QUIET.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _partition(context: Context) -> int:
    return int(context.node_config["partition-id"])
