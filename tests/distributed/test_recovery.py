"""Jobs that lose a rank to SIGKILL, on real processes; and how often to save, against closed forms."""

import math
import os
import re
import signal
import sys
import tempfile
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import lambertw

from nnbrain.checkpoint import digest
from nnbrain.distributed import (
    best_interval,
    expected_time,
    mpiexec,
    run_ranks,
    simulate_job,
    supervise,
    surviving_mpiexec,
    train,
)

PROGRAM = Path(__file__).with_name("faulty_training.py")
spec = spec_from_file_location("faulty_training", PROGRAM)
faulty_training = module_from_spec(spec)
spec.loader.exec_module(faulty_training)
TIME = 90  # seconds after which a job counts as hanging; alone it needs two or three


def why_not(start):
    try:
        start(1)
    except FileNotFoundError as error:
        return str(error)
    return ""


no_mpi = why_not(mpiexec)
no_ulfm = no_mpi or why_not(surviving_mpiexec)
needs_mpi = pytest.mark.skipif(bool(no_mpi), reason=no_mpi)
needs_ulfm = pytest.mark.skipif(bool(no_ulfm), reason=no_ulfm)


@pytest.fixture
def folder(monkeypatch):
    """A folder for the checkpoint; MPI's own files go beside it, and nothing may stay there."""
    with tempfile.TemporaryDirectory(prefix="nn", dir="/tmp") as top:  # short: sockets lie in it
        for name in ("job", "mpi"):
            (Path(top) / name).mkdir()
        monkeypatch.setenv("TMPDIR", f"{top}/mpi")
        monkeypatch.setenv("OMPI_MCA_btl", "self,tcp")  # starts a second sooner than shared memory
        yield Path(top) / "job"
        left = [path for path in Path(top, "mpi").rglob("*") if not path.is_dir()]
        assert not left


