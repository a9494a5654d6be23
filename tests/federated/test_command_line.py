"""``python -m nnbrain.federated``: rounds to an accuracy, on the digits; how it goes on, and how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.federated import FedAvg, commands, make_clients, partition_shards, simulate
from nnbrain.federated.__main__ import main
from nnbrain.federated.rounds_to_target import Cell, Curve, Run, chosen, rounds_to_target, run, tuned
from nnbrain.mlp import MLP

data = load_digits()
QUICK = ["table", "--learning-rate", "0.3", "--target", "0.8", "--no-progress"]
cell = Cell("shards", 0.2, 10, 1, 20, (64, 32, 10), 0.85)


# ---- the measure ----


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([0.1, 0.5, 0.96, 0.98], 2.5),
        ([0.1, 0.97], 1.0),
        ([0.1, 0.5, 0.5, 0.97, 0.99], 3.0),
        ([0.99, 0.99], 0.0),
        ([0.1, 0.969], None),
    ],
)
def test_rounds_to_target_are_read_off_a_straight_line(curve, expected):
    assert rounds_to_target(curve, 0.97) == (None if expected is None else pytest.approx(expected))


def test_the_curve_is_the_best_accuracy_so_far_though_not_all_is_looked_at():
    """Against `MLP.accuracy` on all test data; shards, so that the accuracy falls as often as it rises."""
    mlp = MLP(cell.sizes)
    theta = mlp.init(3)
    clients = make_clients(data.X_train, data.y_train, partition_shards(data.y_train, 20, 3))
    plain = [mlp.accuracy(theta, data.X_test, data.y_test)]
    curve = Curve(mlp, theta, data.X_test, data.y_test, block=50)

    def evaluate(theta):
        plain.append(mlp.accuracy(theta, data.X_test, data.y_test))
        return curve.evaluate(theta)

    _, history = simulate(
        FedAvg(mlp, learning_rate=0.3), clients, theta, rounds=30, client_fraction=0.1, evaluate=evaluate
    )
    curve.take_over(history)
    assert np.any(np.diff(plain) < 0)
    np.testing.assert_allclose(curve.values, np.maximum.accumulate(plain), rtol=0, atol=1e-12)


def test_a_run_stops_where_the_target_is_reached_and_resumes_with_the_same_result(tmp_path):
    settings = {"learning_rate": 0.1, "seed": 1}
    whole = run(cell, data, limit=200, **settings)
    assert whole.rounds is not None
    assert 0 < whole.rounds < 200
    assert whole.best_accuracy >= 0.85
    path = tmp_path / "run.npz"
    part = run(cell, data, limit=5, checkpoint=path, **settings)
    assert part.rounds is None
    assert part.best_accuracy < 0.85
    resumed = run(cell, data, limit=200, checkpoint=path, **settings)
    assert resumed.rounds == whole.rounds
    assert resumed.best_accuracy == whole.best_accuracy
    with np.load(path) as file:  # it did not go on to the limit
        assert len(json.loads(file["history"].tobytes())) == np.ceil(whole.rounds)


def test_tuning_takes_the_first_at_the_target_and_gives_up_the_others_early():
    rounds = {(0.1, 0): 40.5, (0.2, 0): 20.25, (0.4, 0): None, (0.2, 1): 22.0, (0.2, 2): None}
    asked = []

    def train(rate, seed, limit):
        asked.append((rate, seed, limit))
        return Run(cell, rate, seed, limit, rounds[rate, seed], 0.5, False, 0.0)

    runs = tuned([0.1, 0.2, 0.4], [0, 1, 2], 100, train)
    assert asked == [(0.1, 0, 100), (0.2, 0, 41), (0.4, 0, 21), (0.2, 1, 100), (0.2, 2, 100)]
    assert [(r.learning_rate, r.seed, r.rounds) for r in chosen(runs)] == [
        (0.2, 0, 20.25),
        (0.2, 1, 22.0),
        (0.2, 2, None),
    ]


def test_the_papers_cells_are_ours_by_default():
    assert commands.PAPER["iid", 0.1, 10] == 87
    assert commands.is_papers(Cell())
    assert not commands.is_papers(Cell(epochs=5))
    assert "paper 664" in commands.line([Run(Cell("shards"), 0.1, 0, 9, 5.0, 0.97, False, 0.0)], "mnist")
    assert "paper" not in commands.line([Run(Cell("shards"), 0.1, 0, 9, 5.0, 0.97, False, 0.0)], "digits")


# ---- the command ----


def test_a_table_of_cells_is_printed_and_kept(tmp_path, capsys, monkeypatch):
    path = tmp_path / "t.json"
    command = [*QUICK, "--partition", "iid", "shards", "--fraction", "0", "0.2", "--seeds", "0", "1"]
    assert main([*command, "--json", str(path), "--checkpoint", str(tmp_path / "c.npz")]) == 0
    first = capsys.readouterr().out
    assert len(re.findall(r"mean \d", first)) == 4
    assert not (tmp_path / "c.npz").exists()
    document = json.loads(path.read_text())
    assert len(document["runs"]) == 8
    assert {"nnbrain", "numpy", "scipy", "Python"} <= set(document["versions"])
    assert all(r["rounds"] <= r["limit"] and r["best_accuracy"] >= 0.8 for r in document["runs"])

    def never(*_, **__):
        raise AssertionError("a run that is known was repeated")

    monkeypatch.setattr(commands, "run", never)
    assert main([*command, "--json", str(path)]) == 0
    assert capsys.readouterr().out == first


def test_a_target_out_of_reach_and_steps_too_large_are_results(capsys):
    assert main([*QUICK, "--rounds", "2", "--target", "0.999"]) == 0
    assert ">2" in capsys.readouterr().out
    assert main([*QUICK, "--rounds", "5", "--learning-rate", "1e30"]) == 0
    assert "diverged" in capsys.readouterr().out


def test_an_infinite_batch_is_all_that_a_client_has(capsys):
    assert main([*QUICK, "--batch-size", "inf", "72", "--rounds", "3"]) == 0
    infinite, all_of_it = capsys.readouterr().out.splitlines()[1:]
    assert infinite.split()[2] == "inf"
    assert infinite.split()[4:] == all_of_it.split()[4:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fraction", "1.5"], "must be in [0, 1]"),
        (["--fraction", "half"], "must be in [0, 1]"),
        (["--target", "1"], "must be in (0, 1)"),
        (["--learning-rate", "0"], "must be in (0, inf)"),
        (["--batch-size", "0"], "must be an integer >= 1"),
        (["--seeds", "-1"], "must be an integer >= 0"),
        (["--partition", "dirichlet"], "invalid choice"),
        (["--clients", "5000"], "must be at most the 1438 samples"),
        (["--json", "nowhere/t.json"], "there is no folder"),
        (["--checkpoint", "c.npz", "--seeds", "0", "1"], "--checkpoint needs --json"),
    ],
)
def test_wrong_arguments_are_said_and_end_with_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*QUICK, *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", '{"runs": [{"data": "digits"}]}'])
def test_a_foreign_json_file_is_refused_and_left_as_it_is(text, tmp_path, capsys):
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(SystemExit):
        main([*QUICK, "--json", str(path)])
    assert "is not a file of this command" in capsys.readouterr().err
    assert path.read_text() == text


def test_missing_mnist_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("NNBRAIN_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        main(["table", "--data", "mnist"])
    assert caught.value.code == 2
    assert "NNBRAIN_DATA" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_an_interrupted_command_says_so_and_goes_on_where_it_was(tmp_path):
    """Two processes compute; Ctrl-C in the middle of a run, then the same command again."""
    path, checkpoint = tmp_path / "t.json", tmp_path / "c.npz"
    command = [sys.executable, "-m", "nnbrain.federated", "table", "--target", "0.999", "--no-progress"]
    command += ["--rounds", "60", "--json", str(path), "--checkpoint", str(checkpoint)]
    slow = subprocess.Popen([*command, "--clients", "100"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    slow.send_signal(signal.SIGINT)
    said = slow.communicate(timeout=60)[1]
    if slow.returncode == 0:
        pytest.skip("the run was over before it could be interrupted")
    assert slow.returncode == 130
    assert said == "interrupted\n"
    assert checkpoint.exists()
    assert not path.exists()
    again = subprocess.run(
        [*command, "--clients", "100", "--workers", "2"], capture_output=True, text=True, timeout=120
    )
    assert again.returncode == 0, again.stderr
    assert ">60" in again.stdout
    assert len(json.loads(path.read_text())["runs"]) == 1
