"""Flower's apps made of our algorithms: the same bits as `simulate`, and every failure noticed."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.distributed import TopK
from nnbrain.federated import (
    Altered,
    Compressed,
    FedAvg,
    FedSGD,
    PersonalLayers,
    Scaffold,
    make_clients,
    simulate,
)
from nnbrain.federated.served import Replayed
from nnbrain.mlp import MLP

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg as FlowersFedAvg

from nnbrain.federated.flower import AllClientsFailedError, client_app, federate
from nnbrain.federated.local_grid import LocalGrid

mlp = MLP((64, 16, 10))
theta = mlp.init(0)
ALGORITHMS = [FedAvg(mlp, 2, 5, 0.3), Scaffold(mlp, 2, 5, 0.1, total_samples=200), FedSGD(mlp, 0.5)]
ALGORITHMS += [Altered(ALGORITHMS[0], lambda update, *_: update._replace(n_samples=update.n_samples / 64))]
ALGORITHMS += [PersonalLayers(mlp, 2, 5, 0.3)]  # whose server has a part of θ
ALGORITHMS += [Compressed(ALGORITHMS[0], TopK(0.1))]  # whose clients leave the vector out


@pytest.fixture(scope="module")
def clients():
    """Five clients with 5, 20, 40, 60 and 75 samples, the ids of which are not their positions."""
    X, y, *_ = load_digits()
    parts = np.split(np.random.default_rng(0).permutation(len(X))[:200], [5, 25, 65, 125])
    made = make_clients(X, y, parts)
    return [type(c)(c.id * 3 + 2, c.X, c.y, c.index) for c in made]


def apps(algorithm, clients, seed=0):
    return {c.id: client_app(algorithm, lambda context, c=c: c, seed=seed) for c in clients}


def assert_equal(served, simulated):
    np.testing.assert_array_equal(served[0], simulated[0])
    assert served[0].dtype == simulated[0].dtype
    for one, other in zip(served[1], simulated[1], strict=True):
        assert (one.number, one.clients, one.metrics["loss"]) == (
            other.number,
            other.clients,
            other.metrics["loss"],
        )
        assert {name: one.per_client[name] for name in other.per_client} == other.per_client


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_federation_over_flowers_messages_ends_with_the_bits_of_the_simulation(algorithm, dtype, clients):
    options = {"rounds": 4, "client_fraction": 0.6, "seed": 3}
    start = mlp.init(0, dtype)
    served = federate(LocalGrid(apps(algorithm, clients, seed=3)), algorithm, start, **options)
    assert_equal(served, simulate(algorithm, clients, start, **options))
    assert len({tuple(r.clients) for r in served[1]}) > 1
    np.testing.assert_array_equal(start, mlp.init(0, dtype))


class Losing(LocalGrid):
    """Answers are lost on their way: those of these clients in these rounds."""

    def __init__(self, apps, lost):
        super().__init__(apps)
        self.lost = {(str(number), client + 1000) for number, client in lost}

    def send_and_receive(self, messages, *, timeout=None):
        replies = super().send_and_receive(messages, timeout=timeout)
        return [r for r in replies if (r.metadata.group_id, r.metadata.src_node_id) not in self.lost]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: type(a).__name__)
def test_lost_answers_are_recorded_and_the_round_goes_on_with_the_others(algorithm, clients):
    """eq-served-round: as `simulate` with those who answered, in what a client keeps for itself too."""
    grid = Losing(apps(algorithm, clients), [(1, 5), (2, 5), (2, 14), (4, 2)])
    served = federate(grid, algorithm, theta, rounds=5)
    assert [set(r.failed) for r in served[1]] == [{5}, {5, 14}, set(), {2}, set()]
    assert served[1][1].failed == {5: "no answer in time", 14: "no answer in time"}
    assert_equal(served, simulate(algorithm, clients, theta, rounds=5, select=Replayed(served[1])))


def test_a_round_is_the_mean_move_of_those_who_answered(clients):
    """eq-served-round, computed apart."""
    algorithm = ALGORITHMS[0]
    after, _ = federate(Losing(apps(algorithm, clients), [(1, 5), (1, 8)]), algorithm, theta, rounds=1)
    rng = {c.id: np.random.default_rng(np.random.SeedSequence(0, spawn_key=(1, 1, c.id))) for c in clients}
    state = algorithm.init(theta)
    heard = [c for c in clients if c.id not in (5, 8)]
    moves = [algorithm.client_update(state, c, rng[c.id]).vector.astype(float) for c in heard]
    expected = theta + np.average(moves, axis=0, weights=[c.n_samples for c in heard])
    np.testing.assert_allclose(after, expected, rtol=0, atol=1e-6)


def test_a_client_that_raises_is_recorded_with_its_reason(clients):
    algorithm = ALGORITHMS[0]
    made = apps(algorithm, clients)

    def no_disk(context):
        raise OSError("no disk")

    made[8] = client_app(algorithm, no_disk)
    served = federate(LocalGrid(made), algorithm, theta, rounds=2)
    assert all(set(r.failed) == {8} and "no disk" in r.failed[8] for r in served[1])
    assert_equal(served, simulate(algorithm, clients, theta, rounds=2, select=Replayed(served[1])))


def test_if_all_fail_we_raise_where_flowers_strategy_reports_success(clients):
    made = {c.id: ClientApp() for c in clients}  # which have no train function
    with pytest.raises(AllClientsFailedError, match=r"no update arrived in round 1.*No train function"):
        federate(LocalGrid(made), ALGORITHMS[0], theta, rounds=1)
    strategy = FlowersFedAvg(fraction_evaluate=0.0, min_available_nodes=1)
    strategy.start(LocalGrid(made), ArrayRecord([theta]), num_rounds=1, timeout=5)


def test_a_node_that_has_lost_its_memory_says_so_if_it_needs_it(clients):
    for algorithm in ALGORITHMS[:2]:
        grid = LocalGrid(apps(algorithm, clients))

        def forgetful(context, c=clients[1]):
            return c

        app = client_app(algorithm, forgetful)

        def anew(message, context, app=app):
            context.state = RecordDict()
            return app(message, context)

        grid._apps[5 + 1000] = anew
        _, history = federate(grid, algorithm, theta, rounds=2)
        failed = history[1].failed
        assert (failed == {}) if type(algorithm) is FedAvg else ("memory of round 1 is lost" in failed[5])


def replace_vector(content, vector):
    content["vector"] = ArrayRecord([vector])
    content["vector"] = ArrayRecord({"vector": next(iter(content["vector"].values()))})


def replace_bytes(content, data):
    content["vector"] = ArrayRecord({"vector": Array("float32", (mlp.size,), "numpy.ndarray", data)})


def an_archive():
    file = BytesIO()
    np.savez(file, theta)
    return file.getvalue()


WRONG = {
    "its vector is": lambda content: replace_vector(content, np.zeros(3, np.float32)),
    "float64, not": lambda content: replace_vector(content, np.zeros(mlp.size)),
    "most have (('vector', (1210,), 'float32'),)": lambda content: replace_vector(content, theta[:0]),
    "not finite": lambda content: replace_vector(content, np.full(mlp.size, np.nan, np.float32)),
    "speaks for -5": lambda content: content.metric_records["metrics"].update({"n_samples": -5}),
    "its loss is nan": lambda content: content.metric_records["metrics"].update({"loss": float("nan")}),
    "its loss is inf": lambda content: content.metric_records["metrics"].update({"loss": float("inf")}),
    "of another form": lambda content: content.pop("metrics"),
    "No data left": lambda content: replace_bytes(content, b""),
    "NpzFile' object has no attribute": lambda content: replace_bytes(content, an_archive()),
    "must be a string or a real number": lambda content: content.metric_records["metrics"].update(
        {"memories": [1, 2]}
    ),
}


def federated_with_one_who_lies(algorithm, clients, lie):
    """Return what `federate` does if client 5 alters its answers, having checked that they are not fused."""
    grid = LocalGrid(apps(algorithm, clients))
    honest = grid._apps[5 + 1000]

    def lying(message, context):
        reply = honest(message, context)
        lie(reply.content)
        return reply

    grid._apps[5 + 1000] = lying
    served = federate(grid, algorithm, theta, rounds=2)
    assert [set(r.failed) for r in served[1]] == [{5}, {5}]
    assert_equal(served, simulate(algorithm, clients, theta, rounds=2, select=Replayed(served[1])))
    return served[1]


@pytest.mark.parametrize("reason", WRONG)
def test_an_answer_of_another_form_is_refused_and_not_fused(reason, clients):
    history = federated_with_one_who_lies(ALGORITHMS[0], clients, WRONG[reason])
    assert all(reason in r.failed[5] for r in history)


WRONG_MORE = {
    "none": {},
    "a number": {"change": np.float32(0)},
    "another type": {"change": np.zeros(mlp.size)},
    "another name": {"changes": np.zeros(mlp.size, np.float32)},
    "one too many": {"change": np.zeros(mlp.size, np.float32), "besides": np.zeros(3)},
}


@pytest.mark.parametrize("more", WRONG_MORE)
def test_who_sends_arrays_of_another_form_than_the_others_is_not_fused(more, clients):
    def lie(content):
        content["more"] = ArrayRecord({n: Array(np.asarray(a)) for n, a in WRONG_MORE[more].items()})

    history = federated_with_one_who_lies(ALGORITHMS[1], clients, lie)
    assert all("most have (('change', (1210,), 'float32')" in r.failed[5] for r in history)


@pytest.mark.parametrize("index", [[-1, -2, -3], [5000], []])
def test_a_client_whose_indices_are_not_its_datas_rows_is_refused_where_it_is(index, clients):
    wrong = [replace(c, index=np.array(index, int)) if c.id == 5 else c for c in clients]
    _, history = federate(LocalGrid(apps(ALGORITHMS[0], wrong)), ALGORITHMS[0], theta, rounds=1)
    assert set(history[0].failed) == {5}
    assert "clients must" in history[0].failed[5]


def test_who_a_client_is_depends_on_its_registration(clients):
    """A node registered as client 5 that holds 8's data, and one that answers in another's place."""
    algorithm = ALGORITHMS[0]
    made = apps(algorithm, clients)
    made[5] = made[8]
    _, history = federate(LocalGrid(made), algorithm, theta, rounds=1)
    assert "registered as client 5, but the data are those of 8" in history[0].failed[5]
    grid = LocalGrid(apps(algorithm, clients))
    honest = grid._apps[5 + 1000]

    def impostor(message, context):
        reply = honest(message, context)
        reply.metadata.__dict__["_src_node_id"] = 1008
        return reply

    grid._apps[5 + 1000] = impostor
    assert federate(grid, algorithm, theta, rounds=1)[1][0].failed == {5: "another node has answered"}


@pytest.mark.parametrize(
    ("changed", "error", "match"),
    [
        ({"rounds": -1}, ValueError, "rounds must be an integer >= 0"),
        ({"client_fraction": 0}, ValueError, "client_fraction must be finite and > 0"),
        ({"timeout": 0}, ValueError, "timeout must be finite and > 0"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0"),
        ({"seed": 1.5}, TypeError, "seed must be an integer"),
        ({"n_clients": 0}, ValueError, "n_clients must be an integer >= 1"),
        ({"n_clients": 9, "timeout": 0.01}, TimeoutError, "9 nodes should be online, 5 were"),
    ],
)
def test_bad_arguments_are_refused(changed, error, match, clients):
    with pytest.raises(error, match=match):
        federate(LocalGrid(apps(ALGORITHMS[0], clients)), ALGORITHMS[0], theta, **({"rounds": 1} | changed))


def test_nodes_are_named_by_ids_of_their_own(clients):
    grid = LocalGrid(apps(ALGORITHMS[0], clients))
    nodes = grid.get_nodes()
    for name in ("hospital", "2", ""):  # no number, one that is taken, none
        nodes[1].name = name
        grid.get_nodes = lambda: nodes
        with pytest.raises(ValueError, match="nodes must be named by ids of clients, each its own"):
            federate(grid, ALGORITHMS[0], theta, rounds=1)


def test_messages_are_flowers_own(clients):
    """What is pushed has the type, the round and the node that Flower's SuperLink routes by."""
    seen = []

    class Watched(LocalGrid):
        def push_messages(self, messages):
            messages = list(messages)
            seen.extend(messages)
            return super().push_messages(messages)

    federate(Watched(apps(ALGORITHMS[0], clients)), ALGORITHMS[0], theta, rounds=2)
    assert all(isinstance(m, Message) and m.metadata.message_type == "train" for m in seen)
    assert [m.metadata.group_id for m in seen] == ["1"] * 5 + ["2"] * 5
    assert [m.metadata.dst_node_id for m in seen[:5]] == [c.id + 1000 for c in clients]
