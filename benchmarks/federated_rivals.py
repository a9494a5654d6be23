"""The round of federated.py in another library: ``federated_rivals.py <library> <epochs> <rounds>``.

Each function yields after every round, the first of which compiles or starts what is needed. The last line
that this prints is JSON: the seconds of each round but the first, and versions.
"""

from common import versions  # first: it pins the BLAS threads

import functools
import itertools
import json
import logging
import os
import sys
import time

import numpy as np

SIZES, CLIENTS, PER_ROUND, BATCH, RATE = (784, 200, 200, 10), 100, 10, 10, 0.01


@functools.cache
def data():
    """Return X, y, and the rows of each client."""
    rng = np.random.default_rng(0)
    X, y = rng.random((60000, SIZES[0]), dtype=np.float32), rng.integers(0, 10, 60000)
    return X, y, np.array_split(rng.permutation(60000), CLIENTS)


def network(torch):
    layers = []
    for fan_in, fan_out in itertools.pairwise(SIZES):
        layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def descend(torch, net, optimizer, X, y, epochs):
    """Train a PyTorch network on a client's data."""
    for _ in range(epochs):
        for index in torch.randperm(len(X)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(X[index]), y[index]).backward()
            optimizer.step()


def pytorch(epochs, rounds):
    """Loop plainly; batches cut by an index, the fused optimiser."""
    import torch

    torch.set_num_threads(1)
    X, y, parts = data()
    X, y, parts = torch.from_numpy(X), torch.from_numpy(y), [torch.from_numpy(part) for part in parts]
    net = network(torch)
    parameters = list(net.parameters())
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        start = [p.detach().clone() for p in parameters]
        total = [torch.zeros_like(p) for p in start]
        for k in rng.choice(CLIENTS, PER_ROUND, replace=False):
            with torch.no_grad():
                for p, s in zip(parameters, start, strict=True):
                    p.copy_(s)
            optimizer = torch.optim.SGD(parameters, RATE, fused=True)
            descend(torch, net, optimizer, X[parts[k]], y[parts[k]], epochs)
            for t, p in zip(total, parameters, strict=True):
                t += p.detach() / PER_ROUND
        with torch.no_grad():
            for p, t in zip(parameters, total, strict=True):
                p.copy_(t)
        yield


def by_fit(arrays, X, y, epochs):
    """Train a client of Flower's by our `fit`; without arrays, return those to start from."""
    from nnbrain.mlp import MLP, SGD, fit

    mlp = MLP(SIZES)
    if arrays is None:
        return [mlp.init(0)]
    options = {"epochs": epochs, "batch_size": BATCH, "rng": np.random.default_rng()}
    return [fit(mlp, np.array(arrays[0]), X, y, optimizer=SGD(RATE), **options)[0]]


def by_pytorch(arrays, X, y, epochs):
    """Train a client of Flower's by PyTorch; without arrays, return those to start from."""
    import torch

    torch.set_num_threads(1)
    net = network(torch)
    if arrays is not None:
        with torch.no_grad():
            for parameter, array in zip(net.parameters(), arrays, strict=True):
                parameter.copy_(torch.tensor(array))
        optimizer = torch.optim.SGD(net.parameters(), RATE, fused=True)
        descend(torch, net, optimizer, torch.from_numpy(X), torch.from_numpy(y), epochs)
    return [parameter.detach().numpy() for parameter in net.parameters()]


def flower(epochs, rounds):
    """Its simulation on Ray, two clients at a time, which train by `nnbrain.mlp.fit`."""
    return flowers_simulation("by_fit", epochs, rounds)


def flower_pytorch(epochs, rounds):
    """Do the same with clients that train by PyTorch."""
    return flowers_simulation("by_pytorch", epochs, rounds)


def flowers_simulation(trainer, epochs, rounds):
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_DEDUP_LOGS": "0"}
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0"}
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    ends = []
    client = ClientApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        import federated_rivals  # the module of this process, in which the data are made once

        X, y, parts = federated_rivals.data()
        part = parts[context.node_config["partition-id"]]
        arrays = message.content["arrays"].to_numpy_ndarrays()
        arrays = getattr(federated_rivals, trainer)(arrays, X[part], y[part], epochs)
        metrics = MetricRecord({"num-examples": len(part)})
        content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
        return Message(content, reply_to=message)

    server = ServerApp()

    @server.main()
    def main(grid, context):
        strategy = FedAvg(
            fraction_train=PER_ROUND / CLIENTS,
            fraction_evaluate=0.0,
            min_train_nodes=PER_ROUND,
            min_available_nodes=CLIENTS,
        )

        def note_the_time(number, arrays):
            ends.append(time.perf_counter())
            return MetricRecord({"round": number})

        initial = ArrayRecord(globals()[trainer](None, None, None, 0))
        strategy.start(grid=grid, initial_arrays=initial, num_rounds=rounds, evaluate_fn=note_the_time)

    # Ray would set OMP_NUM_THREADS by itself, but not OpenBLAS's.
    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0}, "init_args": {"num_cpus": 2}}
    run_simulation(server, client, num_supernodes=CLIENTS, backend_config=resources)
    yield from ends[1:]  # the first is before the first round


