"""The round loop: memories, altered updates, selection, interruptions, dying workers, misfits."""

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from nnbrain.federated import Altered, FedAvg, FedSGD, make_clients, simulate
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


@dataclass(frozen=True)
class Dying(FedSGD):
    """In the round that starts from θ as it was at first, client 1's process is killed, `times` times."""

    folder: str = ""
    times: int = 1

    def client_update(self, state, client, rng):
        if client.id == 1:
            deaths = len(list(Path(self.folder).iterdir()))
            if deaths < self.times:
                (Path(self.folder) / str(deaths)).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().client_update(state, client, rng)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_worker_that_is_killed_costs_a_repetition_and_one_that_keeps_dying_is_named(unequal, tmp_path):
    expected, _ = simulate(FedSGD(mlp), unequal, theta, rounds=2)
    for times, folder in ((1, tmp_path / "once"), (9, tmp_path / "always")):
        folder.mkdir()
        algorithm = Dying(mlp, folder=str(folder), times=times)
        if times == 1:
            got, _ = simulate(algorithm, unequal, theta, rounds=2, workers=2)
            np.testing.assert_array_equal(got, expected)
        else:
            with pytest.raises(RuntimeError, match=r"died twice in round 1; clients not finished: \[.*1"):
                simulate(algorithm, unequal, theta, rounds=2, workers=2)


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
