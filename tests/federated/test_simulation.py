"""The round loop: memories, altered updates, selection, interruptions, misfits."""

import tracemalloc
from dataclasses import dataclass, replace

import numpy as np
import pytest

from nnbrain.federated import Altered, Client, FedAvg, FedSGD, make_clients, simulate
from nnbrain.mlp import MLP

mlp = MLP((64, 16, 10))
theta = mlp.init(0, np.float64)


@dataclass(frozen=True)
class Counting(FedSGD):
    """Every client keeps how often it took part, and sends it."""

    def client_update(self, state, client, rng):
        seen = client.memory.get("seen", np.zeros(1)) + 1
        return super().client_update(state, client, rng)._replace(more={"seen": seen}, memory={"seen": seen})

    def server_update(self, state, updates):
        assert not any(u.memory for u in updates)
        following = super().server_update(state, updates)
        return {**following, "seen": state.get("seen", np.zeros(4)) + [u.more["seen"][0] for u in updates]}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_client_gets_back_what_it_kept_and_the_server_does_not_see_it(unequal, workers):
    last = []

    @dataclass(frozen=True)
    class Watched(Counting):
        def server_update(self, state, updates):
            last[:] = [float(u.more["seen"][0]) for u in updates]
            return super().server_update(state, updates)

    if workers == 2:  # a local class does not pickle
        _, history = simulate(Counting(mlp), unequal, theta, rounds=3, workers=2)
        assert history[0].per_client["bytes_sent"] == [theta.nbytes + 8] * 4
    else:
        simulate(Watched(mlp), unequal, theta, rounds=3)
        assert last == [3.0] * 4


def half(update, state, client, rng):
    return update._replace(vector=update.vector / 2)


def test_an_altered_algorithm_sends_what_it_is_told_to(unequal):
    """Half the gradient at rate 1 is the gradient at rate 1/2."""
    one, _ = simulate(Altered(FedSGD(mlp, 1.0), half), unequal, theta, rounds=3)
    other, _ = simulate(FedSGD(mlp, 0.5), unequal, theta, rounds=3)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-15)


def test_an_interrupted_run_goes_on_with_the_same_bits(unequal, tmp_path):
    path = tmp_path / "run.npz"
    options = {"client_fraction": 0.5, "seed": 4, "evaluate": lambda t: {"norm": float(np.linalg.norm(t))}}
    undisturbed = simulate(FedAvg(mlp), unequal, theta, rounds=5, **options)
    simulate(FedAvg(mlp), unequal, theta, rounds=2, checkpoint=path, **options)
    resumed = simulate(FedAvg(mlp), unequal, theta, rounds=5, checkpoint=path, **options)
    np.testing.assert_array_equal(resumed[0], undisturbed[0])
    assert resumed[1] == undisturbed[1]
    with pytest.raises(ValueError, match="rounds must be at least the 5"):
        simulate(FedAvg(mlp), unequal, theta, rounds=4, checkpoint=path, **options)
    with pytest.raises(ValueError, match="its algorithm is"):
        simulate(FedAvg(mlp, epochs=2), unequal, theta, rounds=6, checkpoint=path, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]


def test_what_clients_keep_is_in_the_checkpoint(unequal, tmp_path):
    path = tmp_path / "run.npz"
    once, _ = simulate(Counting(mlp), unequal, theta, rounds=4)
    simulate(Counting(mlp), unequal, theta, rounds=2, checkpoint=path)
    again, _ = simulate(Counting(mlp), unequal, theta, rounds=4, checkpoint=path)
    np.testing.assert_array_equal(again, once)
    with np.load(path) as file:
        assert file["state.seen"].tolist() == [10.0] * 4  # 1 + 2 + 3 + 4
        assert [float(file[f"memory.{k}.seen"][0]) for k in range(4)] == [4.0] * 4


def only(*positions):
    return lambda state, clients, n, rng, history: positions


def chosen_from(group):
    def select(state, clients, n, rng, history):
        return group

    return select


def test_a_checkpoint_of_another_closure_is_refused(unequal, tmp_path):
    path = tmp_path / "run.npz"
    options = {"checkpoint": path, "select": chosen_from([0, 1])}
    simulate(FedSGD(mlp), unequal, theta, rounds=1, **options)
    simulate(FedSGD(mlp), unequal, theta, rounds=2, **options)
    with pytest.raises(ValueError, match=r"its select is .*group=\(0, 1\).*this run's .*group=\(0, 2\)"):
        simulate(FedSGD(mlp), unequal, theta, rounds=3, checkpoint=path, select=chosen_from([0, 2]))
    with pytest.raises(TypeError, match="as a dataclass"):
        simulate(FedSGD(mlp), unequal, theta, rounds=3, checkpoint=path, select=chosen_from(iter([0])))


def test_metrics_of_any_type_of_number_are_kept_in_the_checkpoint(unequal, tmp_path):
    options = {"evaluate": lambda t: {"first": np.float32(t[0]), "n": np.int64(3), "inf": np.inf}}
    clients = [replace(client, id=np.int64(client.id)) for client in unequal]
    simulate(FedSGD(mlp), clients, mlp.init(0), rounds=1, checkpoint=tmp_path / "run.npz", **options)
    after, history = simulate(
        FedSGD(mlp), clients, mlp.init(0), rounds=2, checkpoint=tmp_path / "run.npz", **options
    )
    assert [type(value) for value in history[0].metrics.values()] == [float] * 4
    assert history[1].metrics["first"] == after[0]


