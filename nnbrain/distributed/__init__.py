"""Part III: many machines.

- Ranks and messages: `comm`, `mpi`, `collectives`, `costs`.
- One network on many ranks: `data_parallel`, `tensor_parallel`, `pipeline` and its `pipeline_schedules`,
  `sharded_optimizer`.
- Saying less: `compression`, `powersgd`, `local_sgd`.
- Not waiting: `asynchrony`, `scheduling`.
- When machines die: `failure_detector`, `recovery`, `coding`.
- On a cluster: `storage`, `prediction`, `commands`.
"""

from nnbrain.distributed.asynchrony import (
    Applied,
    Cluster,
    Finished,
    exponential,
    parameter_server,
    pareto,
    steady,
    straggler,
)
from nnbrain.distributed.coding import (
    coded_gradient,
    cyclic_repetition,
    decode,
    decoding_vector,
    fractional_repetition,
)
from nnbrain.distributed.collectives import (
    all_gather,
    broadcast,
    bytes_sent,
    naive_allreduce,
    predicted_time,
    reduce_scatter,
    ring_allreduce,
    tree_allreduce,
)
from nnbrain.distributed.comm import Communicator, DeadlockError, LocalCommunicator, Metered, run_ranks
from nnbrain.distributed.compression import (
    QSGD,
    CompressedAllreduce,
    Compressor,
    Half,
    Sign,
    TopK,
)
from nnbrain.distributed.costs import (
    amdahl,
    fit_alpha_beta,
    gustafson,
    ping_pong,
    seconds_a_step,
    step_time,
)
from nnbrain.distributed.data_parallel import check_agreement, gradient_of_shares, part_of_gradient, train
from nnbrain.distributed.failure_detector import (
    Heartbeats,
    alarm_time,
    false_alarm_rate,
    hear,
    phi,
    suspicions,
)
from nnbrain.distributed.local_sgd import train_with_local_steps
from nnbrain.distributed.mpi import mpiexec
from nnbrain.distributed.pipeline import PipelineWorker, cut_layers
from nnbrain.distributed.pipeline_schedules import bubble, gpipe, one_f_one_b, replay
from nnbrain.distributed.powersgd import PowerSGD
from nnbrain.distributed.prediction import predict, rows_of_rank
from nnbrain.distributed.recovery import (
    best_interval,
    expected_time,
    simulate_job,
    supervise,
    survive,
    surviving_mpiexec,
)
from nnbrain.distributed.scheduling import Served, fair_shares, serve, work_off
from nnbrain.distributed.sharded_optimizer import ShardedOptimizer
from nnbrain.distributed.storage import Shards, open_shards, write_shards
from nnbrain.distributed.tensor_parallel import TensorCut, TensorParallel

__all__ = [
    "QSGD",
    "Applied",
    "Cluster",
    "Communicator",
    "CompressedAllreduce",
    "Compressor",
    "DeadlockError",
    "Finished",
    "Half",
    "Heartbeats",
    "LocalCommunicator",
    "Metered",
    "PipelineWorker",
    "PowerSGD",
    "Served",
    "ShardedOptimizer",
    "Shards",
    "Sign",
    "TensorCut",
    "TensorParallel",
    "TopK",
    "alarm_time",
    "all_gather",
    "amdahl",
    "best_interval",
    "broadcast",
    "bubble",
    "bytes_sent",
    "check_agreement",
    "coded_gradient",
    "cut_layers",
    "cyclic_repetition",
    "decode",
    "decoding_vector",
    "expected_time",
    "exponential",
    "fair_shares",
    "false_alarm_rate",
    "fit_alpha_beta",
    "fractional_repetition",
    "gpipe",
    "gradient_of_shares",
    "gustafson",
    "hear",
    "mpiexec",
    "naive_allreduce",
    "one_f_one_b",
    "open_shards",
    "parameter_server",
    "pareto",
    "part_of_gradient",
    "phi",
    "ping_pong",
    "predict",
    "predicted_time",
    "reduce_scatter",
    "replay",
    "ring_allreduce",
    "rows_of_rank",
    "run_ranks",
    "seconds_a_step",
    "serve",
    "simulate_job",
    "steady",
    "step_time",
    "straggler",
    "supervise",
    "survive",
    "surviving_mpiexec",
    "suspicions",
    "train",
    "train_with_local_steps",
    "tree_allreduce",
    "work_off",
    "write_shards",
]
