"""What the command line does on every rank: train, predict, measure."""

import argparse
import hashlib
import json
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nnbrain.checkpoint import digest, write_whole
from nnbrain.checks import Floats
from nnbrain.command_line import say, wants_bar
from nnbrain.data import load_digits, load_mnist
from nnbrain.distributed.collectives import naive_allreduce, ring_allreduce, tree_allreduce
from nnbrain.distributed.comm import Communicator, LocalCommunicator, Metered
from nnbrain.distributed.costs import fit_alpha_beta, ping_pong, seconds_a_step
from nnbrain.distributed.data_parallel import Allreduce, check_agreement, train
from nnbrain.distributed.prediction import predict
from nnbrain.distributed.storage import Shards, open_shards
from nnbrain.mlp import MLP, SGD

Array = npt.NDArray[Any]
BENCH_BYTES = [4**k for k in range(1, 11)]  # 4 B to 1 MB


def train_command(comm: Communicator, options: argparse.Namespace) -> None:
    """Train on every rank; then each says what it holds, and rank 0 saves."""
    X, y, test = load(comm, options)
    if y is None:
        raise ValueError(f"--data: the rows in {options.data} have no labels to learn")
    check_agreement(comm, {"options": vars(options), "data": digest(X, y)})
    classes = 10 if test else max(2, int(y.max()) + 1)
    mlp = MLP((X.shape[1], *options.hidden, classes))
    metered = Metered(comm)
    here = 0  # epochs of this run; those before it are in the checkpoint
    with bar_on_rank_0(comm, options, options.epochs) as bar:

        def after_epoch(epoch: int, loss: float) -> None:
            nonlocal here
            here += 1
            bar.set_postfix(loss=f"{loss:.4f}")
            bar.update(epoch + 1 - bar.n)

        theta, losses = train(
            metered,
            mlp,
            mlp.init(options.seed, options.dtype),
            X,
            y,
            optimizer=SGD(options.learning_rate, momentum=options.momentum),
            epochs=options.epochs,
            batch_size=options.batch_size,
            rng=options.seed,
            checkpoint=options.checkpoint,
            after_epoch=after_epoch,
        )
    rank = comm.Get_rank()
    line = f"rank {rank} of {comm.Get_size()}: sent {metered.bytes_sent} bytes, theta {fingerprint(theta)}"
    if rank == 0:
        line += f", loss {losses[-1]:.4f}"
        if test:
            line += f", test accuracy {mlp.accuracy(theta, *test):.4f}"
        if here < options.epochs:
            line += f" ({options.epochs - here} of {options.epochs} epochs from {options.checkpoint})"
        if options.save:
            write_whole(options.save, partial(np.save, arr=theta))
    say(line)


def predict_command(comm: Communicator, options: argparse.Namespace) -> None:
    """Label all rows on all ranks together; rank 0 writes the labels and says how many are right."""
    X, y, test = load(comm, options)
    X, y = test or (X, y)
    theta = read_theta(options.theta)
    check_agreement(comm, {"options": vars(options), "data": digest(X), "theta": digest(theta)})
    mlp = network_of(theta, (X.shape[1], *options.hidden))
    labels = predict(comm, mlp, theta, X, options.block)
    if labels is None:
        return
    if options.out:
        write_whole(options.out, partial(np.save, arr=labels))
    line = f"{len(labels)} rows on {comm.Get_size()} ranks: labels {fingerprint(labels)}"
    say(line if y is None else f"{line}, accuracy {np.mean(labels == y):.4f}")


def bench_command(comm: Communicator, options: argparse.Namespace) -> None:
    """Measure what a message, an all-reduce and a step cost here; rank 0 says so, and writes it."""
    p = comm.Get_size()
    algorithms: dict[str, Allreduce] = {
        "naive": naive_allreduce,
        "tree": tree_allreduce,
        "ring": ring_allreduce,
    }
    if not isinstance(comm, LocalCommunicator):
        algorithms["MPI"] = lambda comm, vector: comm.Allreduce(None, vector)
    found: dict[str, Any] = {"ranks": p, "bytes": BENCH_BYTES}
    with bar_on_rank_0(comm, options, 3) as bar:
        if p > 1:
            found["alpha"], found["beta"] = fit_alpha_beta(BENCH_BYTES, ping_pong(comm, BENCH_BYTES))
        bar.update()
        found["allreduce"] = {
            name: [seconds_of(comm, method, n) for n in BENCH_BYTES] for name, method in algorithms.items()
        }
        bar.update()
        mlp = MLP((784, *options.hidden, 10))
        for name, method in {"step": ring_allreduce, "step_alone": lambda comm, vector: None}.items():
            found[name] = seconds_a_step(comm, mlp, options.batch_size, steps=10, repeats=3, allreduce=method)
        bar.update()
    if comm.Get_rank() == 0:
        say(report(found, mlp, options.batch_size))
        if options.json:
            text = json.dumps(found, indent=1).encode()
            write_whole(options.json, lambda file: file.write(text))


