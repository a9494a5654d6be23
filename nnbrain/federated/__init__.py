"""Part IV: many owners."""

from nnbrain.federated.aggregation import (
    Clipped,
    GeometricMedian,
    Krum,
    TrimmedMean,
    coordinate_median,
    weighted_mean,
)
from nnbrain.federated.algorithms import Algorithm, Altered, FedAvg, FedSGD, Update
from nnbrain.federated.asynchronous import inverse_root, simulate_async
from nnbrain.federated.attacks import (
    ALittle,
    Colluding,
    InnerProduct,
    Scaled,
    Trigger,
    flip_labels,
    largest_shift,
    plant_trigger,
)
from nnbrain.federated.clients import (
    Client,
    make_clients,
    partition_dirichlet,
    partition_iid,
    partition_quantity,
    partition_shards,
    transform_clients,
)
from nnbrain.federated.fixed_point import FixedPoint
from nnbrain.federated.heterogeneity import FedNova, FedProx, Scaffold, UnequalWork
from nnbrain.federated.leakage import (
    Membership,
    gradient_distance,
    match_gradient,
    membership,
    read_inputs,
    sample_losses,
)
from nnbrain.federated.local import local_gradient, local_sgd
from nnbrain.federated.privacy import DifferentiallyPrivate, LocalNoise, clip, epsilon, poisson
from nnbrain.federated.rounds import Round
from nnbrain.federated.secret_sharing import reconstruct_secret, split_secret
from nnbrain.federated.selection import uniform
from nnbrain.federated.server_optimizers import Adaptive, FedOpt
from nnbrain.federated.simulation import simulate

__all__ = [
    "ALittle",
    "Adaptive",
    "Algorithm",
    "Altered",
    "Client",
    "Clipped",
    "Colluding",
    "DifferentiallyPrivate",
    "FedAvg",
    "FedNova",
    "FedOpt",
    "FedProx",
    "FedSGD",
    "FixedPoint",
    "GeometricMedian",
    "InnerProduct",
    "Krum",
    "LocalNoise",
    "Membership",
    "Round",
    "Scaffold",
    "Scaled",
    "Trigger",
    "TrimmedMean",
    "UnequalWork",
    "Update",
    "clip",
    "coordinate_median",
    "epsilon",
    "flip_labels",
    "gradient_distance",
    "inverse_root",
    "largest_shift",
    "local_gradient",
    "local_sgd",
    "make_clients",
    "match_gradient",
    "membership",
    "partition_dirichlet",
    "partition_iid",
    "partition_quantity",
    "partition_shards",
    "plant_trigger",
    "poisson",
    "read_inputs",
    "reconstruct_secret",
    "sample_losses",
    "simulate",
    "simulate_async",
    "split_secret",
    "transform_clients",
    "uniform",
    "weighted_mean",
]
