"""When machines die: starting again, going on with those left, replacing the dead, and how often to save.

What a job needs in order to go on is in its checkpoint (`nnbrain.checkpoint`). Three ways lead back to it:
`supervise` runs the whole job again; `survive` keeps the processes that are left, and goes on without the
dead or with new ones in their places. MPI does the rest: its extension ULFM (user-level failure mitigation;
Bland et al., 2013) tells the survivors of a death instead of ending the job.
"""

import math
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from nnbrain import checks
from nnbrain.checks import Seed
from nnbrain.distributed.mpi import mpiexec

T = TypeVar("T")


# ---- the whole job again ----


def supervise(
    command: Sequence[str],
    attempts: int = 3,
    *,
    on_line: Callable[[str], object] = print,
    timeout: float | None = None,
) -> list[int]:
    """Run `command` until it succeeds, at most `attempts` times; return the exit code of each run.

    The command must be one that takes up its work where it was left, such as training with a checkpoint.

    Parameters
    ----------
    command : sequence of str
        Program and arguments, such as ``[*mpiexec(4), sys.executable, "train.py"]``.
    attempts : int
    on_line : callable
        Takes each line that the command prints, at the moment it comes.
    timeout : float, optional
        Seconds after which a run is ended, and counts as failed: a job that hangs has failed too.

    Returns
    -------
    codes : list of int
        The last is 0, the others are not.

    Raises
    ------
    TypeError, ValueError
        If `attempts` or `timeout` is out of range.
    RuntimeError
        If no run succeeded; the message has the exit codes and what the last run wrote to stderr.
    """
    checks.integer("attempts", attempts)
    if timeout is not None:
        checks.number("timeout", timeout, above=0)
    codes: list[int] = []
    while len(codes) < attempts:
        code, complaint = _run(command, on_line, timeout)
        codes.append(code)
        if code == 0:
            return codes
    raise RuntimeError(f"no run of {attempts} succeeded, exit codes {codes}; the last said: {complaint}")


def _run(command: Sequence[str], on_line: Callable[[str], object], timeout: float | None) -> tuple[int, str]:
    """Run once, return the exit code and the end of stderr; end the command if anything interrupts."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        alarm = threading.Timer(timeout or threading.TIMEOUT_MAX, process.terminate)
        alarm.daemon = True
        alarm.start()
        try:
            for line in process.stdout:
                on_line(line.rstrip("\n"))
        except BaseException:
            process.terminate()  # mpiexec then ends its ranks, and itself last
            raise
        finally:
            process.stdout.close()
            process.wait()
            alarm.cancel()
        errors.seek(0)
        return process.returncode, errors.read()[-1000:].strip()


# ---- those who are left ----


def surviving_mpiexec(n: int) -> list[str]:
    """Return the words of a command that starts `n` processes under an MPI that outlives some of them.

    Raises
    ------
    FileNotFoundError
        If there is no MPI, or none with ULFM; the message says which.
    """
    checks.integer("n", n)
    options = ["--with-ft", "ulfm"]
    # Over TCP the kernel itself closes a dead process's connections, and no shared memory is left behind.
    options += ["--mca", "btl", "self,tcp"]
    # No barrier of all, the dead included, at the end: it sometimes waits for them (Open MPI issue 11404).
    options += ["--mca", "async_mpi_finalize", "1"]
    probe = [sys.executable, "-c", "from mpi4py import MPI; MPI.COMM_SELF.Is_revoked()"]
    alone = [*mpiexec(1), *options]
    done = subprocess.run([*alone, *probe], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FileNotFoundError(
            "this MPI has no fault tolerance (ULFM), as Open MPI 5 has; to install one that does: "
            f"pip install 'nnbrain[mpi]' ({done.stderr.strip()[-200:]})"
        )
    return [alone[0], "-n", str(n), *alone[3:]]


def survive(comm: Any, work: Callable[[Any], T], *, replace: bool = False) -> T:
    """Return what ``work(comm)`` returns; whenever a rank dies in it, call it again without the dead.

    Every survivor learns of the death by an error in its next message, or by another survivor's *revoking*
    the communicator. They *agree* on whether the work is done; if not, they *shrink* to a communicator of
    their own, ranked anew from 0, and begin the work again on that.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        Started with `surviving_mpiexec`; all ranks call this together.
    work : callable
        Takes a communicator. It must go on from its checkpoint, and be the same with any number of ranks.
    replace : bool
        Start a new process for each dead one, by the command line of this one: it runs the same program,
        comes to this same call, and joins the survivors here as the last rank.

    Raises
    ------
    mpi4py.MPI.Exception
        Any error of MPI's that is not the death of a rank, and a death while others are being replaced.
    Exception
        Whatever `work` raises. It must raise it on all ranks, or others wait for the one that left.
    """
    from mpi4py import MPI

    parent = MPI.Comm.Get_parent()
    if replace and parent != MPI.COMM_NULL:  # this process is a replacement
        comm = parent.Merge(high=True)
    while True:
        comm.Set_errhandler(MPI.ERRORS_RETURN)  # mpi4py makes them exceptions
        outcome = _unless_dead(work, comm)
        if not outcome:
            comm.Revoke()  # wakes those who wait for somebody that is alive
        if _unless_dead(comm.Agree, len(outcome)) == [1]:  # all have an outcome
            # Who leaves early would look dead to those who still agree.
            _unless_dead(comm.Barrier)
            return outcome[0]
        size = comm.Get_size()
        comm = comm.Shrink()
        if replace:
            missing = size - comm.Get_size()
            again = sys.executable, sys.orig_argv[1:]  # this very program
            comm = comm.Spawn(*again, maxprocs=missing).Merge(high=False)


def _unless_dead(call: Callable[..., T], *args: Any) -> list[T]:
    """Return what ``call(*args)`` returns, in a list; an empty list if a rank's death interrupts it."""
    from mpi4py import MPI

    try:
        return [call(*args)]
    except MPI.Exception as error:
        if error.Get_error_class() in (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_REVOKED):
            return []
        raise


