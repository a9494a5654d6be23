"""What travels between `federate` and the nodes: arrays as their bytes in Flower's messages, and a header.

Needs the extra ``flower``.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from nnbrain.checks import Floats
from nnbrain.federated.algorithms import State, Update

# What a question says beside the state: the round, whom it takes the node for, and the round of the client's
# last update that has arrived and had a memory (0: none).
HEADER = ("number", "client", "remembered")


def to_record(arrays: Mapping[str, npt.NDArray[Any]]) -> ArrayRecord:
    """Return arrays as Flower sends and keeps them."""
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def to_arrays(record: ArrayRecord) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a record."""
    return {name: array.numpy() for name, array in record.items()}


def pack_question(state: State, header: Sequence[int], node: int) -> Message:
    """Return the message that asks a node for its update."""
    record = MetricRecord(dict(zip(HEADER, header, strict=True)))
    return Message(
        RecordDict({"state": to_record(state), "header": record}), node, "train", group_id=str(header[0])
    )


def unpack_question(content: RecordDict) -> tuple[State, tuple[int, ...]]:
    """Return the state and the header of a question."""
    header = content.metric_records["header"]
    return to_arrays(content.array_records["state"]), tuple(int(header[key]) for key in HEADER)  # type: ignore[arg-type]


def pack_answer(update: Update) -> RecordDict:
    """Return what leaves the client: all of the update but its memory."""
    metrics: dict[str, Any] = {
        "n_samples": float(update.n_samples),
        "loss": float(update.loss),
        "memories": len(update.memory),
    }
    return RecordDict(
        {
            "vector": to_record({"vector": update.vector}),
            "more": to_record(update.more),
            "metrics": MetricRecord(metrics),
        }
    )


class Answer(NamedTuple):
    """An update that has arrived, how many memories its client has kept, and how long it took."""

    update: Update
    memories: float
    seconds: float


def read_answers(
    questions: Mapping[int, Message], replies: Iterable[Message], theta: Floats
) -> tuple[list[Answer], dict[int, str]]:
    """Return the answers in the order of the questions, and who failed and why."""
    by_question = {reply.metadata.reply_to_message_id: reply for reply in replies}
    answers: list[Answer] = []
    failed = {}
    for client, question in questions.items():
        reply = by_question.get(question.metadata.message_id)
        if reply is None:
            failed[client] = "no answer in time"
        elif reply.has_error():
            failed[client] = f"error {reply.error.code}: {reply.error.reason}"
        elif reply.metadata.src_node_id != question.metadata.dst_node_id:
            failed[client] = "another node has answered"
        else:
            try:
                update, memories = _unpack_answer(reply.content, client, theta)
            except Exception as error:  # bytes from outside: NumPy raises many kinds over them
                failed[client] = f"an answer of another form: {error}"
                continue
            seconds = reply.metadata.created_at - question.metadata.created_at
            answers.append(Answer(update, memories, seconds))
    outvoted = _outvoted([answer.update for answer in answers])
    return [a for a in answers if a.update.client not in outvoted], failed | outvoted


def _outvoted(updates: Sequence[Update]) -> dict[int, str]:
    """Return who has sent arrays of another form than most have: what is right, only they can say."""
    forms = {update.client: _form(update) for update in updates}
    votes = Counter(forms.values())
    usual = max(votes, key=votes.__getitem__, default=())
    return {
        client: f"an answer of another form: it has {given}, most have {usual}"
        for client, given in forms.items()
        if given != usual
    }


def _unpack_answer(content: RecordDict, client: int, theta: Floats) -> tuple[Update, float]:
    """Return the update that `client` sent, and how many memories it has kept, or raise: it may be forged."""
    vector = content.array_records["vector"]["vector"].numpy()
    metrics = content.metric_records["metrics"]
    n_samples, loss, memories = metrics["n_samples"], metrics["loss"], metrics["memories"]
    if vector.size and (vector.shape != theta.shape or vector.dtype != theta.dtype):  # it may be left out
        raise ValueError(f"its vector is {vector.shape} {vector.dtype}, not {theta.shape} {theta.dtype}")
    more = to_arrays(content.array_records["more"])
    for name, array in {"vector": vector, **more}.items():
        if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
            raise ValueError(f"its {name} is not finite")
    if not isinstance(n_samples, int | float) or not 0 < n_samples < np.inf:
        raise ValueError(f"it speaks for {n_samples} samples")
    if not isinstance(loss, float) or not np.isfinite(loss):
        raise ValueError(f"its loss is {loss}")
    return Update(client, vector, n_samples, loss, more), float(memories)  # type: ignore[arg-type]


def _form(update: Update) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    """Return the names, shapes and types of an update's arrays."""
    arrays = {"vector": update.vector, **update.more}
    return tuple(sorted((name, array.shape, str(array.dtype)) for name, array in arrays.items()))
