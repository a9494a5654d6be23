"""A federation of real processes: strangers are refused, a killed node comes back, and θ is the simulator's.

About a minute.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.federated import FedAvg, make_clients, simulate
from nnbrain.federated.served import Replayed, load_run
from nnbrain.mlp import MLP

pytest.importorskip("flwr", reason="needs the extra 'flower'")
pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups on this system")

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "federation_program.py"


def test_what_is_never_entered_or_does_not_start_leaves_nothing_behind(monkeypatch, tmp_path):
    from nnbrain.federated import deployment

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    never = deployment.Deployment("")
    assert list(tmp_path.iterdir()) == []
    seen = []

    def no_command(name):
        seen.extend(tmp_path.iterdir())
        return str(tmp_path / "absent")

    monkeypatch.setattr(deployment, "_command", no_command)
    with pytest.raises(FileNotFoundError), never:
        pass
    assert len(seen) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_federation_of_processes_with_tls_and_keys_in_which_a_node_is_killed(monkeypatch, tmp_path):
    """eq-served-round, eq-signed: on the wire, with Flower's own SuperLink and SuperNodes."""
    from nnbrain.federated.certificates import make_authority, make_node_key
    from nnbrain.federated.deployment import Deployment

    X, y, *_ = load_digits()
    clients = make_clients(X, y, np.split(np.random.default_rng(0).permutation(len(X))[:150], [100]))
    monkeypatch.setenv("HOME", str(tmp_path))
    with Deployment(PROGRAM.read_text(encoding="utf-8")) as deployment:
        folder = deployment.folder

        def start(client):
            data = folder / f"owner-{client.id}.npz"
            np.savez(data, X=client.X[client.index], y=client.y[client.index])
            deployment.start_node(str(client.id), client=client.id, data=str(data))

        for client in clients:
            deployment.register(str(client.id))
            start(client)
        result = folder / "result.npz"
        deployment.run(result=str(result), rounds=3, n_clients=2, timeout=30.0)
        make_node_key(folder, "node-stranger")
        deployment.start_node("stranger", client=0, data="")
        deployment.register("99")
        make_authority(folder, "foreign")
        deployment.start_node("99", authority="foreign", client=99, data="")

        deployment.wait_for("round 1", lambda: "ROUND 1]" in deployment.log("node-1"))
        deployment.kill("node-1")
        deployment.register("1")  # with a new key
        start(clients[1])
        for name, reason in (("stranger", "Failed to activate"), ("99", "CERTIFICATE_VERIFY_FAILED")):
            deployment.wait_for(f"{name}'s end", lambda name=name: not deployment.running(f"node-{name}"))
            assert reason in deployment.log(f"node-{name}")
            assert "SuperNode ID" not in deployment.log(f"node-{name}")
        deployment.wait_for("the result", result.exists, timeout=240)
        theta, history = load_run(result)

    assert history[0].clients == [0]
    assert set(history[0].failed) == {1}
    assert any(r.clients == [0, 1] for r in history[1:])
    mlp = MLP((64, 32, 10))
    algorithm = FedAvg(mlp, epochs=5, batch_size=5, learning_rate=0.3)
    expected, _ = simulate(algorithm, clients, mlp.init(0), rounds=3, select=Replayed(history))
    np.testing.assert_array_equal(theta, expected)

    assert not folder.exists()
    listing = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True, check=True).stdout
    assert str(folder) not in listing
    assert list(tmp_path.iterdir()) == []  # in the home folder
