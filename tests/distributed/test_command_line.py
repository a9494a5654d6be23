"""``python -m nnbrain.distributed`` on threads and on real processes: what it does, and how it ends."""

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
from nnbrain.distributed import mpiexec, write_shards
from nnbrain.distributed.__main__ import main
from nnbrain.mlp import MLP, fit

X, y, X_test, y_test = load_digits()
mlp = MLP((64, 64, 10))
OURS = [sys.executable, "-m", "nnbrain.distributed"]

try:
    ON_TWO, missing = mpiexec(2), ""
except FileNotFoundError as error:
    ON_TWO, missing = [], str(error)
needs_mpi = pytest.mark.skipif(bool(missing), reason=missing)


@pytest.fixture
def shards(tmp_path):
    write_shards(tmp_path / "shards", zip(np.split(X, [700]), np.split(y, [700]), strict=True))
    return str(tmp_path / "shards")


@pytest.fixture
def trained(tmp_path):
    theta, _ = fit(mlp, mlp.init(0), X, y, epochs=3)
    np.save(tmp_path / "theta.npy", theta)
    return theta


def theta_of(text):
    (found,) = set(re.findall(r"theta (\w+)", text))  # one: all ranks hold the same bits
    return found


def test_training_from_shards_and_a_checkpoint_that_predicts(shards, tmp_path, capsys):
    options = ["train", "--threads", "3", "--epochs", "4", "--hidden", "16"]
    found = []
    for data in ([], ["--data", shards], ["--data", shards, "--in-memory"]):
        assert main([*options, *data, "--checkpoint", str(tmp_path / f"run{len(found)}.npz")]) == 0
        found.append(theta_of(capsys.readouterr().out))
    assert len(set(found)) == 1
    out = tmp_path / "labels.npy"
    predicting = ["predict", "--threads", "2", "--hidden", "16", "--theta", str(tmp_path / "run1.npz")]
    assert main([*predicting, "--data", shards, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1438 rows on 2 ranks")
    accuracy = float(said.split("accuracy ")[1])
    assert np.mean(np.load(out) == y) == pytest.approx(accuracy, abs=1e-4)
    assert accuracy > 0.5


def test_more_ranks_than_samples(tmp_path, capsys):
    write_shards(tmp_path / "few", [(X[:3], y[:3])])
    where = ["--data", str(tmp_path / "few"), "--threads", "5"]
    save = str(tmp_path / "theta.npy")
    assert main(["train", *where, "--batch-size", "2", "--epochs", "2", "--save", save]) == 0
    assert len(re.findall("theta", capsys.readouterr().out)) == 5
    assert main(["predict", *where, "--theta", save, "--block", "1"]) == 0
    assert "3 rows on 5 ranks" in capsys.readouterr().out


def test_what_was_done_before_is_said(tmp_path, capsys):
    command = ["train", "--threads", "2", "--hidden", "4", "--checkpoint", str(tmp_path / "run.npz")]
    for epochs in (2, 5, 5):
        assert main([*command, "--epochs", str(epochs), "--save", str(tmp_path / "theta.npy")]) == 0
    first, second, third = re.findall("rank 0.*", capsys.readouterr().out)
    assert "epochs from" not in first
    assert second.endswith(f"(2 of 5 epochs from {tmp_path / 'run.npz'})")
    assert third.endswith(f"(5 of 5 epochs from {tmp_path / 'run.npz'})")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.npz", "theta.npy"]
    new = tmp_path / "new"
    new.touch()  # what others may do with a file is as for any new one
    assert (tmp_path / "theta.npy").stat().st_mode == new.stat().st_mode


@pytest.mark.parametrize("command", ["train", "predict", "bench"])
def test_help_says_every_default(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "units of each hidden layer" in said
    if command == "train":
        assert "in [0, 1) (default: 0.0)" in said
        assert "and of the batches (default: 0)" in said


def test_bench_on_threads_says_and_writes_what_it_measured(tmp_path, capsys):
    assert main(["bench", "--threads", "2", "--hidden", "4", "--json", str(tmp_path / "b.json")]) == 0
    said, found = capsys.readouterr().out, json.loads((tmp_path / "b.json").read_text())
    assert found["ranks"] == 2
    assert list(found["allreduce"]) == ["naive", "tree", "ring"]
    assert all(len(curve) == len(found["bytes"]) and min(curve) > 0 for curve in found["allreduce"].values())
    assert found["step"] > 0 < found["step_alone"]
    assert found["alpha"] >= 0 <= found["beta"]
    assert "784-4-10" in said
    assert "naive        tree        ring" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "--theta", "no.npy"], "No such file"),
        (["predict", "--theta", __file__], "holds no theta, or is damaged"),
        (
            ["predict", "--theta", "theta.npy", "--hidden", "7"],
            "--theta has 4810 numbers, which is no network",
        ),
        (["predict", "--theta", "matrix.npy"], r"holds float64 of shape (2, 2), not a theta"),
        (["predict", "--theta", "theta.npy", "--out", "nowhere/labels.npy"], "there is no folder nowhere"),
        (["train", "--data", "unlabelled"], "have no labels to learn"),
        (["train", "--data", "damaged"], "X-00000.npy' is damaged"),
        (["train", "--batch-size", "9999"], "got 9999 (raised on rank"),
        (["train", "--learning-rate", "0"], "train: ValueError: learning_rate must be finite and > 0, got 0"),
        (["train", "--seed", "-1"], "--seed: must be an integer >= 0, got '-1'"),
        (["train", "--data", "."], "a folder of shards, got '.' (which has no manifest.json)"),
    ],
)
def test_what_cannot_work_is_said(arguments, message, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("matrix.npy", np.eye(2))
    write_shards("unlabelled", [(X, None)])
    write_shards("damaged", [(X, y)])
    with open("damaged/X-00000.npy", "r+b") as file:
        file.seek(1000)
        file.write(b"noise")
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--threads", "2"])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_mpi_missing_is_said_with_what_to_install(tmp_path):
    (tmp_path / "mpi4py.py").write_text("raise ImportError('not here')")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*OURS, "train"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install 'nnbrain[mpi]', or use --threads N" in done.stderr


# ---- how a job ends, on real processes ----


class Job:
    """A command and its processes, with folders for whatever MPI puts on the disk."""

    def __init__(self, folder, *command):
        self.place = folder / "mpi"
        self.place.mkdir(exist_ok=True)
        env = {**os.environ, "TMPDIR": str(self.place), "OMPI_MCA_btl_sm_backing_directory": str(self.place)}
        self.process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def ranks(self):
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        with open(path) as file:
            return [int(pid) for pid in file.read().split()]

    def wait_for(self, path):
        end = time.monotonic() + 60
        while not path.exists():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)

    def end(self):
        """Return its exit code and what it said, once nothing of it is left."""
        try:
            out, err = self.process.communicate(timeout=60)
        finally:
            self.process.kill()
        return self.process.returncode, out, err


def lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="it looks into /proc")


@needs_mpi
@needs_proc
@pytest.mark.parametrize("blow", ["Ctrl-C", "a rank is killed"])
def test_an_interrupted_job_leaves_nothing_and_resumes_with_the_same_bits(blow, tmp_path):
    """Its end is that of a run that nobody disturbed."""
    checkpoint = tmp_path / "run.npz"
    train = [*ON_TWO, *OURS, "train", "--checkpoint", str(checkpoint), "--hidden", "8"]
    job = Job(tmp_path, *train, "--epochs", "100000")
    job.wait_for(checkpoint)
    ranks = job.ranks()
    if blow == "Ctrl-C":
        job.process.send_signal(signal.SIGINT)
    else:
        os.kill(ranks[1], signal.SIGKILL)
    code, *_ = job.end()
    assert code != 0
    end = time.monotonic() + 10
    while any(map(lives, ranks)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(lives, ranks))
    assert list(job.place.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["run.npz"]

    with np.load(checkpoint) as file:
        epochs = len(file["history.loss"]) + 2
    job = Job(tmp_path, *train, "--epochs", str(epochs), "--save", str(tmp_path / "theta.npy"))
    code, _, err = job.end()
    assert code == 0, err
    undisturbed = tmp_path / "undisturbed.npy"
    assert (
        main(
            ["train", "--threads", "2", "--hidden", "8", "--epochs", str(epochs), "--save", str(undisturbed)]
        )
        == 0
    )
    resumed = np.load(tmp_path / "theta.npy")
    np.testing.assert_array_equal(resumed, np.load(undisturbed))
    assert list(job.place.iterdir()) == []


@needs_mpi
def test_processes_predict_what_one_does_and_say_a_wrong_option_once(trained, tmp_path):
    out = tmp_path / "labels.npy"
    arguments = ["--theta", str(tmp_path / "theta.npy"), "--out", str(out), "--block", "50"]
    code, said, err = Job(tmp_path, *ON_TWO, *OURS, "predict", *arguments).end()
    assert code == 0, err
    assert "359 rows on 2 ranks" in said
    np.testing.assert_array_equal(np.load(out), mlp.predict(trained, X_test))
    code, _, err = Job(tmp_path, *ON_TWO, *OURS, "predict", "--block", "0").end()
    assert code == 2
    assert err.count("must be an integer >= 1, got '0'") == 1
    code, _, err = Job(tmp_path, *ON_TWO, *OURS, "train", "--threads", "2").end()
    assert code == 2
    assert err.count("leave out either it or mpiexec") == 1


@needs_mpi
def test_a_fault_on_one_rank_is_shown_with_its_traceback_and_stops_the_others(tmp_path):
    program = (
        "import sys, nnbrain.distributed.__main__ as m\n"
        "def faulty(comm, options):\n"
        "    if comm.Get_rank() == 1: [].pop()\n"
        "    comm.Barrier()\n"
        "m.COMMANDS['train'] = faulty\n"
        "sys.exit(m.main(['train']))\n"
    )
    code, _, err = Job(tmp_path, *ON_TWO, sys.executable, "-c", program).end()
    assert code == 1
    assert "rank 1:\nTraceback" in err
    assert "IndexError: pop from empty list" in err


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_on_threads(tmp_path):
    job = Job(
        tmp_path,
        *OURS,
        "train",
        "--threads",
        "2",
        "--epochs",
        "100000",
        "--checkpoint",
        f"{tmp_path}/run.npz",
    )
    job.wait_for(tmp_path / "run.npz")
    job.process.send_signal(signal.SIGINT)
    code, _, err = job.end()
    assert code == 130
    assert err.endswith("interrupted\n")
