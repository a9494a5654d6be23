"""Part IV: many owners.

- The round: `clients`, `partitions`, `local` (its steps: `descent`), `algorithms`, `aggregation`,
  `simulation` (its processes: `workers`; its chance: `randomness`; its history: `rounds`).
- Clients that differ: `heterogeneity`, `server_optimizers`, `asynchronous`; `balance`; `selection`,
  `contributions`, `fairness`; `personal`.
- Saying less: `compressed`.
- What an update gives away: `leakage`, `privacy`, `accounting`.
- Adding without looking: `fixed_point`, `secret_sharing`, `ciphers`, `secure`, `secure_mean`.
- Clients that lie: `attacks`; the answers are in `aggregation`.
- Owners of columns: `vertical`.
- A real federation: `flower` (its messages: `flower_messages`), `served`, `local_grid`, `flower_simulation`,
  `deployment` (its keys: `certificates`).
- The paper's table: `rounds_to_target`, `commands`.
"""

from nnbrain.federated.accounting import epsilon
from nnbrain.federated.aggregation import (
    Clipped,
    GeometricMedian,
    Krum,
    TrimmedMean,
    coordinate_median,
    weighted_mean,
)
from nnbrain.federated.algorithms import Algorithm, Altered, FedAvg, FedSGD, Update, Wrapper
from nnbrain.federated.asynchronous import inverse_root, simulate_async
from nnbrain.federated.attacks import (
    ALittle,
    Colluding,
    InnerProduct,
    Scaled,
    Trigger,
    flip_labels,
    plant_trigger,
)
from nnbrain.federated.balance import (
    Balanced,
    ClassGaussians,
    Weighted,
    adjust_logits,
    class_counts,
    class_sums,
    class_weights,
    recalls,
)
from nnbrain.federated.clients import Client, make_clients, transform_clients
from nnbrain.federated.compressed import Compressed
from nnbrain.federated.contributions import Valued, shapley
from nnbrain.federated.fairness import client_accuracies, gini, worst_share
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
from nnbrain.federated.partitions import (
    partition_dirichlet,
    partition_iid,
    partition_quantity,
    partition_shards,
)
from nnbrain.federated.personal import Ditto, PersonalLayers
from nnbrain.federated.privacy import DifferentiallyPrivate, LocalNoise, clip, poisson
from nnbrain.federated.rounds import Round
from nnbrain.federated.secret_sharing import reconstruct_secret, split_secret
from nnbrain.federated.selection import (
    Deadline,
    PowerOfChoice,
    Useful,
    expected_slowest,
    last_losses,
    local_loss,
    round_ends,
    uniform,
)
from nnbrain.federated.server_optimizers import Adaptive, FedOpt
from nnbrain.federated.simulation import simulate
from nnbrain.federated.vertical import FeatureOwner, LabelOwner, VerticalCut, train_vertical

__all__ = [
    "ALittle",
    "Adaptive",
    "Algorithm",
    "Altered",
    "Balanced",
    "ClassGaussians",
    "Client",
    "Clipped",
    "Colluding",
    "Compressed",
    "Deadline",
    "DifferentiallyPrivate",
    "Ditto",
    "FeatureOwner",
    "FedAvg",
    "FedNova",
    "FedOpt",
    "FedProx",
    "FedSGD",
    "FixedPoint",
    "GeometricMedian",
    "InnerProduct",
    "Krum",
    "LabelOwner",
    "LocalNoise",
    "Membership",
    "PersonalLayers",
    "PowerOfChoice",
    "Round",
    "Scaffold",
    "Scaled",
    "Trigger",
    "TrimmedMean",
    "UnequalWork",
    "Update",
    "Useful",
    "Valued",
    "VerticalCut",
    "Weighted",
    "Wrapper",
    "adjust_logits",
    "class_counts",
    "class_sums",
    "class_weights",
    "client_accuracies",
    "clip",
    "coordinate_median",
    "epsilon",
    "expected_slowest",
    "flip_labels",
    "gini",
    "gradient_distance",
    "inverse_root",
    "last_losses",
    "local_gradient",
    "local_loss",
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
    "recalls",
    "reconstruct_secret",
    "round_ends",
    "sample_losses",
    "shapley",
    "simulate",
    "simulate_async",
    "split_secret",
    "train_vertical",
    "transform_clients",
    "uniform",
    "weighted_mean",
    "worst_share",
]
