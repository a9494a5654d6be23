"""The same algorithms and clients as apps of Flower, which runs them on machines of many owners.

Of `simulate` only the messengers change: `client_app` calls an algorithm's `client_update` where the data
are, `federate` is the round loop, and states go out and updates come back in Flower's messages, as the bytes
of the arrays. So θ ends as `simulate` ends it, bit for bit, given the same seed and the same participation.

Needs the extra ``flower``.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from threadpoolctl import threadpool_limits

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.federated.algorithms import Algorithm, State, Update
from nnbrain.federated.clients import Client, Memory
from nnbrain.federated.rounds import Evaluate, concluded
from nnbrain.federated.served import ServedRound
from nnbrain.federated.workers import SELECTION, UPDATE, generator

# What a question says beside the state: the round, whom it takes the node for, and the round of the client's
# last update that has arrived and had a memory (0: none).
ABOUT = ("number", "client", "remembered")


Nodes = Callable[[Grid], Iterable[tuple[str, int]]]


class AllClientsFailedError(RuntimeError):
    """Nobody who was asked in a round has answered with an update: there is nothing to fuse."""


# ---- the client's side ----


def client_app(algorithm: Algorithm, load: Callable[[Context], Client], *, seed: int = 0) -> ClientApp:
    """Return a ClientApp that answers each question with the algorithm's update.

    Parameters
    ----------
    algorithm : Algorithm
    load : callable
        Returns the client that this node is: ``load(context)``, where ``context.node_config`` has what
        the node's owner has set. It reads the data where they are.
    seed : int
        Of the client's random numbers, as in `simulate`.

    Notes
    -----
    What an algorithm wants kept (`Update.memory`) stays in the node's context. If the server has not received
    an update, what was kept with it does not count; if a node has lost what it kept, its app fails.
    """
    checks.integer("seed", seed, minimum=0)
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        content = message.content
        state = _arrays(content.array_records["state"])
        number, registered_as, remembered = _about(content)
        client = load(context)
        if client.id != registered_as:
            raise ValueError(f"registered as client {registered_as}, but the data are those of {client.id}")
        X, y = algorithm.mlp.check_data(state["theta"], client.X, client.y)
        client = replace(client, X=X, y=y, memory=_recall(context.state, remembered))
        with threadpool_limits(limits=1, user_api="blas"):
            update = algorithm.client_update(state, client, generator(seed, UPDATE, number, client.id))
        if update.memory:
            context.state[f"memory-{number}"] = _record(update.memory)
        return Message(_pack(update), reply_to=message)

    return app


def _about(content: RecordDict) -> tuple[int, ...]:
    return tuple(int(content.metric_records["about"][key]) for key in ABOUT)  # type: ignore[arg-type]


def _recall(kept: RecordDict, remembered: int) -> Memory:
    """Return what was kept in that round, and forget what was kept in all others."""
    memory = f"memory-{remembered}"
    if remembered and memory not in kept:
        raise RuntimeError(f"the memory of round {remembered} is lost: this node has begun anew since")
    for name in [name for name in kept if name.startswith("memory-") and name != memory]:
        del kept[name]
    return _arrays(kept.array_records[memory]) if remembered else {}


def _record(arrays: Mapping[str, npt.NDArray[Any]]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def _arrays(record: ArrayRecord) -> dict[str, npt.NDArray[Any]]:
    return {name: array.numpy() for name, array in record.items()}


def _pack(update: Update) -> RecordDict:
    """Return what leaves the client: all of the update but its memory."""
    return RecordDict(
        {
            "vector": _record({"vector": update.vector}),
            "more": _record(update.more),
            "metrics": MetricRecord(
                {
                    "n_samples": float(update.n_samples),
                    "loss": float(update.loss),
                    "memories": len(update.memory),
                }
            ),
        }
    )


def _unpack(content: RecordDict, client: int, theta: Floats) -> Update:
    """Return the update that `client` sent, or raise: a reply is not to be trusted."""
    vector = content.array_records["vector"]["vector"].numpy()
    metrics = content.metric_records["metrics"]
    n_samples, loss = metrics["n_samples"], metrics["loss"]
    if vector.shape != theta.shape or vector.dtype != theta.dtype:
        raise ValueError(f"its vector is {vector.shape} {vector.dtype}, not {theta.shape} {theta.dtype}")
    more = _arrays(content.array_records["more"])
    for name, array in {"vector": vector, **more}.items():
        if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
            raise ValueError(f"its {name} is not finite")
    if not isinstance(n_samples, int | float) or not 0 < n_samples < np.inf:
        raise ValueError(f"it speaks for {n_samples} samples")
    if not isinstance(loss, float) or np.isnan(loss):
        raise ValueError(f"its loss is {loss}")
    return Update(client, vector, n_samples, loss, more)


# ---- the server's side ----


def federate(
    grid: Grid,
    algorithm: Algorithm,
    theta: Floats,
    *,
    rounds: int,
    n_clients: int = 1,
    client_fraction: float = 1.0,
    seed: int = 0,
    timeout: float | None = None,
    evaluate: Evaluate | None = None,
    nodes: Nodes | None = None,
) -> tuple[Floats, list[ServedRound]]:
    """Return θ after some rounds of federated training over Flower's grid, and the history of the rounds.

    The counterpart of `simulate`. Each node is the client whose id it was registered under, as its name: who
    a client is depends on the key that its node signs with, not on what a message claims.

    Parameters
    ----------
    grid : Grid
        The way to the nodes, as a ServerApp is given it.
    algorithm : Algorithm
    theta : array (mlp.size,)
        Where to start; not changed.
    rounds : int
    n_clients : int
        How many nodes must be online before the first round; later ones ask whoever is.
    client_fraction : float
        C in (0, 1]: max(1, round(C K)) of the K nodes that are online are asked in a round.
    seed : int
        Of the selection, as in `simulate`.
    timeout : float, optional
        Seconds to wait, for nodes to be online and, in each round, for their answers: then it goes on with
        those who have answered. None waits for ever.
    evaluate : callable, optional
        Takes θ after each round and returns named metrics for the history.
    nodes : callable, optional
        ``nodes(grid)`` returns the name and the number of each node that is online, by default as it was
        registered.

    Returns
    -------
    theta : array (mlp.size,)
    history : list of ServedRound

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or a node's name is not the id of a client of its own.
    TimeoutError
        If there are not enough nodes in time.
    AllClientsFailedError
        If no update arrives in a round; Flower's own strategies would call that round a success.
    FloatingPointError
        If θ becomes NaN or infinite.
    """
    checks.integer("rounds", rounds, minimum=0)
    checks.integer("n_clients", n_clients)
    checks.number("client_fraction", client_fraction, above=0, maximum=1)
    if timeout is not None:
        checks.number("timeout", timeout, above=0)
    state = algorithm.init(theta)
    remembered: dict[int, int] = {}
    history: list[ServedRound] = []
    for number in range(1, rounds + 1):
        start = time.monotonic()
        online = _wait_for(nodes or registered, grid, n_clients if number == 1 else 1, timeout)
        ids = sorted(online)
        n_selected = max(1, round(client_fraction * len(ids)))
        rng = generator(seed, SELECTION, number)
        asked = [ids[k] for k in np.sort(rng.choice(len(ids), n_selected, replace=False))]  # as `uniform`
        questions = {k: _question(state, (number, k, remembered.get(k, 0)), online[k]) for k in asked}
        replies = grid.send_and_receive(list(questions.values()), timeout=timeout)
        updates, per_client, failed = _answers(questions, replies, state["theta"])
        if not updates:
            raise AllClientsFailedError(
                f"no update arrived in round {number}; of the clients asked: {failed}"
            )
        kept = per_client.pop("memories")
        remembered |= {u.client: number for u, n in zip(updates, kept, strict=True) if n}
        state = algorithm.server_update(state, updates)
        seconds = {"seconds": time.monotonic() - start}
        done = concluded(number, state["theta"], updates, evaluate, metrics=seconds, per_client=per_client)
        history.append(ServedRound(**vars(done), failed=failed))
    return state["theta"], history


def registered(grid: Grid) -> Iterable[tuple[str, int]]:
    """Return the name that each node which is online was registered under, and its number."""
    return [(node.name, node.node_id) for node in grid.get_nodes()]


def _wait_for(nodes: Nodes, grid: Grid, n: int, timeout: float | None) -> dict[int, int]:
    """Return, for each client that is online, the number that Flower has given its node."""
    end = time.monotonic() + (np.inf if timeout is None else timeout)
    while True:
        found = list(nodes(grid))
        online = {int(name): node for name, node in found if name.isdecimal()}
        if len(online) < len(found):
            raise ValueError(
                f"nodes must be named by ids of clients, each its own, got {sorted(n for n, _ in found)}"
            )
        if len(online) >= n:
            return online
        if time.monotonic() >= end:
            raise TimeoutError(f"{n} nodes should be online, {len(online)} were after {timeout} s")
        time.sleep(0.2)


def _question(state: State, about: Sequence[int], node: int) -> Message:
    record = MetricRecord(dict(zip(ABOUT, about, strict=True)))
    content = RecordDict({"state": _record(state), "about": record})
    return Message(content, node, "train", group_id=str(about[0]))


def _answers(
    questions: Mapping[int, Message], replies: Iterable[Message], theta: Floats
) -> tuple[list[Update], dict[str, list[float]], dict[int, str]]:
    """Return the updates in the order of the questions, what is noted of each, and who failed and why."""
    by_question = {reply.metadata.reply_to_message_id: reply for reply in replies}
    updates: list[Update] = []
    noted: dict[str, list[float]] = {"seconds": [], "memories": []}
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
                update = _unpack(reply.content, client, theta)
                memories = float(reply.content.metric_records["metrics"].get("memories", 0))  # type: ignore[arg-type]
            except Exception as error:  # bytes from outside: NumPy raises many kinds over them
                failed[client] = f"an answer of another form: {error}"
                continue
            updates.append(update)
            noted["seconds"].append(reply.metadata.created_at - question.metadata.created_at)
            noted["memories"].append(memories)
    return updates, noted, failed
