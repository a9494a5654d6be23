"""What a real federation did: kept in a file, and replayed by `simulate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from numpy.random import Generator

from nnbrain.checkpoint import load_checkpoint
from nnbrain.checks import Floats
from nnbrain.federated.algorithms import State
from nnbrain.federated.rounds import Federation, Round
from nnbrain.federated.selection import Clients, History, Positions


@dataclass(frozen=True)
class Replayed:
    """For `simulate`'s select: in each round those take part who took part in a recorded one.

    Parameters
    ----------
    rounds : sequence of Round
    """

    rounds: Sequence[Round]

    def __call__(self, state: State, clients: Clients, n: int, rng: Generator, history: History) -> Positions:
        """Return the positions of those who took part in the round after `history`."""
        position = {client.id: k for k, client in enumerate(clients)}
        return [position[k] for k in self.rounds[len(history)].clients]


def save_run(path: str | Path, theta: Floats, history: Sequence[Round]) -> None:
    """Write what `federate` returned to a ``.npz`` file, which is there whole or not at all."""
    Federation({"theta": theta}, history=list(history)).save(path, {})


def load_run(path: str | Path) -> tuple[Floats, list[Round]]:
    """Return what `save_run` wrote.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is damaged.
    """
    run = Federation({})
    run.load(load_checkpoint(path, {}))
    return run.state["theta"], run.history