def is_gone(pid):
    """Return whether a process has ended; who has just died may stay in the table for a moment."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def run_job(command, recovery, folder, victim, call, attempts=1):
    """Run the job; return the exit codes and what the ranks said, and see that no process is left."""
    lines = []
    arguments = [recovery, str(folder), str(victim), str(call)]
    program = [sys.executable, str(PROGRAM), *arguments]
    try:
        codes = supervise([*command, *program], attempts, on_line=lines.append, timeout=TIME)
    except RuntimeError as error:
        codes = str(error)
    said = [re.fullmatch(r"rank (\d) of (\d) pid (\d+): (.*)", line).groups() for line in lines]
    assert said
    assert all(is_gone(int(pid)) for *_, pid, _ in said)
    return codes, [(int(rank), int(size), text) for rank, size, _, text in said]


def undisturbed():
    arguments, options = faulty_training.task()
    return run_ranks(3, train, *arguments, **options)[0][0]


@needs_mpi
def test_a_killed_job_started_again_ends_with_the_undisturbed_bits(folder):
    codes, said = run_job(mpiexec(3), "nothing", folder, victim=2, call=21, attempts=3)
    assert len(codes) == 2  # it died, it succeeded
    assert codes[0] != 0 == codes[1]
    assert sum(text == "begins" for *_, text in said) == 6
    ends = [text for *_, text in said if text.startswith("ends")]
    assert ends == [f"ends with {digest(undisturbed())} after {faulty_training.EPOCHS} epochs"] * 3
    assert {path.name for path in folder.iterdir()} == {"run.npz", "died"}


@needs_ulfm
def test_survivors_shrink_and_go_on_even_without_the_rank_that_saves(folder, tmp_path):
    """Rank 0 dies in epoch 3: the others go on from the end of epoch 2, as two ranks do here."""
    codes, said = run_job(surviving_mpiexec(3), "shrink", folder, victim=0, call=15)
    assert codes == [0]
    for ranks, epochs in ((3, 2), (2, faulty_training.EPOCHS)):
        arguments, options = faulty_training.task(epochs)
        results = run_ranks(ranks, train, *arguments, **options, checkpoint=tmp_path / "run.npz")
    expected = results[0][0]
    ends = sorted(line for line in said if line[2].startswith("ends"))
    text = f"ends with {digest(expected)} after {faulty_training.EPOCHS} epochs"
    assert ends == [(0, 2, text), (1, 2, text)]
    np.testing.assert_allclose(expected, undisturbed(), rtol=0, atol=1e-12)


@needs_ulfm
def test_a_replacement_joins_and_the_end_is_that_of_the_undisturbed_run(folder):
    codes, said = run_job(surviving_mpiexec(3), "replace", folder, victim=1, call=9)
    assert codes == [0]
    ends = sorted(line for line in said if line[2].startswith("ends"))
    text = f"ends with {digest(undisturbed())} after {faulty_training.EPOCHS} epochs"
    assert ends == [(rank, 3, text) for rank in range(3)]
    assert sum(text == "begins" for *_, text in said) == 3 + 3  # all began again, one of them new


@needs_mpi
def test_a_damaged_checkpoint_is_refused_on_all_ranks(folder):
    arguments, options = faulty_training.task(epochs=1)
    run_ranks(1, train, *arguments, **options, checkpoint=folder / "run.npz")
    content = bytearray((folder / "run.npz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / "run.npz").write_bytes(content)
    codes, said = run_job(mpiexec(3), "nothing", folder, victim=9, call=0)
    assert "exit codes [2]" in codes
    refusals = sorted(line for line in said if line[2].startswith("refuses"))
    assert [rank for rank, *_ in refusals] == [0, 1, 2]
    assert all("is damaged or not one of nnbrain's" in text for *_, text in refusals)
    assert (folder / "run.npz").read_bytes() == content


def test_another_run_s_checkpoint_is_refused_by_the_job(tmp_path):
    arguments, options = faulty_training.task(epochs=1)
    path = tmp_path / "run.npz"
    run_ranks(2, train, *arguments, **options, checkpoint=path)
    with pytest.raises(ValueError, match="another run: its batch_size is 50, this run's 60"):
        run_ranks(2, train, *arguments, **options | {"batch_size": 60}, checkpoint=path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full, the disk that is full")
def test_a_full_disk_ends_the_job_and_leaves_the_old_checkpoint(tmp_path):
    """The file that is written before it is renamed lies on a full disk, by way of a link."""
    arguments, options = faulty_training.task(epochs=1)
    path = tmp_path / "run.npz"
    run_ranks(2, train, *arguments, **options, checkpoint=path)
    before = path.read_bytes()
    (tmp_path / ".run.npz.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        run_ranks(2, train, *arguments, **options | {"epochs": 2}, checkpoint=path)
    assert path.read_bytes() == before
    (theta, losses), *_ = run_ranks(2, train, *arguments, **options | {"epochs": 2}, checkpoint=path)
    expected, _ = run_ranks(2, train, *arguments, **options | {"epochs": 2})[0]
    np.testing.assert_array_equal(theta, expected)
    assert len(losses) == 2


# ---- supervise ----


def python(code):
    return [sys.executable, "-c", code]


def test_a_command_is_run_until_it_succeeds(tmp_path):
    program = f"""
