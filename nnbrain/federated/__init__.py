"""Part IV: many owners."""

from nnbrain.federated.aggregation import weighted_mean
from nnbrain.federated.algorithms import Algorithm, Altered, FedAvg, FedSGD, Update
from nnbrain.federated.clients import Client, make_clients, partition_iid, partition_shards
from nnbrain.federated.local import local_gradient, local_sgd
from nnbrain.federated.selection import uniform
from nnbrain.federated.simulation import Round, simulate

__all__ = [
    "Algorithm",
    "Altered",
    "Client",
    "FedAvg",
    "FedSGD",
    "Round",
    "Update",
    "local_gradient",
    "local_sgd",
    "make_clients",
    "partition_iid",
    "partition_shards",
    "simulate",
    "uniform",
    "weighted_mean",
]
