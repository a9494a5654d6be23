"""What the machines of a federation run, as Flower wants it: `client` where data are, `server` where none."""

import numpy as np
from flwr.serverapp import ServerApp

from nnbrain.federated import Client, FedAvg
from nnbrain.federated.flower import client_app, federate
from nnbrain.federated.served import save_run
from nnbrain.mlp import MLP

mlp = MLP((64, 32, 10))
algorithm = FedAvg(mlp, epochs=5, batch_size=5, learning_rate=0.3)


def load(context):
    """Return the client that this node is: its owner has set which, and where its data lie."""
    with np.load(context.node_config["data"]) as own:
        X, y = own["X"], own["y"]
    return Client(context.node_config["client"], X, y, np.arange(len(y)))


client = client_app(algorithm, load, seed=0)
server = ServerApp()


@server.main()
def main(grid, context):
    config = context.run_config
    options = {name: config[name] for name in ("rounds", "n_clients", "timeout")}
    save_run(config["result"], *federate(grid, algorithm, mlp.init(0), seed=0, **options))
