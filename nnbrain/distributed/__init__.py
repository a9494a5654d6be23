"""Part III: many machines."""

from nnbrain.distributed.collectives import broadcast, ring_allreduce
from nnbrain.distributed.comm import Communicator, DeadlockError, LocalCommunicator, Metered, run_ranks
from nnbrain.distributed.data_parallel import part_of_gradient, train
from nnbrain.distributed.mpi import mpiexec

__all__ = [
    "Communicator",
    "DeadlockError",
    "LocalCommunicator",
    "Metered",
    "broadcast",
    "mpiexec",
    "part_of_gradient",
    "ring_allreduce",
    "run_ranks",
    "train",
]
