"""What distributing a step of training costs and gains: times measured, and the formulas that predict them.

A message of n bytes takes α + nβ seconds. α and β are measured (`ping_pong`) and fitted (`fit_alpha_beta`);
with them, and with what a step costs one rank alone, `step_time` predicts what it costs p ranks.
"""

from collections.abc import Sequence
from time import perf_counter

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.distributed.collectives import predicted_time, ring_allreduce
from nnbrain.distributed.comm import Communicator
from nnbrain.distributed.data_parallel import Allreduce, train
from nnbrain.mlp.network import MLP

ORDINARY_ERROR = 0.1  # measured times scatter by so much; what is further off was disturbed


# ---- what is measured ----


def ping_pong(comm: Communicator, sizes: Sequence[int], repeats: int = 100) -> Floats:
    """Measure how long a message takes between ranks 0 and 1: it is sent there and back, and half counts.

    Parameters
    ----------
    comm : Communicator
        Of at least two ranks; all call this together. Ranks 2 and above only wait for the result.
    sizes : sequence of int
        Bytes of the messages, each at least 0. They take turns, so that a disturbance meets all of them.
    repeats : int
        Round trips that are measured for each size, after one that is not.

    Returns
    -------
    array (len(sizes),)
        The median seconds of a message of each size, the same numbers on all ranks.

    Raises
    ------
    TypeError, ValueError
        If there is one rank only, or an argument is out of its range.
    """
    if comm.Get_size() < 2:
        raise ValueError(f"comm must have at least 2 ranks, got {comm.Get_size()}")
    lengths = [checks.integer(f"sizes[{i}]", n, minimum=0) for i, n in enumerate(sizes)]
    checks.integer("repeats", repeats)
    rank = comm.Get_rank()
    seconds = np.zeros((1 + repeats, len(lengths)))
    ball = np.zeros(max(lengths, default=0), np.uint8)
    for turn in seconds if rank < 2 else ():
        for i, n in enumerate(lengths):
            start = perf_counter()
            if rank == 0:
                comm.Send(ball[:n], dest=1)
                comm.Recv(ball[:n], source=1)
            else:
                comm.Recv(ball[:n], source=0)
                comm.Send(ball[:n], dest=0)
            turn[i] = (perf_counter() - start) / 2
    medians: Floats = np.median(seconds[1:], axis=0)
    comm.Bcast(medians)
    return medians


def seconds_a_step(
    comm: Communicator,
    mlp: MLP,
    batch_size: int,
    *,
    steps: int = 20,
    repeats: int = 5,
    allreduce: Allreduce = ring_allreduce,
) -> float:
    """Measure how long a step of data-parallel training takes on the ranks of `comm`, in float32.

    Parameters
    ----------
    comm : Communicator
        All ranks call this together.
    mlp : MLP
        With ``loss="cross_entropy"``. It learns random data, which takes as long as learning anything.
    batch_size : int
        Samples a step, of all ranks together.
    steps, repeats : int
        So many steps are timed together, so many times, after a first time that does not count.
    allreduce : callable
        As for `train`. One that does nothing shows what the step costs without communication.

    Returns
    -------
    float
        Seconds a step, as this rank saw them, in the shortest of the `repeats`: the one that other programs
        disturbed least.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range.
    """
    checks.integer("batch_size", batch_size)
    checks.integer("steps", steps)
    checks.integer("repeats", repeats)
    rng = np.random.default_rng(0)
    X = rng.random((batch_size * steps, mlp.sizes[0]), np.float32)
    y = rng.integers(0, mlp.sizes[-1], len(X))
    ends: list[float] = []
    train(
        comm,
        mlp,
        mlp.init(0),
        X,
        y,
        epochs=1 + repeats,
        batch_size=batch_size,
        allreduce=allreduce,
        after_epoch=lambda epoch, loss: ends.append(perf_counter()),
    )
    return float(np.diff(ends).min()) / steps


# ---- what is fitted ----