import pathlib, sys
path = pathlib.Path({str(tmp_path)!r}) / "runs"
runs = len(path.read_text()) if path.exists() else 0
path.write_text("x" * (runs + 1))
print("run", runs, flush=True)
sys.exit(0 if runs == 2 else 40 + runs)
"""
    lines = []
    assert supervise(python(program), 5, on_line=lines.append) == [40, 41, 0]
    assert lines == ["run 0", "run 1", "run 2"]


def test_a_command_that_never_succeeds_is_given_up_with_its_complaint():
    with pytest.raises(RuntimeError, match=r"no run of 2 succeeded, exit codes \[3, 3\].*no such luck"):
        supervise(python("import sys; sys.stderr.write('no such luck'); sys.exit(3)"), 2)


def test_a_command_that_hangs_is_ended():
    lines = []
    hang = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(RuntimeError, match=rf"exit codes \[-{int(signal.SIGTERM)}\]"):
        supervise(python(hang), 1, on_line=lines.append, timeout=1)
    assert is_gone(int(lines[0]))


@needs_mpi
def test_an_interrupted_supervisor_takes_its_ranks_along(folder):
    pids = []

    def interrupt(line):
        pids.append(int(line))
        if len(pids) == 2:
            raise KeyboardInterrupt

    hang = python("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    with pytest.raises(KeyboardInterrupt):
        supervise([*mpiexec(2), *hang], on_line=interrupt)
    assert all(map(is_gone, pids))


def test_a_missing_fault_tolerance_is_said_so(monkeypatch):
    monkeypatch.setattr("nnbrain.distributed.recovery.mpiexec", lambda n: ["false", "-n", str(n)])
    with pytest.raises(FileNotFoundError, match=r"no fault tolerance \(ULFM\).*pip install 'nnbrain\[mpi\]'"):
        surviving_mpiexec(2)


@needs_mpi
def test_without_a_death_survive_is_the_work_itself(folder):
    """On the one rank of a process of its own, under no launcher and with no fault tolerance asked for."""
    code = "from mpi4py import MPI; from nnbrain.distributed import survive; "
    code += "print(survive(MPI.COMM_SELF, lambda comm: comm.Get_size() + 41))"
    lines = []
    assert supervise([*mpiexec(1), *python(code)], 1, on_line=lines.append, timeout=TIME) == [0]
    assert lines == ["42"]


# ---- how often to save ----


def test_a_job_on_p_machines_fails_p_times_as_often_as_one():
    """eq-job-mtbf: the first failure of p machines, drawn at random, within four standard errors."""
    rng = np.random.default_rng(0)
    for p in (2, 10, 50):
        first = rng.exponential(100.0, (20_000, p)).min(axis=1)
        assert first.mean() == pytest.approx(100.0 / p, rel=4 / math.sqrt(20_000))


def test_best_interval_is_the_minimum_of_the_first_order_waste():
    """eq-waste, eq-young: the smallest of δ/τ + τ/2M, by search."""
    for cost, mtbf in ((1.0, 100.0), (30.0, 3600.0), (0.2, 1e4)):
        found = minimize_scalar(
            lambda tau, cost=cost, mtbf=mtbf: cost / tau + tau / (2 * mtbf),
            bounds=(cost / 10, mtbf),
            method="bounded",
            options={"xatol": 1e-9 * mtbf},
        )
        assert best_interval(cost, mtbf) == pytest.approx(found.x, rel=1e-4)
        waste = cost / best_interval(cost, mtbf) + best_interval(cost, mtbf) / (2 * mtbf)
        assert waste == pytest.approx(math.sqrt(2 * cost / mtbf), rel=1e-12)


def test_expected_time_has_its_minimum_where_lambert_says_and_young_is_near():
    """eq-expected-time: d/dτ = 0 at τ = M (1 + W(-e^(-1 - δ/M))); Young's τ costs 1% more at most."""
    for cost, mtbf in ((1.0, 100.0), (1.0, 1000.0), (5.0, 100.0)):
        exact = mtbf * (1 + lambertw(-math.exp(-1 - cost / mtbf)).real)
        best = expected_time(exact, cost, mtbf)
        assert all(expected_time(exact * f, cost, mtbf) > best for f in (0.9, 0.99, 1.01, 1.1))
        assert expected_time(best_interval(cost, mtbf), cost, mtbf) < 1.01 * best
        assert best_interval(cost, mtbf) == pytest.approx(exact, rel=2 * math.sqrt(cost / mtbf))


@pytest.mark.parametrize(("interval", "restart"), [(5.0, 0.0), (20.0, 3.0), (60.0, 10.0)])
def test_simulated_jobs_take_the_expected_time(interval, restart):
    """eq-expected-time within four standard errors over 60 jobs of 100 segments."""
    rng = np.random.default_rng(1)
    times = [simulate_job(100, interval, 2.0, 50.0, restart, rng) / (100 * interval) for _ in range(60)]
    error = np.std(times) / np.sqrt(len(times))
    expected = expected_time(interval, 2.0, 50.0, restart)
    assert abs(np.mean(times) - expected) < 4 * error
    assert error < 0.05 * expected


def test_without_failures_only_saving_costs():
    assert simulate_job(10, 4.0, 1.0, 1e15) == pytest.approx(50.0, rel=1e-12)
    assert expected_time(4.0, 1.0, 1e9) == pytest.approx(1.25, rel=1e-8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: supervise(["true"], 0), ValueError, "attempts must be an integer >= 1, got 0"),
        (lambda: supervise(["true"], 1, timeout=0), ValueError, "timeout must be finite and > 0, got 0"),
        (lambda: surviving_mpiexec(0), ValueError, "n must be an integer >= 1, got 0"),
        (lambda: best_interval(0, 1), ValueError, "cost must be finite and > 0"),
        (lambda: best_interval(1, 2), ValueError, "cost must be finite and > 0 and < 1.0, got 1"),
        (lambda: expected_time(-1, 1, 1), ValueError, "interval must be finite and > 0, got -1"),
        (lambda: simulate_job(1, 1, 1, "day"), TypeError, "mtbf must be a number, got 'day'"),
        (lambda: simulate_job(1, 1, 1, 1, -2), ValueError, "restart must be finite and >= 0, got -2"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
