"""Data-parallel training on two processes, one thread each: nnbrain under MPI beside PyTorch DDP on gloo.

The same network, batches, rule and precision. Each side starts two processes anew in every turn, and they
take turns; within a turn the shortest of several epochs counts, and of all turns the shortest.
"""

from common import peak_flops, record  # first: it pins all threads

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np

from nnbrain.distributed import mpiexec, ring_allreduce, run_ranks, train
from nnbrain.mlp import MLP, SGD

NETWORKS = ((784, 512, 256, 10), (64, 64, 10))
BATCH, SAMPLES, LEARNING_RATE = 128, 12800, 0.01
LENGTHS = (1_000, 10_000, 100_000, 1_000_000)  # of the vectors that are added up, float32
TURNS, EPOCHS = 5, 6


def data(n_features):
    rng = np.random.default_rng(0)
    return rng.random((SAMPLES, n_features), dtype=np.float32), rng.integers(0, 10, SAMPLES)


def shortest(function, wait_for_all, repeats):
    """Return the shortest time of a function that several processes call together."""
    best = float("inf")
    for _ in range(repeats):
        wait_for_all()
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def repeats_for(length):
    return 20 if length > 200_000 else 200


# ---- what runs on each of the processes; each returns seconds by what was done ----


def with_nnbrain():
    """Return seconds an epoch and seconds an all-reduce, under mpiexec."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    ways = {
        "nnbrain, MPI's Allreduce": lambda comm, vector: comm.Allreduce(MPI.IN_PLACE, vector),
        "nnbrain, its own ring": ring_allreduce,
        "nnbrain, silent": lambda comm, vector: None,
    }
    seconds = {}
    for sizes in NETWORKS:
        mlp, (X, y) = MLP(sizes), data(sizes[0])
        for way, allreduce in ways.items():
            ends = []
            train(
                world,
                mlp,
                mlp.init(0),
                X,
                y,
                optimizer=SGD(LEARNING_RATE),
                epochs=1 + EPOCHS,
                batch_size=BATCH,
                allreduce=allreduce,
                after_epoch=lambda epoch, loss, ends=ends: ends.append(time.perf_counter()),
            )
            seconds[f"{sizes} {way}"] = float(np.diff(ends).min())
    for length in LENGTHS if world.Get_size() > 1 else ():
        vector = np.zeros(length, np.float32)
        for way, allreduce in list(ways.items())[:2]:
            key = f"{length} {way.removeprefix('nnbrain, ')}"
            seconds[key] = shortest(lambda: allreduce(world, vector), world.Barrier, repeats_for(length))
    return seconds, world.Get_rank()


def with_torch(rank, p, meeting):
    """Return the same for PyTorch: eager, as in rivals.py, with each process' half of the same batches."""
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=p)
    seconds = {}
    for sizes in NETWORKS:
        torch.manual_seed(0)
        X, y = map(torch.from_numpy, data(sizes[0]))
        layers = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
        network = torch.nn.Sequential(*layers[:-1])
        if p > 1:
            network = DistributedDataParallel(network, gradient_as_bucket_view=True)
        optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, fused=True)

        def epoch(X=X, y=y, network=network, optimizer=optimizer):
            for batch in torch.randperm(len(X)).split(BATCH):
                index = batch.tensor_split(p)[rank]  # the seeds are the same, and so the batches
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(network(X[index]), y[index]).backward()
                optimizer.step()

        for way in ("PyTorch DDP, gloo", "PyTorch DDP, silent"):
            with network.no_sync() if way.endswith("silent") and p > 1 else nullcontext():
                epoch()
                seconds[f"{sizes} {way}"] = shortest(epoch, dist.barrier, EPOCHS)
    for length in LENGTHS if p > 1 else ():
        vector = torch.zeros(length)
        key = f"{length} PyTorch, gloo"
        seconds[key] = shortest(lambda: dist.all_reduce(vector), dist.barrier, repeats_for(length))
    dist.barrier()
    return seconds, rank