def fit_alpha_beta(sizes: npt.ArrayLike, seconds: npt.ArrayLike) -> tuple[float, float]:
    """Return the α and β, neither negative, with which α + β size is nearest to the measured seconds.

    Nearest in relative error, squared: sizes and seconds span powers of ten, and in absolute error the
    largest message alone would decide. An error above a tenth counts in proportion and not as its square,
    so that a few measurements that something disturbed do not decide either (Huber's loss).

    Parameters
    ----------
    sizes : array (n,)
        Bytes of messages, or whatever else time is proportional to; at least two different ones.
    seconds : array (n,)
        Above 0.

    Returns
    -------
    alpha, beta : float
        Seconds a message, and seconds a byte in addition.

    Raises
    ------
    TypeError, ValueError
        If shapes differ, sizes are negative or all the same, or seconds are not above 0.
    """
    from scipy.optimize import nnls  # half a second that every rank would spend at its start

    sizes, seconds = checks.floats("sizes", sizes), checks.floats("seconds", seconds)
    if sizes.ndim != 1 or sizes.shape != seconds.shape:
        raise ValueError(
            f"sizes and seconds must be vectors of one length, got shapes {sizes.shape} and {seconds.shape}"
        )
    if len(np.unique(sizes)) < 2 or sizes.min() < 0:
        raise ValueError(f"sizes must be at least two different ones, none negative, got {sizes.tolist()}")
    if seconds.min() <= 0:
        raise ValueError(f"seconds must be above 0, got {seconds.min()}")
    relative = np.stack([1 / seconds, sizes / seconds], axis=1)  # times (α, β): each row should give 1
    scale = np.linalg.norm(relative, axis=0)
    weight = np.ones(len(sizes))
    for _ in range(50):  # least squares, weighted anew: what is far off weighs less
        solution, _ = nnls(weight[:, None] * relative / scale, weight)
        error = np.abs(relative @ (solution / scale) - 1)
        weight = np.sqrt(ORDINARY_ERROR / np.maximum(error, ORDINARY_ERROR))
    alpha, beta = solution / scale
    return float(alpha), float(beta)


# ---- what is predicted ----


def step_time(
    p: int,
    batch_size: int,
    n_bytes: float,
    *,
    fixed: float,
    per_sample: float,
    alpha: float,
    beta: float,
) -> float:
    """Predict the seconds of a data-parallel step: computing, and then a ring all-reduce of the gradient.

    Parameters
    ----------
    p : int
        Ranks, each with a core and a link of its own.
    batch_size : int
        Samples of all ranks together; the rank that has most of them sets the pace.
    n_bytes : float
        Size of the gradient.
    fixed, per_sample : float
        Seconds that one rank alone takes for a step, whatever the batch, and for each sample in addition.
    alpha, beta : float
        Seconds a message, and seconds a byte in addition.

    Raises
    ------
    TypeError, ValueError
        If `p` or `batch_size` is below 1, or another number negative.
    """
    checks.number("fixed", fixed, minimum=0)
    checks.number("per_sample", per_sample, minimum=0)
    p = checks.integer("p", p)
    largest_part = -(-checks.integer("batch_size", batch_size) // p)
    computing = fixed + per_sample * largest_part
    return computing + predicted_time("ring", p, n_bytes, alpha, beta)


def amdahl(p: npt.ArrayLike, serial: float) -> Floats:
    """Return how many times faster p ranks finish the *same* work, of which a share `serial` is not divided.

    Parameters
    ----------
    p : array
        Ranks, at least 1.
    serial : float
        Share of one rank's time, in [0, 1].

    Notes
    -----
    Amdahl (1967), "Validity of the single processor approach to achieving large scale computing
    capabilities".
    """
    ranks = _ranks(p)
    checks.number("serial", serial, minimum=0, maximum=1)
    return np.asarray(1 / (serial + (1 - serial) / ranks))


def gustafson(p: npt.ArrayLike, serial: float) -> Floats:
    """Return by what factor p ranks do more in the *same* time, a share `serial` of which is not divided.

    Parameters
    ----------
    p : array
        Ranks, at least 1.
    serial : float
        Share of the p ranks' time that goes into what they cannot divide, in [0, 1].

    Notes
    -----
    Gustafson (1988), "Reevaluating Amdahl's law".
    """
    ranks = _ranks(p)
    checks.number("serial", serial, minimum=0, maximum=1)
    return np.asarray(serial + (1 - serial) * ranks)


def _ranks(p: npt.ArrayLike) -> Floats:
    ranks = checks.floats("p", p)
    if ranks.size and ranks.min() < 1:
        raise ValueError(f"p must be at least 1, got {ranks.min():g}")
    return ranks
