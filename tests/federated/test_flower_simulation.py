"""Flower's own simulation engine with our apps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs Flower's simulation engine")

from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from nnbrain.data import load_digits
from nnbrain.federated import FedAvg, make_clients
from nnbrain.federated.flower_simulation import QUIET, ask_names, simulate_on_flower
from nnbrain.federated.local_grid import LocalGrid
from nnbrain.mlp import MLP


class Deaf(LocalGrid):
    """Nodes that say which client they are; one of them when it is asked for the third time."""

    def __init__(self, times):
        super().__init__({client: self.saying(client) for client in (3, 4)})
        self.times = times
        self.asked = []

    def saying(self, client):
        app = ClientApp()

        @app.query()
        def who(message, context):
            if client == 4 and len(self.asked) < self.times:
                raise OSError("not yet")
            return Message(RecordDict({"who": MetricRecord({"client": client})}), reply_to=message)

        return app

    def send_and_receive(self, messages, *, timeout=None):
        self.asked.append([message.metadata.dst_node_id for message in messages])
        return super().send_and_receive(messages, timeout=timeout)


def test_a_node_that_does_not_say_who_it_is_is_asked_again():
    grid = Deaf(times=3)
    assert ask_names(grid, 2) == [("3", 1003), ("4", 1004)]
    assert grid.asked == [[1003, 1004], [1004], [1004]]


def test_a_node_that_never_says_who_it_is_is_not_waited_for_for_ever():
    with pytest.raises(TimeoutError, match=r"2 nodes should say who they are, 1 have in 0.3 s"):
        ask_names(Deaf(times=1000), 2, timeout=0.3)


def test_the_environment_is_as_it_was_after_an_error_too(monkeypatch):
    first, *others = QUIET
    monkeypatch.setenv(first, "1")
    for name in others:
        monkeypatch.delenv(name, raising=False)
    seen = {}

    def fail(*_, **__):
        seen.update({name: os.environ[name] for name in QUIET})
        raise RuntimeError("no engine")

    monkeypatch.setattr("nnbrain.federated.flower_simulation.run_simulation", fail)
    mlp = MLP((64, 4, 10))
    X, y, *_ = load_digits()
    with pytest.raises(RuntimeError, match="no engine"):
        simulate_on_flower(FedAvg(mlp), make_clients(X, y, [range(9)]), mlp.init(0), rounds=1)
    assert seen == QUIET | {first: "1"}
    assert os.environ[first] == "1"
    assert not any(name in os.environ for name in others)


def test_flowers_own_simulation_ends_with_the_bits_of_ours():
    script = Path(__file__).with_name("on_flowers_simulation.py")  # alone: Ray leaves threads and warnings
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=400
    )
    if done.returncode == 77:
        pytest.skip("Ray does not start here")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "the same bits and clients"
