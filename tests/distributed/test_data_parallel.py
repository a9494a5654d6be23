"""Data-parallel training against the serial one, on threads and on real processes."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.distributed import (
    Metered,
    check_agreement,
    mpiexec,
    part_of_gradient,
    ring_allreduce,
    run_ranks,
    train,
)
from nnbrain.mlp import MLP, SGD, Adam, TimeDecay, Workspace, fit

BATCH, EPOCHS = 10, 7  # 144 samples: 14 batches of 10 and one of 4, seven times: 105 steps


def task(dtype=np.float64):
    X, y, *_ = load_digits()
    mlp = MLP((64, 16, 10))
    return mlp, mlp.init(0, dtype), X[:144].astype(dtype), y[:144]


@pytest.mark.parametrize("optimizer", [SGD(0.1), SGD(TimeDecay(0.05, 1e-3), momentum=0.9, nesterov=True)])
@pytest.mark.parametrize("p", [1, 2, 3, 4, 7])
def test_p_ranks_take_the_steps_of_one(p, optimizer):
    """eq-global-gradient, eq-part-of-gradient: uneven parts, and batches of 4 samples on 7 ranks."""
    mlp, theta, X, y = task()
    options = {"optimizer": optimizer, "epochs": EPOCHS, "batch_size": BATCH, "rng": 3}
    serial, history = fit(mlp, theta, X, y, **options)

    def program(comm):
        metered = Metered(comm)
        return *train(metered, mlp, theta, X, y, **options), metered.bytes_sent

    results = run_ranks(p, program)
    for ours, losses, _ in results:
        np.testing.assert_allclose(ours, serial, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(ours, results[0][0])  # replicas: the same bits
        np.testing.assert_allclose(losses, history.loss, rtol=1e-12)
    steps = 15 * EPOCHS
    sent = sum(n for *_, n in results)
    assert sent == 8 * 2 * (p - 1) * (steps * mlp.size + EPOCHS)  # eq-ring-bytes, and a loss an epoch


def test_work_for_each_byte_sent():
    """eq-work-per-byte: counted products and counted bytes against 3 B / ((p - 1) s).

    The formula takes six operations a parameter and sample; the first layer, whose inputs are not blamed,
    needs four, so the count is a little below.
    """
    mlp, B, p = MLP((64, 256, 256, 10)), 64, 4

    def program(comm):
        metered = Metered(comm)
        ring_allreduce(metered, np.zeros(mlp.size, np.float32))
        return metered.bytes_sent

    first, *rest = (W.size for W, _ in mlp.layers(mlp.init(0)))
    operations = (4 * first + 6 * sum(rest)) * B / p
    ratio = operations / np.mean(run_ranks(p, program))
    assert ratio == pytest.approx(3 * B / ((p - 1) * 4), rel=0.1)


def test_the_parts_sum_to_the_gradient_of_the_batch():
    """eq-part-of-gradient, with more ranks than samples."""
    mlp, theta, X, y = task()
    batch = np.array([5, 17, 101])

    def program(comm):
        workspace = Workspace(mlp, theta, 3)
        return part_of_gradient(comm, workspace, X, y, batch), workspace.grad

    losses, parts = zip(*run_ranks(5, program), strict=True)
    loss, grad = mlp.loss_and_grad(theta, X[batch], y[batch])
    np.testing.assert_allclose(sum(parts), grad, rtol=0, atol=1e-15)
    assert sum(losses) == pytest.approx(loss, rel=1e-14)
    assert np.count_nonzero([np.any(part) for part in parts]) == 3


def test_the_network_s_own_allreduce_does_as_well():
    mlp, theta, X, y = task()
    options = {"epochs": 1, "batch_size": BATCH}
    expected, _ = fit(mlp, theta, X, y, **options)
    got = run_ranks(
        3, lambda c: train(c, mlp, theta, X, y, allreduce=lambda c, g: c.Allreduce(None, g), **options)
    )
    np.testing.assert_allclose(got[2][0], expected, rtol=0, atol=1e-13)


def test_a_run_that_stops_between_epochs_goes_on_with_the_same_bits(tmp_path):
    mlp, theta, X, y = task()
    options = {"batch_size": BATCH, "optimizer": Adam(1e-3), "rng": 5}
    path = tmp_path / "run.npz"

    def program(comm, epochs, checkpoint=None):
        epochs_seen = []
        result = train(
            comm,
            mlp,
            theta,
            X,
            y,
            epochs=epochs,
            checkpoint=checkpoint,
            after_epoch=lambda epoch, loss: epochs_seen.append((epoch, loss)),
            **options,
        )
        return *result, epochs_seen

    undisturbed = run_ranks(3, program, 4)
    run_ranks(3, program, 2, path)
    resumed = run_ranks(3, program, 4, path)
    for (theta_a, losses_a, _), (theta_b, losses_b, seen) in zip(undisturbed, resumed, strict=True):
        np.testing.assert_array_equal(theta_a, theta_b)
        assert losses_a == losses_b
        assert seen == [(2, losses_a[2]), (3, losses_a[3])]
    other, *_ = run_ranks(2, program, 4, path)  # done already: nothing is computed
    np.testing.assert_array_equal(other[0], undisturbed[0][0])
    options["batch_size"] = 11
    with pytest.raises(ValueError, match="its batch_size is 10, this run's 11"):
        run_ranks(3, program, 4, path)
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]


def test_ranks_that_were_given_different_settings_all_hear_of_it():
    def program(comm):
        given = {"epochs": 3, "learning_rate": 0.1, "rng": 0}
        check_agreement(comm, given)
        if comm.Get_rank() in (1, 3):
            given["learning_rate"] = 0.2
        with pytest.raises(ValueError, match=r"learning_rate must be the same .* rank 0's on \[1, 3\]"):
            check_agreement(comm, given)
        return True

    assert run_ranks(4, program) == [True] * 4


# ---- the same program on real processes ----

try:
    mpiexec(1)
    missing = ""
except FileNotFoundError as error:
    missing = str(error)
needs_mpi = pytest.mark.skipif(bool(missing), reason=missing)


def run_on(p, *arguments):
    """Run ``python -m nnbrain.distributed train`` with the arguments on p processes."""
    command = [*mpiexec(p), sys.executable, "-m", "nnbrain.distributed", "train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@needs_mpi
@pytest.mark.parametrize("p", [2, 4])
def test_processes_end_where_threads_and_the_serial_run_end(p, tmp_path):
    """eq-ring-bytes under mpiexec too: 100 steps, counted bytes, bit-equal replicas, 1e-12 from serial."""
    options = ["--epochs", "5", "--batch-size", "73", "--dtype", "float64", "--hidden", "16", "--seed", "4"]
    done = run_on(p, *options, "--save", str(tmp_path / "theta.npy"))
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"rank (\d) of (\d): sent (\d+) bytes, theta (\w+)", done.stdout)
    assert sorted(int(rank) for rank, *_ in lines) == list(range(p))
    assert len({digest for *_, digest in lines}) == 1

    X, y, *_ = load_digits()
    mlp = MLP((64, 16, 10))
    serial, _ = fit(mlp, mlp.init(4, np.float64), X, y, optimizer=SGD(0.1), epochs=5, batch_size=73, rng=4)
    got = np.load(tmp_path / "theta.npy")
    np.testing.assert_allclose(got, serial, rtol=0, atol=1e-12)
    assert [path.name for path in tmp_path.iterdir()] == ["theta.npy"]
    steps = 5 * -(-len(X) // 73)
    assert steps == 100
    assert sum(int(sent) for _, _, sent, _ in lines) == 8 * 2 * (p - 1) * (steps * mlp.size + 5)


@needs_mpi
def test_a_rank_that_fails_ends_the_job_with_its_message():
    done = run_on(2, "--batch-size", "5000")
    assert done.returncode != 0
    assert "ValueError: batch_size must be at most the 1438 samples there are, got 5000" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs: must be an integer >= 1, got '0'"),
        (["--data", "cats"], "must be digits, mnist or a folder of shards, got 'cats'"),
        (["--threads", "2", "--batch-size", "5000"], "batch_size must be at most"),
        (["--threads", "2", "--learning-rate", "-1"], "learning_rate must be"),
        (["--save", "nowhere/theta.npy"], "there is no folder nowhere"),
        (["--save", "."], "is a folder"),
        (["--threads", "1", "--seed", "-1"], "must be an integer >= 0, got '-1'"),
        (["--threads", "2", "--learning-rate", "1e30", "--dtype", "float32"], "no longer finite"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow, on the way to the error
def test_the_command_line_refuses_bad_options(arguments, message, capsys):
    from nnbrain.distributed.__main__ import main

    with pytest.raises(SystemExit) as stopped:
        main(["train", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_line_trains_on_threads(capsys):
    from nnbrain.distributed.__main__ import main

    assert main(["train", "--threads", "3", "--epochs", "10"]) == 0
    out = capsys.readouterr().out
    assert len(set(re.findall(r"theta (\w+)", out))) == 1
    assert float(re.search(r"test accuracy (0\.\d+)", out)[1]) > 0.9


def test_a_missing_mpi_is_said_so_with_what_to_install(monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false") or "false")
    with pytest.raises(FileNotFoundError, match=r"pip install 'nnbrain\[mpi\]'"):
        mpiexec(2)