# ---- how often to save ----


def best_interval(cost: float, mtbf: float) -> float:
    """Return how long to work between two checkpoints, √(2 cost mtbf), in the unit of both.

    Parameters
    ----------
    cost : float
        Time that saving takes, above 0 and below `mtbf`/2, where the formula begins to fail.
    mtbf : float
        Mean time between failures, of the whole job.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    Notes
    -----
    Young (1974), "A first order approximation to the optimum checkpoint interval".
    """
    checks.number("mtbf", mtbf, above=0)
    return math.sqrt(2 * checks.number("cost", cost, above=0, below=mtbf / 2) * mtbf)


def expected_time(interval: float, cost: float, mtbf: float, restart: float = 0.0) -> float:
    """Return how long a unit of work takes on average, saving and failures included; at least 1.

    Failures strike at random with mean distance `mtbf`, also while saving and restarting. An interval of
    work and its save take M e^(R/M) (e^((τ + δ)/M) - 1) on average, with M for `mtbf`, R for `restart`,
    τ for `interval` and δ for `cost`.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    Notes
    -----
    Daly (2006), "A higher order estimate of the optimum checkpoint interval for restart dumps".
    """
    _check_times(interval, cost, mtbf, restart)
    return mtbf * math.exp(restart / mtbf) * math.expm1((interval + cost) / mtbf) / interval


def simulate_job(
    segments: int, interval: float, cost: float, mtbf: float, restart: float = 0.0, rng: Seed = 0
) -> float:
    """Return how long a job of `segments` intervals takes in virtual time, with failures drawn at random.

    Arguments as for `expected_time`; a failure loses the work since the last save, and a restart may fail.
    """
    checks.integer("segments", segments)
    _check_times(interval, cost, mtbf, restart)
    rng = checks.generator("rng", rng)
    total, done, ahead = 0.0, 0, 0.0  # ahead: what a restart still adds to the attempt
    while done < segments:
        needed = ahead + interval + cost
        failure = rng.exponential(mtbf)  # from now on: failures at random have no memory
        if failure < needed:
            total += failure
            ahead = restart
        else:
            total += needed
            ahead = 0.0
            done += 1
    return total


def _check_times(interval: float, cost: float, mtbf: float, restart: float) -> None:
    checks.number("interval", interval, above=0)
    checks.number("cost", cost, minimum=0)
    checks.number("mtbf", mtbf, above=0)
    checks.number("restart", restart, minimum=0)