def fedjax(epochs, rounds):
    """Its federated averaging, compiled by JAX; data in memory."""
    import fedjax
    import jax
    import jax.numpy as jnp

    X, y, parts = data()
    clients = {k: {"x": X[part], "y": y[part]} for k, part in enumerate(parts)}
    federation = fedjax.InMemoryFederatedData(clients)
    rng = np.random.default_rng(0)
    params = [
        (jnp.asarray(rng.normal(0, np.sqrt(2 / m), (m, n)), jnp.float32), jnp.zeros(n))
        for m, n in itertools.pairwise(SIZES)
    ]

    def loss(params, batch, key):
        out = batch["x"]
        for W, b in params[:-1]:
            out = jnp.maximum(out @ W + b, 0)
        log_p = jax.nn.log_softmax(out @ params[-1][0] + params[-1][1])
        return -jnp.take_along_axis(log_p, batch["y"][:, None], 1).mean()

    algorithm = fedjax.algorithms.fed_avg.federated_averaging(
        jax.grad(loss),
        fedjax.optimizers.sgd(RATE),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(batch_size=BATCH, num_epochs=epochs),
    )
    state = algorithm.init(params)
    key = jax.random.PRNGKey(0)
    for _ in range(rounds):
        chosen = rng.choice(CLIENTS, PER_ROUND, replace=False)
        work = [(int(k), federation.get_client(int(k)), jax.random.fold_in(key, int(k))) for k in chosen]
        state, _ = algorithm.apply(state, work)
        jax.block_until_ready(state.params)
        yield


def fedlab(epochs, rounds):
    """Its serial trainer and synchronous server, with a DataLoader a client."""
    import torch
    from fedlab.contrib.algorithm.fedavg import FedAvgSerialClientTrainer, FedAvgServerHandler

    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    X, y, parts = data()
    X, y = torch.from_numpy(X), torch.from_numpy(y)

    class Parts:
        def get_dataloader(self, k, batch_size):
            own = torch.utils.data.TensorDataset(X[parts[k]], y[parts[k]])
            return torch.utils.data.DataLoader(own, batch_size, shuffle=True)

    trainer = FedAvgSerialClientTrainer(network(torch), CLIENTS)
    trainer.setup_dataset(Parts())
    trainer.setup_optim(epochs, BATCH, RATE)
    server = FedAvgServerHandler(network(torch), rounds, PER_ROUND / CLIENTS)
    server.num_clients = CLIENTS
    while not server.if_stop:
        trainer.local_process(server.downlink_package, server.sample_clients())
        for package in trainer.uplink_package:
            server.load(package)
        yield


def pfl(epochs, rounds):
    """Its simulated backend on one process, with PyTorch."""
    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.pytorch import PyTorchTensorDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam.base import NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    torch.set_num_threads(1)
    X, y, parts = data()
    X, y = torch.from_numpy(X), torch.from_numpy(y)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = network(torch)

        def loss(self, X, y, eval=False):
            return torch.nn.functional.cross_entropy(self.layers(X), y)

        def metrics(self, X, y, eval=False):
            return {}

    def dataset(k):
        return PyTorchTensorDataset([X[parts[k]], y[parts[k]]], user_id=k)

    federation = FederatedDataset(dataset, get_user_sampler("random", list(range(CLIENTS))))
    net = Network()
    model = PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), 1.0))
    ends = []

    class NoteTheTime(TrainingProcessCallback):
        def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
            ends.append(time.perf_counter())
            return False, Metrics()

    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=10**9,
            train_cohort_size=PER_ROUND,
            val_cohort_size=0,
        ),
        SimulatedBackend(training_data=federation, val_data=federation),
        model,
        NNTrainHyperParams(local_num_epochs=epochs, local_learning_rate=RATE, local_batch_size=BATCH),
        callbacks=[NoteTheTime()],
    )
    yield from ends


PACKAGES = {
    "pytorch": ("torch",),
    "flower": ("flwr", "ray"),
    "flower_pytorch": ("flwr", "ray", "torch"),
    "fedjax": ("fedjax", "jax"),
    "fedlab": ("fedlab", "torch"),
    "pfl": ("pfl", "torch"),
}


def main():
    library, epochs, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    ends = []
    for end in globals()[library](epochs, rounds):
        ends.append(time.perf_counter() if end is None else end)
    print(json.dumps({"seconds": np.diff(ends).tolist(), "versions": versions(*PACKAGES[library])}))


if __name__ == "__main__":
    main()