def between_threads(comm):
    """Return seconds of our ring on the ranks of one process."""
    seconds = {}
    for length in LENGTHS:
        add_up = partial(ring_allreduce, comm, np.zeros(length, np.float32))
        seconds[f"{length} our ring, threads"] = shortest(add_up, comm.Barrier, repeats_for(length))
    return seconds


# ---- starting them, and what came out ----


def outputs(*commands):
    """Run commands at once; return what the one that printed anything printed."""
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    try:
        texts = [process.communicate(timeout=300)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    if any(process.returncode for process in running):
        sys.exit(f"Failed: {commands}")
    return json.loads("".join(texts))


def turn():
    """Return seconds by what was done, on one process and on two."""
    here = [sys.executable, __file__]
    found = {1: {}, 2: {}}
    for p in found:
        found[p] |= outputs([*mpiexec(p), *here, "nnbrain"])
        with tempfile.TemporaryDirectory() as folder:
            meeting = str(Path(folder) / "meeting")
            found[p] |= outputs(*([*here, "torch", str(rank), str(p), meeting] for rank in range(p)))
    found[2] |= run_ranks(2, between_threads)[0]
    return found


def training_rows(best):
    rows = []
    for sizes in NETWORKS:
        ddp = best[2][f"{sizes} PyTorch DDP, gloo"]
        for name, silent in (
            ("nnbrain, MPI's Allreduce", "nnbrain, silent"),
            ("nnbrain, its own ring", "nnbrain, silent"),
            ("PyTorch DDP, gloo", "PyTorch DDP, silent"),
        ):
            one, two, mute = (best[p][f"{sizes} {way}"] for p, way in ((1, name), (2, name), (2, silent)))
            rows.append(
                {
                    "network": "-".join(map(str, sizes)),
                    "library": name,
                    "10³ samples/s, two processes": f"{SAMPLES / two / 1000:,.1f}",
                    "ratio to DDP": f"{ddp / two:.2f}",
                    "communication": f"{max(0.0, 1 - mute / two):.0%}",
                    "10³ samples/s, one process": f"{SAMPLES / one / 1000:,.1f}",
                    "speed-up": f"{one / two:.2f}",
                }
            )
    return rows


def sum_rows(best):
    ways = ("MPI's Allreduce", "its own ring", "PyTorch, gloo", "our ring, threads")
    headings = ("MPI's Allreduce, µs", "our ring under MPI, µs", "gloo, µs", "our ring on threads, µs")
    return [
        {"numbers": f"{length:,}"}
        | {h: f"{1e6 * best[2][f'{length} {way}']:,.0f}" for h, way in zip(headings, ways, strict=True)}
        for length in LENGTHS
    ]


def main():
    best = {1: {}, 2: {}}
    peaks = []
    for _ in range(TURNS):
        peaks.append(peak_flops())
        for p, seconds in turn().items():
            for what, value in seconds.items():
                best[p][what] = min(value, best[p].get(what, float("inf")))
    for row in [*training_rows(best), *sum_rows(best)]:
        print(row)
    low, high = min(peaks) / 1e9, max(peaks) / 1e9
    if low < 0.9 * high:
        sys.exit(
            f"Nothing is recorded: the peak went from {low:.0f} to {high:.0f} GFLOP/s, so something "
            "disturbed the run. Run it again when the machine is quiet."
        )
    heading = f"Data-parallel training, batches of {BATCH} shared by two processes, SGD, one thread each"
    record("distributed", heading, training_rows(best), ("torch", "mpi4py", "openmpi"))
    heading = "Adding up a float32 vector over two ranks"
    record("allreduce", heading, sum_rows(best), ("torch", "mpi4py", "openmpi"))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        side, *given = sys.argv[1:]
        seconds, rank = with_nnbrain() if side == "nnbrain" else with_torch(*map(int, given[:2]), given[2])
        if rank == 0:
            print(json.dumps(seconds), flush=True)
        if side == "torch":
            os._exit(0)  # gloo's threads sometimes abort an orderly exit