# ---- what they need ----


def load(
    comm: Communicator, options: argparse.Namespace
) -> tuple[Array | Shards, Array | None, tuple[Array, Array] | None]:
    """Return X, y, and (X, y) to test on, which folders of shards do not have."""
    if options.data in ("digits", "mnist"):
        X, y, *test = load_mnist() if options.data == "mnist" else load_digits()
        return X, y, (test[0], test[1])
    rows, labels = open_shards(options.data, verify=comm.Get_rank() == 0)
    return np.take(rows, np.arange(len(rows)), axis=0) if options.in_memory else rows, labels, None


def read_theta(path: Path) -> Floats:
    """Return θ from a file of ``train --save`` (.npy) or from a checkpoint (.npz)."""
    try:
        with open(path, "rb") as stream:
            file = np.load(stream, allow_pickle=False)
            theta: Floats = file if isinstance(file, np.ndarray) else file["theta"]
    except FileNotFoundError:
        raise
    except Exception as error:  # numpy, zipfile and zlib each have their own for a damaged file
        raise ValueError(f"--theta: {path} holds no theta, or is damaged ({error})") from error
    if theta.ndim != 1 or theta.dtype not in (np.float32, np.float64):
        raise ValueError(f"--theta: {path} holds {theta.dtype} of shape {theta.shape}, not a theta")
    return theta


def network_of(theta: Floats, sizes: tuple[int, ...]) -> MLP:
    """Return the network whose inputs and hidden layers are `sizes`, with as many outputs as θ is for."""
    inner = sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))
    classes, rest = divmod(theta.size - inner, sizes[-1] + 1)
    if rest or classes < 2:
        raise ValueError(
            f"--theta has {theta.size} numbers, which is no network of {'-'.join(map(str, sizes))} units and "
            "any number of classes; --data and --hidden must be as in training"
        )
    return MLP((*sizes, classes))


def seconds_of(comm: Communicator, allreduce: Allreduce, n_bytes: int) -> float:
    """Return the seconds of an all-reduce of so many bytes: the median of seven, as this rank saw it."""
    vector = np.zeros(n_bytes // 4, np.float32)
    times = []
    for _ in range(8):
        comm.Barrier()
        start = perf_counter()
        allreduce(comm, vector)
        times.append(perf_counter() - start)
    return float(np.median(times[1:]))


def report(found: dict[str, Any], mlp: MLP, batch_size: int) -> str:
    """Return what `bench_command` found as text."""
    lines = [f"{found['ranks']} rank{'s' if found['ranks'] > 1 else ''}"]
    if "alpha" in found:
        lines.append(f"a message takes {1e6 * found['alpha']:.2f} us and {1e9 * found['beta']:.3f} ns a byte")
    curves = found["allreduce"]
    lines.append("all-reduce, microseconds\n" + "".join(f"{name:>12}" for name in ["bytes", *curves]))
    for i, n in enumerate(found["bytes"]):
        lines.append(f"{n:12}" + "".join(f"{1e6 * curve[i]:12.1f}" for curve in curves.values()))
    step, alone = found["step"], found["step_alone"]
    lines.append(
        f"a step of {'-'.join(map(str, mlp.sizes))} with {batch_size} samples takes {1e6 * step:.0f} us, "
        f"without its all-reduce {1e6 * alone:.0f} us: {batch_size / step:.0f} samples/s"
    )
    return "\n".join(lines)


def bar_on_rank_0(comm: Communicator, options: argparse.Namespace, total: int) -> "tqdm[Any]":
    """Return a progress bar: on rank 0, if standard error is a terminal or ``--progress`` says so."""
    shown = comm.Get_rank() == 0 and wants_bar(options)
    return tqdm(total=total, desc=options.command, disable=not shown)


def fingerprint(array: Array) -> str:
    """Return the start of a hash of the array's bits."""
    return hashlib.sha256(array.tobytes()).hexdigest()[:12]
