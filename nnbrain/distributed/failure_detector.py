"""Who is dead? A failure detector that states a degree of suspicion φ instead of a yes or no.

Every machine sends a heartbeat now and then. The detector remembers the last gaps between a machine's
heartbeats, takes them for normally distributed, and asks how probable a silence as long as the present one
would be if the machine were alive: φ is minus the logarithm of that probability, to base 10.

Source: Hayashibara, Défago, Yared & Katayama (2004), "The φ accrual failure detector".
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr, ndtri, stdtr  # of the normal and of Student's law

from nnbrain import checks
from nnbrain.checks import Floats


class Heartbeats(NamedTuple):
    """What is remembered of one machine: when it was last heard, and its last gaps, the newest last."""

    last: float
    gaps: tuple[float, ...] = ()


def hear(beats: Heartbeats, t: float, window: int = 1000) -> Heartbeats:
    """Return `beats` after a heartbeat at time `t`; of the gaps, the last `window` are kept.

    Raises
    ------
    ValueError
        If `t` is before the last heartbeat.
    """
    checks.integer("window", window, minimum=2)
    checks.number("t", t, minimum=beats.last)
    return Heartbeats(t, (*beats.gaps, t - beats.last)[-window:])


def phi(beats: Heartbeats, t: float) -> float:
    """Return the suspicion φ at time `t`: -log₁₀ of the chance that a gap is longer than t - last.

    Returns
    -------
    float
        0 or more; 0 as long as fewer than two gaps are known. If all gaps are equal, φ is 0 up to that
        gap and infinite beyond.

    Raises
    ------
    ValueError
        If `t` is before the last heartbeat.
    """
    silence = checks.number("t", t, minimum=beats.last) - beats.last
    if len(beats.gaps) < 2:
        return 0.0
    mean, std = float(np.mean(beats.gaps)), float(np.std(beats.gaps, ddof=1))
    if std == 0:
        return math.inf if silence > mean else 0.0
    return float(-log_ndtr(-(silence - mean) / std) / math.log(10))


def alarm_time(beats: Heartbeats, threshold: float) -> float:
    """Return the time at which φ will reach `threshold` if no heartbeat comes.

    Raises
    ------
    ValueError
        If `threshold` is not above 0, or fewer than two gaps are known.
    """
    if len(beats.gaps) < 2:
        raise ValueError(f"beats must have at least 2 gaps, got {len(beats.gaps)}")
    mean, std = float(np.mean(beats.gaps)), float(np.std(beats.gaps, ddof=1))
    return beats.last + mean + std * _normal_quantile(threshold)


def suspicions(gaps: Floats, window: int = 1000) -> Floats:
    """Return the φ that each gap had reached when it ended, from the `window` gaps before it.

    What `hear` and `phi` find one by one, for a whole record at once: an alarm at threshold c is false
    for those above c, since each of these gaps was ended by a heartbeat.

    Parameters
    ----------
    gaps : array (n,)
        Of a machine that is alive; n above `window`.
    window : int
        At least 2.

    Returns
    -------
    array (n - window,)

    Raises
    ------
    TypeError, ValueError
        If an argument is not of these.
    """
    w = checks.integer("window", window, minimum=2)
    gaps = checks.floats("gaps", gaps)
    if gaps.ndim != 1 or len(gaps) <= w:
        raise ValueError(f"gaps must have one dimension and more than {w} entries, got shape {gaps.shape}")
    centred = gaps - gaps.mean()  # differences of running sums: keep the sums small
    sums = np.cumsum(np.concatenate([[0], centred]))
    squares = np.cumsum(np.concatenate([[0], centred**2]))
    mean = (sums[w:-1] - sums[: -w - 1]) / w
    variance = ((squares[w:-1] - squares[: -w - 1]) - w * mean**2) / (w - 1)
    hidden = variance <= 1e-8 * squares[-1]  # by the rounding of the sums
    z = (centred[w:] - mean) / np.sqrt(np.where(hidden, 1, variance))
    values = np.asarray(-log_ndtr(-z) / math.log(10))
    for i in np.flatnonzero(hidden):
        values[i] = phi(Heartbeats(0.0, tuple(gaps[i : i + w])), float(gaps[i + w]))
    return values


def false_alarm_rate(threshold: float, window: int | None = None) -> float:
    """Return the chance that a gap ends above `threshold`, for independent normal gaps.

    It is ``10**-threshold`` if their mean and variance are known, which is the detector's promise. If they
    are estimated from a `window` of gaps, (gap - mean)/std follows √(1 + 1/window) times Student's law with
    window - 1 degrees of freedom, and the chance is larger.

    Raises
    ------
    TypeError, ValueError
        If `threshold` is not above 0, or `window` below 2.
    """
    z = _normal_quantile(threshold)
    if window is None:
        return float(10.0**-threshold)
    w = checks.integer("window", window, minimum=2)
    return float(stdtr(w - 1, -z / math.sqrt(1 + 1 / w)))


def _normal_quantile(threshold: float) -> float:
    """Return how many standard deviations above the mean φ is `threshold`."""
    return float(-ndtri(10.0 ** -checks.number("threshold", threshold, above=0)))
