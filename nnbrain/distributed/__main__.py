"""The command line: ``mpiexec -n 4 python -m nnbrain.distributed train``, and ``predict`` and ``bench``."""

import argparse
import contextlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from threadpoolctl import threadpool_limits

from nnbrain.command_line import EXPECTED, INTERRUPTED, USAGE, natural, new_file, positive, say, text_of
from nnbrain.distributed.comm import Communicator, run_ranks
from nnbrain.distributed.commands import bench_command, predict_command, train_command
from nnbrain.distributed.storage import MANIFEST

Program = Callable[[Communicator, argparse.Namespace], None]
COMMANDS: dict[str, Program] = {
    "train": train_command,
    "predict": predict_command,
    "bench": bench_command,
}
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK")  # of launchers, before MPI is started

EXAMPLES = """\
Without mpiexec there is one rank. With --threads N there are N, within one process, and MPI is not needed.
What a command can be told: python -m nnbrain.distributed train --help

examples:
  mpiexec -n 4 python -m nnbrain.distributed train --checkpoint run.npz --save theta.npy
      trains on the digits; started again after whatever stopped it, goes on from run.npz
  mpiexec -n 8 --hostfile hosts python -m nnbrain.distributed train --data shards/
      on the machines that the file hosts names, from data that nnbrain.distributed.write_shards wrote
  mpiexec -n 4 python -m nnbrain.distributed predict --theta theta.npy --out labels.npy
      labels the test digits, a part of them on each rank
  mpiexec -n 4 python -m nnbrain.distributed bench --json bench.json
      measures messages, all-reduces and steps of training on these ranks

exit codes: 0 done; 2 a wrong argument or unusable input, said on standard error; 1 a fault, with its
traceback and its rank; 130 interrupted (if it was mpiexec that was interrupted, a code of mpiexec's)."""


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Says the defaults of options that have one, 0 as well."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        none = action.default is None or action.default is False
        return action.help if none else super()._get_help_string(action)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(
        prog="python -m nnbrain.distributed",
        description="Train one network, or use it, on several processes that work together.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="{train,predict,bench}")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text, formatter_class=Formatter)
        hidden = [256] if name == "bench" else [64]
        one.add_argument(
            "--hidden",
            type=positive,
            nargs="*",
            default=hidden,
            metavar="N",
            help="units of each hidden layer" + (", as in training" if name == "predict" else ""),
        )
        one.add_argument(
            "--threads", type=positive, metavar="N", help="so many ranks within this process, without mpiexec"
        )
        return one

    def data(one: argparse.ArgumentParser, rows: str) -> None:
        one.add_argument("--data", type=known, default="digits", help=rows)
        one.add_argument(
            "--in-memory", action="store_true", help="each rank reads the whole folder of shards first"
        )

    def progress(one: argparse.ArgumentParser) -> None:
        one.add_argument(
            "--progress",
            action=argparse.BooleanOptionalAction,
            help="a progress bar on rank 0; by default if standard error is a terminal",
        )

    one = command("train", "Train on all ranks together; each takes its part of every batch.")
    data(one, "digits, mnist, or a folder of shards")
    progress(one)
    one.add_argument("--epochs", type=positive, metavar="N", default=10, help="passes through the data")
    one.add_argument(
        "--batch-size", type=positive, metavar="N", default=64, help="samples a step, of all ranks together"
    )
    one.add_argument("--learning-rate", type=float, metavar="X", default=0.1, help="step size, above 0")
    one.add_argument(
        "--momentum", type=float, metavar="X", default=0.0, help="share of the last step kept, in [0, 1)"
    )
    one.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="of all arithmetic")
    one.add_argument(
        "--seed", type=natural, metavar="N", default=0, help="of the first theta and of the batches"
    )
    one.add_argument("--save", type=new_file, metavar="FILE", help="for the trained vector theta (.npy)")
    one.add_argument(
        "--checkpoint",
        type=new_file,
        metavar="FILE",
        help="file (.npz) that is written after each epoch; if it is there, training goes on from it",
    )

    one = command("predict", "Label rows on all ranks together; each takes its part of the rows.")
    data(one, "the test rows of digits or of mnist, or all rows in a folder of shards")
    one.add_argument(
        "--theta", type=Path, metavar="FILE", required=True, help="of train --save, or a checkpoint"
    )
    one.add_argument(
        "--block", type=positive, metavar="N", default=1024, help="rows that a rank labels at once"
    )
    one.add_argument("--out", type=new_file, metavar="FILE", help="for the labels (.npy)")

    one = command("bench", "Measure messages, all-reduces and steps of training on these ranks.")
    progress(one)
    one.add_argument(
        "--batch-size", type=positive, metavar="N", default=256, help="samples a step, of all ranks together"
    )
    one.add_argument("--json", type=new_file, metavar="FILE", help="for what was measured, in seconds")
    return top


def known(text: str) -> str:
    """Return the text as the name of a data set, or of a folder with one."""
    if text not in ("digits", "mnist") and not (Path(text) / MANIFEST).is_file():
        raise argparse.ArgumentTypeError(
            f"must be digits, mnist or a folder of shards, got {text!r} (which has no {MANIFEST})"
        )
    return text


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    elsewhere = any(os.environ.get(name, "0") != "0" for name in RANK_VARIABLES)
    with contextlib.redirect_stderr(io.StringIO()) if elsewhere else contextlib.nullcontext():
        options = parser().parse_args(arguments)  # what is wrong with them is said once, by rank 0
    program = COMMANDS[options.command]
    if options.threads:
        if elsewhere:  # several launched: each would do all of the work, and write the same files
            parser().error("--threads starts its ranks itself; leave out either it or mpiexec")
        return run_on_threads(program, options)
    return run_on_mpi(program, options)


def run_on_threads(program: Program, options: argparse.Namespace) -> int:
    """Run on ranks within this process."""
    try:
        run_ranks(options.threads, program, options)
    except EXPECTED as error:
        parser().exit(USAGE, f"{options.command}: {type(error).__name__}: {text_of(error)}\n")
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    return 0


def run_on_mpi(program: Program, options: argparse.Namespace) -> int:
    """Run as one of the ranks that mpiexec has started; if this one fails, it stops all."""
    if not any(name in os.environ for name in RANK_VARIABLES):
        os.environ.setdefault("OMPI_MCA_btl", "^sm")  # alone: Open MPI's shared memory would stay behind
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # mpi4py absent; or present, and no MPI library found
        parser().error(
            f"MPI cannot be loaded ({error}); install it with: pip install 'nnbrain[mpi]', or use --threads N"
        )
    comm = MPI.COMM_WORLD
    try:
        with threadpool_limits(limits=1, user_api="blas"):  # as run_ranks does: same sums, same bits
            program(comm, options)
    except KeyboardInterrupt:
        code = INTERRUPTED
        complain(f"rank {comm.Get_rank()}: stopped by Ctrl-C, or by mpiexec as another rank has failed")
    except EXPECTED as error:
        code = USAGE
        complain(f"rank {comm.Get_rank()}: {type(error).__name__}: {text_of(error)}")
    except Exception:
        code = 1
        complain(f"rank {comm.Get_rank()}:\n{traceback.format_exc()}")
    else:
        return 0
    if comm.Get_size() > 1:
        comm.Abort(code)  # one rank that fails must not leave the others waiting for it
    return code


def complain(text: str) -> None:
    """Print to standard error in one write, so that lines of several ranks do not mix."""
    say(text, sys.stderr)


if __name__ == "__main__":
    # What mpiexec sends to stop its ranks: as Ctrl-C, so that a file half written is taken away.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
