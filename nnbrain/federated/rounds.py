"""What a round did, and what of a federation outlasts it: the same whether simulated or real."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnbrain.checkpoint import Arrays, load_if_there, save_checkpoint
from nnbrain.checks import Floats
from nnbrain.federated.algorithms import State, Update
from nnbrain.federated.clients import Memory

Metrics = dict[str, float]
Evaluate = Callable[[Floats], Metrics]  # takes θ, returns named metrics


@dataclass(frozen=True)
class Round:
    """What one round did.

    Attributes
    ----------
    number : int
        From 1.
    clients : list of int
        The ids of those who took part.
    metrics : dict of str to float
        "loss" is the mean of the clients' local losses, weighted by their samples, and NaN if nobody took
        part; the others are what `evaluate` returned after the round.
    per_client : dict of str to list of float
        "loss", "n_samples" and "bytes_sent" of each, in the order of `clients`.
    failed : dict of int to str
        Of those who were asked in vain, the ids and what is known of the reason; nobody in a simulation.
    """

    number: int
    clients: list[int]
    metrics: Metrics = field(default_factory=dict)
    per_client: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        failed = {int(k): reason for k, reason in self.failed.items()}  # JSON makes text of the ids
        object.__setattr__(self, "failed", failed)


@dataclass
class Federation:
    """All that is remembered from one round to the next, and so all that a checkpoint holds."""

    state: State
    memories: dict[int, Memory] = field(default_factory=dict)
    history: list[Round] = field(default_factory=list)

    def save(self, path: str | Path, run: Mapping[str, Any]) -> None:
        """Write it to a ``.npz`` file, which is there whole or not at all."""
        text = json.dumps([asdict(round) for round in self.history])  # floats come back with all their bits
        arrays = {"history": np.frombuffer(text.encode(), np.uint8)}
        arrays |= {f"state.{name}": array for name, array in self.state.items()}
        for client, memory in self.memories.items():
            arrays |= {f"memory.{client}.{name}": array for name, array in memory.items()}
        save_checkpoint(path, arrays, run)

    def load(self, arrays: Arrays) -> None:
        """Take over what was saved, as `load_checkpoint` returns it."""
        self.history = [Round(**fields) for fields in json.loads(arrays.pop("history").tobytes())]
        for name, array in arrays.items():
            kind, rest = name.split(".", 1)
            if kind == "state":
                self.state[rest] = array
            else:
                client, of = rest.split(".", 1)
                self.memories.setdefault(int(client), {})[of] = array

    def resume(self, path: str | Path, run: Mapping[str, Any], rounds: int) -> None:
        """Take over what the checkpoint at `path` holds, if there is one yet, of at most as many rounds."""
        saved = load_if_there(path, run)
        if saved is not None:
            self.load(saved)
        if len(self.history) > rounds:
            raise ValueError(
                f"rounds must be at least the {len(self.history)} that {str(path)!r} has, got {rounds}"
            )


def record_round(
    number: int,
    theta: Floats,
    updates: Sequence[Update],
    evaluate: Evaluate | None = None,
    *,
    metrics: Metrics | None = None,
    per_client: Mapping[str, list[float]] | None = None,
) -> Round:
    """Return the record of a round that has moved the server's θ to `theta`.

    Parameters
    ----------
    number : int
    theta : array (mlp.size,)
    updates : sequence of Update
        Those that moved it.
    evaluate : callable, optional
    metrics, per_client : mapping, optional
        What there is to note besides.

    Raises
    ------
    FloatingPointError
        If θ is NaN or infinite somewhere; it names the clients who sent such numbers.
    """
    if not _finite(theta):
        raise FloatingPointError(f"theta is no longer finite in round {number}{_reason(updates)}")
    noted = {
        "loss": [float(u.loss) for u in updates],
        "n_samples": [float(u.n_samples) for u in updates],
        "bytes_sent": [float(u.bytes_sent) for u in updates],
        **(per_client or {}),
    }
    loss = float(np.average(noted["loss"], weights=noted["n_samples"])) if updates else float("nan")
    measured = evaluate(theta.copy()) if evaluate else {}
    # Plain numbers, whatever was given: a checkpoint holds nothing else.
    found = {name: float(value) for name, value in {"loss": loss, **(metrics or {}), **measured}.items()}
    return Round(number, [int(u.client) for u in updates], found, noted)


@contextmanager
def noting(note: str) -> Iterator[None]:
    """Add the note to any error that the block raises: by whom, and in which round."""
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise


def _finite(array: npt.NDArray[Any]) -> bool:
    return np.asarray(array).dtype.kind != "f" or bool(np.all(np.isfinite(array)))


def _reason(updates: Sequence[Update]) -> str:
    """Return who is to blame for a θ that is not finite, or else what may help."""
    faulty = [u.client for u in updates if not all(map(_finite, (u.vector, *u.more.values())))]
    senders = f": clients {faulty} sent NaN or infinity" if faulty else ""
    return senders if 0 < len(faulty) < len(updates) else f"{senders}; try a smaller learning_rate"
