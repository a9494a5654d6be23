"""The command line: ``python -m nnbrain.federated table``, any cell of the FedAvg paper's table."""

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from nnbrain.command_line import EXPECTED, INTERRUPTED, natural, new_file, positive, say, text_of
from nnbrain.federated.commands import DATA, table_command
from nnbrain.federated.rounds_to_target import FARTHEST, PARTITIONS

DESCRIPTION = """\
Count the rounds that federated averaging takes to an accuracy on the test data, as McMahan et al. (2017) did:
after each round the best accuracy so far is taken, and between two rounds a straight line. Options that take
several values make a cell of each combination. Of several learning rates the one that is first at the target
with the first seed is taken for all seeds; with --extend it is looked for beyond them, too."""

EXAMPLES = """\
examples:
  python -m nnbrain.federated table
      20 clients share the small digits: some seconds
  python -m nnbrain.federated table --data mnist --partition shards --learning-rate 0.05 0.1 0.2
      the paper's cell of 664 rounds, the rate tuned; NNBRAIN_DATA may name MNIST's folder
  python -m nnbrain.federated table --partition iid shards --fraction 0 0.1 1 --seeds 0 1 2 --json t.json
      six cells, three seeds each; started again after whatever stopped it,
      goes on after the last run that t.json has

exit codes: 0 done, whether or not targets were reached; 2 a wrong argument or unusable input, said on
standard error; 1 a fault, with its traceback; 130 interrupted."""


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(
        prog="python -m nnbrain.federated",
        description="Federated learning, simulated.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="table")
    one = commands.add_parser(
        "table",
        help="rounds of federated averaging to an accuracy",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    group = one.add_argument_group("the federation")
    group.add_argument("--data", choices=DATA, default="digits", help="[digits]")
    group.add_argument(
        "--partition",
        choices=PARTITIONS,
        nargs="+",
        default=["iid"],
        help="iid deals the samples out at random; shards sorts them by label, so that most clients have two "
        "labels only [iid]",
    )
    group.add_argument("--clients", type=positive, help="K [digits 20, mnist 100]")
    group.add_argument("--hidden", type=positive, nargs="*", help="units a layer [digits 32, mnist 200 200]")

    group = one.add_argument_group("the algorithm")
    group.add_argument(
        "--fraction",
        type=share,
        nargs="+",
        default=[0.1],
        help="C, the share of clients in a round, in [0, 1]; 0 is one client [0.1]",
    )
    group.add_argument(
        "--batch-size", type=size, nargs="+", default=[10], help="B; inf is all that a client has [10]"
    )
    group.add_argument("--epochs", type=positive, nargs="+", default=[1], help="E [1]")
    group.add_argument("--learning-rate", type=rate, nargs="+", default=[0.1], help="a grid of them [0.1]")
    group.add_argument(
        "--extend",
        action="store_true",
        help="where the grid's first or last rate is the best, go on beyond it by the ratio to the next, "
        f"until there is a worse one on either side; up to {FARTHEST} times",
    )

    group = one.add_argument_group("the measurement")
    group.add_argument("--target", type=accuracy, help="accuracy, in (0, 1) [digits 0.93, mnist 0.97]")
    group.add_argument("--rounds", type=positive, help="when to give up [digits 500, mnist 5000]")
    group.add_argument(
        "--seeds",
        type=natural,
        nargs="+",
        default=[0],
        help="each of first weights, partition, selection and batches [0]",
    )

    group = one.add_argument_group("how it is run")
    group.add_argument("--workers", type=positive, default=1, help="processes; the results are the same [1]")
    group.add_argument(
        "--json",
        type=new_file,
        help="file for all runs, written after each; those that it has already are not repeated",
    )
    group.add_argument(
        "--checkpoint",
        type=npz,
        help="file (.npz) for the run in hand, written after each round and removed at the run's end; if it "
        "is there, the run goes on from it. With several runs it needs --json",
    )
    group.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="a progress bar for each run [if standard error is a terminal]",
    )
    return top


def npz(text: str) -> Path:
    """Return the text as the path of a NumPy archive that can be written."""
    if not text.endswith(".npz"):
        raise argparse.ArgumentTypeError(f"must be a file .npz, got {text!r}")
    return new_file(text)


def size(text: str) -> int | None:
    """Return the text as a batch size; None if it is infinite."""
    return None if text in ("inf", "∞") else positive(text)


def between(low: float, high: float, ends: bool) -> Callable[[str], float]:
    """Return a function that takes a text as a number in an interval, with its ends or without."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not (low <= value <= high if ends else low < value < high):
            left, right = "[]" if ends else "()"
            raise argparse.ArgumentTypeError(f"must be in {left}{low:g}, {high:g}{right}, got {text!r}")
        return value

    return number


share, accuracy, rate = between(0, 1, True), between(0, 1, False), between(0, float("inf"), False)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    top = parser()
    options = top.parse_args(arguments)
    try:
        table_command(options)
    except EXPECTED as error:
        top.error(text_of(error))
    except KeyboardInterrupt:
        say("interrupted", sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: no file is left half written
    sys.exit(main())
