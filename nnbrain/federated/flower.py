"""The same algorithms and clients as apps of Flower, which runs them on machines of many owners.

Of `simulate` only the messengers change: `client_app` calls an algorithm's `client_update` where the data
are, `federate` is the round loop, and states go out and updates come back in Flower's messages, as the bytes
of the arrays. So θ ends as `simulate` ends it, bit for bit, given the same seed and the same participation.

Needs the extra ``flower``.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from threadpoolctl import threadpool_limits

from nnbrain import checks
from nnbrain.checkpoint import digest
from nnbrain.checks import Floats
from nnbrain.federated.algorithms import Algorithm
from nnbrain.federated.clients import Client, Memory, check_clients
from nnbrain.federated.flower_messages import (
    pack_answer,
    pack_question,
    read_answers,
    to_arrays,
    to_record,
    unpack_question,
)
from nnbrain.federated.randomness import SELECTION, UPDATE, generator
from nnbrain.federated.rounds import Evaluate, Federation, Round, record_round
from nnbrain.federated.selection import Select, number_asked, positions, uniform
from nnbrain.settings import settings_of

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
        state, (number, registered_as, remembered) = unpack_question(message.content)
        client = load(context)
        if client.id != registered_as:
            raise ValueError(f"registered as client {registered_as}, but the data are those of {client.id}")
        # Of θ the type alone counts: the server's may be a part of the network's.
        like_theta = np.zeros(algorithm.mlp.size, state["theta"].dtype)
        (client,) = check_clients(algorithm.mlp, [client], like_theta)
        client = client.with_memory(_recall(context.state, remembered))
        with threadpool_limits(limits=1, user_api="blas"):
            update = algorithm.client_update(state, client, generator(seed, UPDATE, number, client.id))
        if update.memory:
            context.state[f"memory-{number}"] = to_record(update.memory)
        return Message(pack_answer(update), reply_to=message)

    return app


def _recall(kept: RecordDict, remembered: int) -> Memory:
    """Return what was kept in that round, and forget what was kept in all others."""
    memory = f"memory-{remembered}"
    if remembered and memory not in kept:
        raise RuntimeError(f"the memory of round {remembered} is lost: this node has begun anew since")
    for name in [name for name in kept if name.startswith("memory-") and name != memory]:
        del kept[name]
    return to_arrays(kept.array_records[memory]) if remembered else {}


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
    select: Select = uniform,
    timeout: float | None = None,
    evaluate: Evaluate | None = None,
    checkpoint: str | Path | None = None,
    nodes: Nodes | None = None,
) -> tuple[Floats, list[Round]]:
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
    select : callable
        As for `simulate`, of the clients that are online, in the order of their ids. Their data are not
        here: a rule may look at a client's `id` and at nothing else of it, so that `Deadline`, `Useful` and
        `poisson` can be used, and `PowerOfChoice` cannot.
    timeout : float, optional
        Seconds to wait, for nodes to be online and, in each round, for their answers: then it goes on with
        those who have answered. None waits for ever.
    evaluate : callable, optional
        Takes θ after each round and returns named metrics for the history.
    checkpoint : path, optional
        As for `simulate`. What clients keep lies with their nodes: if these have begun anew, too, an
        algorithm whose clients remember cannot go on.
    nodes : callable, optional
        ``nodes(grid)`` returns the name and the number of each node that is online, by default as it was
        registered.

    Returns
    -------
    theta : array (mlp.size,)
    history : list of Round
        Its `clients` are those whose updates arrived. "seconds" is among the metrics, how long the round
        took, and in `per_client`, from the question (by the server's clock) to the answer (by the client's).

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, a node's name is not the id of a client of its own, or the checkpoint
        is damaged or of another run.
    AttributeError
        If `select` looks at more of a client than its id.
    TimeoutError
        If there are not enough nodes in time.
    AllClientsFailedError
        If no update arrives from those asked; Flower's own strategies would call that round a success.
    FloatingPointError
        If θ becomes NaN or infinite.

    Notes
    -----
    Under `DifferentiallyPrivate` use `poisson` or `uniform`, whichever `epsilon` is told. Chances are shares
    of those who are online: with fewer of them round(C K)/K may be above what `epsilon` was told.
    """
    checks.integer("rounds", rounds, minimum=0)
    checks.integer("n_clients", n_clients)
    checks.number("client_fraction", client_fraction, above=0, maximum=1)
    checks.integer("seed", seed, minimum=0)
    if timeout is not None:
        checks.number("timeout", timeout, above=0)
    federation = Federation(algorithm.init(theta))  # its memories: the round in which a client last kept one
    if checkpoint is not None:
        run = {
            "algorithm": settings_of(algorithm),
            "theta": digest(theta),
            "client_fraction": client_fraction,
            "seed": seed,
            "select": settings_of(select),
        }
        federation.resume(checkpoint, run, rounds)
    for number in range(len(federation.history) + 1, rounds + 1):
        start = time.monotonic()
        online = _wait_for(nodes or registered, grid, n_clients, timeout)
        n_clients = 1  # enough for the rounds that follow
        asked = _selected(
            select, federation, sorted(online), client_fraction, generator(seed, SELECTION, number)
        )
        remembered = {k: int(memory["round"]) for k, memory in federation.memories.items()}
        questions = {
            k: pack_question(federation.state, (number, k, remembered.get(k, 0)), online[k]) for k in asked
        }
        replies = grid.send_and_receive(list(questions.values()), timeout=timeout) if questions else []
        answers, failed = read_answers(questions, replies, federation.state["theta"])
        if failed and not answers:
            raise AllClientsFailedError(
                f"no update arrived in round {number}; of the clients asked: {failed}"
            )
        updates = [answer.update for answer in answers]
        federation.memories |= {a.update.client: {"round": np.array(number)} for a in answers if a.memories}
        federation.state = algorithm.server_update(federation.state, updates)
        done = record_round(
            number,
            federation.state["theta"],
            updates,
            evaluate,
            metrics={"seconds": time.monotonic() - start},
            per_client={"seconds": [answer.seconds for answer in answers]},
        )
        federation.history.append(replace(done, failed=failed))
        if checkpoint is not None:
            federation.save(checkpoint, run)
    return federation.state["theta"], federation.history


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


@dataclass(frozen=True)
class _Absent:
    """What the server knows of a client, whose data are elsewhere: its id."""

    id: int

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"select must do without a client's {name}: over Flower, the server knows the id and nothing else"
        )


def _selected(
    select: Select, federation: Federation, ids: list[int], client_fraction: float, rng: np.random.Generator
) -> list[int]:
    """Return the ids of those to ask."""
    clients = cast(Sequence[Client], [_Absent(k) for k in ids])
    n = number_asked(client_fraction, len(ids))
    chosen = select(federation.state, clients, n, rng, federation.history)
    return [ids[k] for k in positions(chosen, len(ids))]
