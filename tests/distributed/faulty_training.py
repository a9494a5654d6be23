"""A training job one of whose ranks kills itself: started by test_recovery.py, on processes of its own.

Arguments: what follows a death ("nothing", "shrink" or "replace"), the folder for the checkpoint, which rank
dies, and in which of its all-reduces.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np

from nnbrain.checkpoint import digest
from nnbrain.distributed import ring_allreduce, survive, train
from nnbrain.mlp import MLP, SGD

EPOCHS, STEPS = 5, 6  # of 300 samples in batches of 50


def task(epochs=EPOCHS):
    rng = np.random.default_rng(5)
    X, y = rng.normal(size=(300, 20)), rng.integers(0, 4, 300)
    mlp = MLP((20, 12, 4))
    options = {"optimizer": SGD(0.1, momentum=0.9), "epochs": epochs, "batch_size": 50, "rng": 7}
    return (mlp, mlp.init(0, np.float64), X, y), options


def main(recovery, folder, victim, call):
    from mpi4py import MPI

    calls = 0

    def allreduce(comm, vector):
        nonlocal calls
        calls += 1
        if comm.Get_rank() == int(victim) and calls == int(call):
            try:
                (Path(folder) / "died").mkdir()
            except FileExistsError:  # once is enough
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        ring_allreduce(comm, vector)

    def say(comm, text):
        sys.stdout.write(f"rank {comm.Get_rank()} of {comm.Get_size()} pid {os.getpid()}: {text}\n")
        sys.stdout.flush()

    def work(comm):
        say(comm, "begins")
        arguments, options = task()
        options |= {"checkpoint": Path(folder) / "run.npz", "allreduce": allreduce}
        try:
            theta, losses = train(comm, *arguments, **options)
        except ValueError as error:
            say(comm, f"refuses: {error}")
            comm.Barrier()  # or the launcher would end those who have not spoken yet
            raise SystemExit(2) from None
        say(comm, f"ends with {digest(theta)} after {len(losses)} epochs")

    if recovery == "nothing":
        work(MPI.COMM_WORLD)
    else:
        survive(MPI.COMM_WORLD, work, replace=recovery == "replace")


if __name__ == "__main__":
    main(*sys.argv[1:])
