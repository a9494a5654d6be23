"""What a word on a command line may be: the same for all of the package's command lines."""

import argparse
from pathlib import Path


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
    """Return the text as the path of a file that can be written."""
    path = Path(text)
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder")
    return path
