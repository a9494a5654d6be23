"""What the package's command lines share: kinds of arguments, exit codes, what is said and how."""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryFile
from typing import TextIO

USAGE, INTERRUPTED = 2, 130  # exit codes
# What bad input raises: the message says enough. Anything else is a fault, and shown with its traceback.
EXPECTED = (TypeError, ValueError, ArithmeticError, OSError, MemoryError)


def positive(text: str) -> int:
    """Return the text as an integer of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return int(text)


def natural(text: str) -> int:
    """Return the text as an integer of at least 0."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be an integer >= 0, got {text!r}")
    return int(text)


def new_file(text: str) -> Path:
    """Return the text as the path of a file, after a trial: that it cannot be written is said at once."""
    path = Path(text)
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder")
    try:
        TemporaryFile(dir=path.absolute().parent).close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"no file can be made in {path.parent}: {error.strerror}") from error
    return path


def text_of(error: BaseException) -> str:
    """Return what an error says, its notes in brackets."""
    return " ".join([str(error), *(f"({note})" for note in getattr(error, "__notes__", []))])


def wants_bar(options: argparse.Namespace) -> bool:
    """Return whether to show a progress bar: as ``--progress`` says, else if standard error is a terminal."""
    return sys.stderr.isatty() if options.progress is None else bool(options.progress)


def say(text: str, stream: TextIO | None = None) -> None:
    """Print at once and in one write, to standard output if not told otherwise: lines of ranks do not mix."""
    stream = stream or sys.stdout
    stream.write(text + "\n")
    stream.flush()
