"""Flower's own simulation: the apps of a real federation, its nodes played by processes of Ray.

`simulate` is our loop, and `federate` over the network a real federation; this stands between them. Needs
the extra ``flower``.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.federated.algorithms import Algorithm
from nnbrain.federated.clients import Client, check_clients
from nnbrain.federated.flower import client_app, federate
from nnbrain.federated.rounds import Evaluate
from nnbrain.federated.served import ServedRound

Config = dict[str, dict[str, Any]]
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}


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
) -> tuple[Floats, list[ServedRound]]:
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
    history : list of ServedRound

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or a client's data do not fit the network.
    AllClientsFailedError
        If no update arrives in a round.
    FloatingPointError
        If θ becomes NaN or infinite.

    Notes
    -----
    The engine numbers its nodes at random and registers no names, so that the server asks each node once
    which client it is. In a real federation nobody should believe the answer.
    """
    checks.integer("workers", workers)
    clients = check_clients(algorithm.mlp, clients, theta)
    app = client_app(algorithm, lambda context: clients[_partition(context)], seed=seed)

    @app.query()
    def who(message: Message, context: Context) -> Message:
        record = MetricRecord({"client": clients[_partition(context)].id})
        return Message(RecordDict({"who": record}), reply_to=message)

    server = ServerApp()
    result: list[tuple[Floats, list[ServedRound]]] = []

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        names: list[tuple[str, int]] = []

        def nodes(grid: Grid) -> Iterable[tuple[str, int]]:
            ids = list(grid.get_node_ids())
            if len(ids) == len(clients) and not names:
                replies = grid.send_and_receive([Message(RecordDict(), node, "query") for node in ids])
                for reply in replies:
                    client = reply.content.metric_records["who"]["client"]
                    names.append((str(client), reply.metadata.src_node_id))
            return names

        done = federate(
            grid,
            algorithm,
            theta,
            rounds=rounds,
            n_clients=len(clients),
            client_fraction=client_fraction,
            seed=seed,
            evaluate=evaluate,
            nodes=nodes,
        )
        result.append(done)

    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    config: Config = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0},
        "init_args": {"num_cpus": workers, "include_dashboard": False, "logging_level": logging.ERROR},
    }
    run_simulation(server, app, num_supernodes=len(clients), backend_config=config)
    return result[0]


def _partition(context: Context) -> int:
    return int(context.node_config["partition-id"])