def test_the_order_in_which_a_rule_names_clients_changes_no_bit(unequal):
    runs = [
        simulate(FedAvg(mlp), unequal, theta, rounds=2, select=only(*k)) for k in ([0, 1, 2, 3], [3, 1, 0, 2])
    ]
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_client_brings_along_counts(unequal, workers, tmp_path):
    """Client 1 has seen five rounds elsewhere; the checkpoint is of the federation that it came to so."""
    path, memories = tmp_path / "run.npz", {}
    clients = [c.with_memory({"seen": np.array([5.0])}) if c.id == 1 else c for c in unequal]
    options = {"workers": workers, "checkpoint": path}
    simulate(Counting(mlp), clients, theta, rounds=2, memories=memories, **options)
    assert [float(memories[k]["seen"][0]) for k in range(4)] == [2.0, 7.0, 2.0, 2.0]
    with pytest.raises(ValueError, match="its clients is"):
        simulate(Counting(mlp), unequal, theta, rounds=3, checkpoint=path)


@pytest.mark.parametrize("answer", [[0, 0], [4], [-1], [0.5]])
def test_a_selection_that_makes_no_sense_is_refused(unequal, answer):
    with pytest.raises((ValueError, TypeError), match="select"):
        simulate(FedSGD(mlp), unequal, theta, rounds=1, select=lambda *_: answer)


def test_data_that_do_not_fit_are_reported_with_their_client(unequal):
    bad = replace(unequal[2], X=np.full_like(unequal[2].X, np.nan))
    with pytest.raises(ValueError, match=r"client 2: X must be finite"):
        simulate(FedSGD(mlp), [*unequal[:2], bad], theta, rounds=1)
    narrow = replace(unequal[2], X=np.ascontiguousarray(unequal[2].X[:, :60]))
    with pytest.raises(ValueError, match="client 2: X must"):
        simulate(FedSGD(mlp), [*unequal[:2], narrow], theta, rounds=1)


def test_a_client_with_one_class_takes_part(digits):
    X, y, *_ = digits
    clients = make_clients(X, y, [np.flatnonzero(y == 3), np.flatnonzero(y != 3)])
    after, history = simulate(FedAvg(mlp), clients, theta, rounds=2)
    assert np.all(np.isfinite(after))
    assert history[1].per_client["n_samples"] == [float(np.sum(y == 3)), float(np.sum(y != 3))]


# ---- what is reported, and what it costs ----


def spoilt(update, state, client, rng):
    return update._replace(vector=np.full_like(update.vector, np.nan)) if client.id in (1, 3) else update


def overflowing(update, state, client, rng):
    return update._replace(vector=np.full_like(update.vector, 1e308))


def test_clients_that_send_nan_are_named_and_steps_too_large_are_not_their_fault(unequal):
    with pytest.raises(FloatingPointError, match=r"in round 1: clients \[1, 3\] sent NaN or infinity$"):
        simulate(Altered(FedSGD(mlp), spoilt), unequal, theta, rounds=1)
    with np.errstate(over="ignore"), pytest.raises(FloatingPointError) as error:
        simulate(Altered(FedSGD(mlp, 100.0), overflowing), unequal, theta, rounds=1)
    assert str(error.value) == "theta is no longer finite in round 1; try a smaller learning_rate"


def test_what_more_a_client_sends_may_be_at_fault_too(unequal):
    class Summing(FedSGD):
        def client_update(self, state, client, rng):
            more = {"shift": np.array([np.inf if client.id == 2 else 0.0])}
            return super().client_update(state, client, rng)._replace(more=more)

        def server_update(self, state, updates):
            return {"theta": state["theta"] + sum(u.more["shift"][0] for u in updates)}

    with pytest.raises(FloatingPointError, match=r"clients \[2\] sent"):
        simulate(Summing(mlp), unequal, theta, rounds=1)


def test_errors_of_the_server_and_of_the_selection_say_in_which_round(unequal):
    def nobody_in_round_two(state, clients, n, rng, history):
        return [] if len(history) == 1 else [0]

    with pytest.raises(ValueError, match="vectors") as error:
        simulate(FedAvg(mlp), unequal, theta, rounds=3, select=nobody_in_round_two)
    assert error.value.__notes__ == ["raised by server_update, of 0 updates, in round 2"]
    with pytest.raises(ValueError, match="select must return positions") as error:
        simulate(FedAvg(mlp), unequal, theta, rounds=3, select=only(4))
    assert error.value.__notes__ == ["raised by select in round 1"]


def test_the_progress_bar_counts_the_rounds_and_those_before_an_interruption(unequal, tmp_path, capsys):
    options = {"checkpoint": tmp_path / "run.npz", "progress": True}
    simulate(FedSGD(mlp), unequal, theta, rounds=2, **options)
    first = capsys.readouterr().err
    assert " 0/2 " in first
    assert " 2/2 " in first
    simulate(FedSGD(mlp), unequal, theta, rounds=5, **options)
    second = capsys.readouterr().err
    assert " 0/5 " not in second
    assert " 2/5 " in second
    assert " 5/5 " in second
    simulate(FedSGD(mlp), unequal, theta, rounds=1)
    assert capsys.readouterr().err == ""


def test_ten_thousand_clients_share_their_data(digits):
    """Each has 100 of the 1438 digits: their own copies of them would be 512 MB, of all of them 7 GB."""
    X, y, *_ = digits
    rng = np.random.default_rng(0)
    clients = [Client(k, X, y, rng.integers(len(X), size=100)) for k in range(10_000)]
    tracemalloc.start()
    try:
        _, history = simulate(FedAvg(mlp), clients, theta, rounds=2, client_fraction=0.005)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [len(round.clients) for round in history] == [50, 50]
    assert peak < 10e6
