"""Data-parallel training from the command line: ``mpiexec -n 4 python -m nnbrain.distributed train``."""

import argparse
import hashlib
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from nnbrain.checks import Floats
from nnbrain.data import load_digits, load_mnist
from nnbrain.distributed.comm import Communicator, Metered, run_ranks
from nnbrain.distributed.data_parallel import train
from nnbrain.mlp import MLP, SGD


def program(comm: Communicator, options: argparse.Namespace) -> None:
    """Train on every rank; then each says what it holds, and rank 0 saves."""
    X, y, X_test, y_test = load_mnist() if options.data == "mnist" else load_digits()
    mlp = MLP((X.shape[1], *options.hidden, 10))
    metered = Metered(comm)
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
    )
    rank = comm.Get_rank()
    digest = hashlib.sha256(theta.tobytes()).hexdigest()[:12]
    line = f"rank {rank} of {comm.Get_size()}: sent {metered.bytes_sent} bytes, theta {digest}"
    if rank == 0:
        line += f", loss {losses[-1]:.4f}, test accuracy {mlp.accuracy(theta, X_test, y_test):.4f}"
        if options.save:
            save(options.save, theta)
    sys.stdout.write(line + "\n")  # one write a rank, so that lines of several ranks do not mix
    sys.stdout.flush()


def save(path: Path, theta: Floats) -> None:
    """Write θ as .npy under another name, then rename: the file is whole or not there."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        try:
            np.save(file, theta)
        except BaseException:
            os.unlink(file.name)
            raise
    os.replace(file.name, path)


def positive(text: str) -> int:
    """Return the text as an integer of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(
        prog="python -m nnbrain.distributed",
        description="Train one network on several processes that share each batch.",
        epilog="On 4 processes: mpiexec -n 4 python -m nnbrain.distributed train. "
        "On 4 threads of one process, without MPI: python -m nnbrain.distributed train --threads 4.",
    )
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    one.add_argument("--data", choices=["digits", "mnist"], default="digits", help="what to learn")
    one.add_argument("--hidden", type=positive, nargs="*", default=[64], help="units of each hidden layer")
    one.add_argument("--epochs", type=positive, default=10, help="passes through the data")
    one.add_argument("--batch-size", type=positive, default=64, help="samples a step, of all ranks together")
    one.add_argument("--learning-rate", type=float, default=0.1, help="step size")
    one.add_argument("--momentum", type=float, default=0.0, help="share of the last step kept, in [0, 1)")
    one.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="of all arithmetic")
    one.add_argument(
        "--seed", type=int, default=0, help="at least 0, of the first weights and of the batches"
    )
    one.add_argument("--save", type=Path, help="file for the trained vector theta (.npy)")
    one.add_argument("--threads", type=positive, help="ranks within this process, instead of MPI's")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = parser().parse_args(arguments)
    if options.save and not options.save.absolute().parent.is_dir():
        parser().error(f"--save: there is no folder {options.save.parent}")
    if options.save and options.save.is_dir():
        parser().error(f"--save: {options.save} is a folder")
    if options.threads:
        try:
            run_ranks(options.threads, program, options)
        except (TypeError, ValueError, ArithmeticError, OSError) as error:
            parser().error(str(error))
        return 0
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # mpi4py absent; or present, and no MPI library found
        parser().error(
            f"MPI cannot be loaded ({error}); install it with: pip install 'nnbrain[mpi]', or use --threads N"
        )
    try:
        with threadpool_limits(limits=1, user_api="blas"):  # as run_ranks does: same sums, same bits
            program(MPI.COMM_WORLD, options)
    except Exception as error:  # one rank that fails must not leave the others waiting for it
        sys.stderr.write(f"rank {MPI.COMM_WORLD.Get_rank()}: {type(error).__name__}: {error}\n")
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
