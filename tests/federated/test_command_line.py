"""``python -m nnbrain.federated``: rounds to an accuracy, on the digits; how it goes on, and how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnbrain.federated import commands
from nnbrain.federated.__main__ import main
from nnbrain.federated.rounds_to_target import Cell, Run

RECORDED = Path(__file__).parents[2] / "benchmarks" / "results" / "runs" / "fedavg_table.json"
QUICK = ["table", "--learning-rate", "0.3", "--target", "0.8", "--no-progress"]


def test_the_papers_cells_are_ours_by_default():
    assert commands.PAPER["iid", 0.1, 10] == 87
    assert commands.is_papers(Cell())
    assert not commands.is_papers(Cell(epochs=5))
    assert "paper 664" in commands.line([Run(Cell("shards"), 0.1, 0, 9, 5.0, 0.97, False, 0.0)], "mnist")
    assert "paper" not in commands.line([Run(Cell("shards"), 0.1, 0, 9, 5.0, 0.97, False, 0.0)], "digits")


def test_a_table_of_cells_is_printed_and_kept(tmp_path, capsys, monkeypatch):
    path = tmp_path / "t.json"
    command = [*QUICK, "--partition", "iid", "shards", "--fraction", "0", "0.2", "--seeds", "0", "1"]
    assert main([*command, "--json", str(path), "--checkpoint", str(tmp_path / "c.npz")]) == 0
    first = capsys.readouterr().out
    assert len(re.findall(r"mean \d", first)) == 4
    assert not (tmp_path / "c.npz").exists()
    document = json.loads(path.read_text())
    assert len(document["runs"]) == 8
    assert all(r["versions"] == commands.versions() for r in document["runs"])
    assert set(commands.versions()) == {"nnbrain", "numpy", "scipy", "Python"}
    assert all(r["rounds"] <= r["limit"] and r["best_accuracy"] >= 0.8 for r in document["runs"])

    def never(*_, **__):
        raise AssertionError("a run that is known was repeated")

    monkeypatch.setattr(commands, "run", never)
    assert main([*command, "--json", str(path)]) == 0
    assert capsys.readouterr().out == first


def test_runs_keep_the_versions_that_made_them(tmp_path, capsys, monkeypatch):
    """Also those of a file of before, which said them once for all its runs."""
    path = tmp_path / "t.json"
    command = [*QUICK, "--json", str(path)]
    assert main(command) == 0
    document = json.loads(path.read_text())
    old = {"numpy": "1.0", "nnbrain": "0.0.1"}
    run = {name: value for name, value in document["runs"][0].items() if name != "versions"}
    path.write_text(json.dumps({"versions": old, "runs": [run]}))
    monkeypatch.setattr(commands, "__version__", "9.9")
    assert main([*command, "--seeds", "0", "1"]) == 0
    first, second = json.loads(path.read_text())["runs"]
    assert first == {**run, "versions": old}
    assert second["versions"]["nnbrain"] == "9.9"


def test_the_recorded_table_goes_on_being_read(capsys):
    ledger = commands.Ledger(RECORDED, "mnist")
    found = ledger.find(Cell("iid", 0.1, 10), 0.2, 0, 261)
    assert found.rounds == 35


def test_a_grid_is_extended_at_the_command_line(tmp_path, capsys):
    path = tmp_path / "t.json"
    command = [*QUICK, "--extend", "--learning-rate", "0.02", "0.04", "--rounds", "40", "--json", str(path)]
    assert main(command) == 0
    rates = [r["learning_rate"] for r in json.loads(path.read_text())["runs"]]
    assert rates[:3] == [0.02, 0.04, 0.08]
    assert rates == [0.02 * 2**i for i in range(len(rates))]
    said = capsys.readouterr().out
    assert main(command) == 0
    assert capsys.readouterr().out == said
    assert len(json.loads(path.read_text())["runs"]) == len(rates)


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
        (
            ["--clients", "5000"],
            "--clients must be at most 1438, as there are 1438 samples for iid to deal out",
        ),
        (["--clients", "720", "--partition", "iid", "shards"], "--clients must be at most 719, as there are"),
        (["--extend"], "--extend needs two rates of --learning-rate, got 0.3"),
        pytest.param(
            ["--json", "/proc/foo.json"],
            "argument --json: no file can be made in /proc",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="a folder that not even root can write"),
        ),
        (["--checkpoint", "c.txt"], "argument --checkpoint: must be a file .npz, got 'c.txt'"),
        (["--json", "nowhere/t.json"], "there is no folder"),
        (["--checkpoint", "c.npz", "--seeds", "0", "1"], "--checkpoint needs --json"),
    ],
)
def test_wrong_arguments_are_said_and_end_with_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*QUICK, *arguments])
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""


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
