"""Rounds that wait for nobody: the server moves θ whenever enough updates have come, old ones among them."""

from collections.abc import Callable, Sequence

from threadpoolctl import threadpool_limits

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.distributed.asynchrony import Cluster
from nnbrain.federated.algorithms import NOTHING, Algorithm, Update
from nnbrain.federated.clients import Client, Memory, check_clients
from nnbrain.federated.randomness import SELECTION, UPDATE, generator
from nnbrain.federated.rounds import Evaluate, Round, record_round
from nnbrain.federated.selection import draw

Damping = Callable[[int], float]


def inverse_root(staleness: int) -> float:
    """Return 1/√(1 + staleness), what a move computed from a θ so many steps old counts for."""
    return float((1 + staleness) ** -0.5)


def simulate_async(
    algorithm: Algorithm,
    clients: Sequence[Client],
    theta: Floats,
    cluster: Cluster,
    *,
    steps: int,
    buffer: int,
    concurrency: int | None = None,
    damping: Damping = inverse_root,
    seed: int = 0,
    evaluate: Evaluate | None = None,
) -> tuple[Floats, list[Round]]:
    """Return θ after some steps of buffered asynchronous training, and the history of the steps.

    A client gets the present θ when it starts, and its update goes into the server's buffer when its time has
    passed. When `buffer` updates are there, the server makes a step of them and empties it. Whenever fewer
    than `concurrency` clients are at work, idle ones are drawn to start, other than those whose updates still
    wait in the buffer.

    Parameters
    ----------
    algorithm : Algorithm
        Its `server_update` gets the buffer's updates, in the order in which they came, each vector multiplied
        by the damping of its staleness.
    clients : sequence of Client
    theta : array (mlp.size,)
        Where to start; not changed.
    cluster : Cluster
        Says how long a client works. It has one worker for each client, all idle.
    steps : int
        Of the server.
    buffer : int
        Updates that make a step. With 1, each is applied as it comes.
    concurrency : int, optional
        How many clients work at a time; all by default.
    damping : callable
        Factor of an update's vector as a function of its staleness: how many steps the server has made since
        the client got its θ.
    seed : int
        Of the choice of clients and of their batches.
    evaluate : callable, optional
        Takes θ after each step and returns named metrics.

    Returns
    -------
    theta : array (mlp.size,)
    history : list of Round
        One for each step; "time" is in its metrics, in virtual seconds, and "staleness" in what it says of
        each client.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, a client's data do not fit the network, or the algorithm sends its
        vectors in another form, as `Compressed` does.
    FloatingPointError
        If θ becomes NaN or infinite.

    Notes
    -----
    Nguyen et al. (2022), FedBuff. Where the buffer has room for all clients, nothing is stale, and this is
    `simulate`, to rounding.
    """
    checks.integer("steps", steps, minimum=0)
    checks.integer("seed", seed, minimum=0)
    state = algorithm.init(theta)
    clients = check_clients(algorithm.mlp, clients, theta)
    K = len(clients)
    concurrency = K if concurrency is None else checks.integer("concurrency", concurrency)
    for name, value in (("buffer", checks.integer("buffer", buffer)), ("concurrency", concurrency)):
        if value > K:
            raise ValueError(f"{name} must be at most the {K} clients there are, got {value}")
    if cluster.workers != K or cluster.busy:
        raise ValueError(
            f"cluster must have one idle worker for each of {K} clients, got {cluster.workers} workers and "
            f"{len(cluster.busy)} busy"
        )
    chooser = generator(seed, SELECTION, 0)
    memories: list[Memory] = [dict(client.memory) for client in clients]
    begun = [0] * K
    waiting: list[tuple[int, int, Update]] = []  # who, from which θ on, what
    history: list[Round] = []
    with threadpool_limits(limits=1, user_api="blas"):
        while len(history) < steps:
            idle = sorted(set(range(K)) - cluster.busy - {k for k, _, _ in waiting})
            free = min(concurrency - len(cluster.busy), len(idle))
            for k in (idle[i] for i in draw(len(idle), free, chooser)):
                begun[k] += 1
                rng = generator(seed, UPDATE, begun[k], clients[k].id)
                update = algorithm.client_update(state, clients[k].with_memory(memories[k]), rng)
                cluster.start(k, task=(len(history), update))
            done = next(cluster)
            version, update = done.task
            if update.memory:
                memories[done.worker] = dict(update.memory)
            waiting.append((done.worker, version, update._replace(memory=NOTHING)))
            if len(waiting) < buffer:
                continue
            staleness = [len(history) - version for _, version, _ in waiting]
            updates = [
                _scaled(update, damping(tau), theta)
                for (_, _, update), tau in zip(waiting, staleness, strict=True)
            ]
            waiting.clear()
            state = algorithm.server_update(state, updates)
            step = record_round(
                len(history) + 1,
                state["theta"],
                updates,
                evaluate,
                metrics={"time": done.time},
                per_client={"staleness": [float(tau) for tau in staleness]},
            )
            history.append(step)
    return state["theta"], history


def _scaled(update: Update, factor: float, theta: Floats) -> Update:
    if update.vector.shape != theta.shape:
        raise ValueError(
            f"algorithm must send vectors of theta's shape {theta.shape}, for them to be damped, got "
            f"{update.vector.shape} from client {update.client}: is it Compressed?"
        )
    return update._replace(vector=(update.vector * factor).astype(theta.dtype, copy=False))
