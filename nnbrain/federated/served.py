"""What a real federation did: its rounds, kept in a file, and replayed by `simulate`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnbrain.checkpoint import load_checkpoint, save_checkpoint
from nnbrain.checks import Floats
from nnbrain.federated.algorithms import State
from nnbrain.federated.clients import Client
from nnbrain.federated.rounds import Round


@dataclass(frozen=True)
class ServedRound(Round):
    """What one round of a real federation did.

    Attributes
    ----------
    number, clients, metrics, per_client
        As in `Round`; `clients` are those whose updates arrived. "seconds" is among the metrics, how long the
        round took, and in `per_client`, from the question (by the server's clock) to the answer (by the
        client's).
    failed : dict of int to str
        Of those who were asked in vain, the ids and what is known of the reason.
    """

    failed: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Replayed:
    """For `simulate`'s select: in each round those take part who took part in a recorded one.

    Parameters
    ----------
    rounds : sequence of Round
    """

    rounds: Sequence[Round]

    def __call__(
        self,
        state: State,
        clients: Sequence[Client],
        n: int,
        rng: np.random.Generator,
        history: Sequence[Round],
    ) -> Sequence[int]:
        """Return the positions of those who took part in the round after `history`."""
        position = {client.id: k for k, client in enumerate(clients)}
        return [position[k] for k in self.rounds[len(history)].clients]


def save_run(path: str | Path, theta: Floats, history: Sequence[ServedRound]) -> None:
    """Write what `federate` returned to a ``.npz`` file, which is there whole or not at all."""
    text = json.dumps([asdict(round) for round in history])
    save_checkpoint(path, {"theta": theta, "history": np.frombuffer(text.encode(), np.uint8)}, {})


def load_run(path: str | Path) -> tuple[Floats, list[ServedRound]]:
    """Return what `save_run` wrote."""
    saved = load_checkpoint(path, {})
    return saved["theta"], [read_round(fields) for fields in json.loads(saved["history"].tobytes())]


def read_round(fields: Mapping[str, Any]) -> ServedRound:
    """Return the round that JSON has as `fields`; its keys are text there."""
    return ServedRound(**{**fields, "failed": {int(k): reason for k, reason in fields["failed"].items()}})
