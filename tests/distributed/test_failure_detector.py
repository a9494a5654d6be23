"""The φ detector: its suspicion against the normal law, its promise against counted false alarms."""

import math

import numpy as np
import pytest
from scipy import stats

from nnbrain.distributed import Heartbeats, alarm_time, false_alarm_rate, hear, phi, suspicions

GAPS = (1.0, 1.2, 0.9, 1.1)


def phi_of(*gaps, then=1.0):
    return phi(Heartbeats(0.0, gaps), then)


def test_suspicion_is_minus_the_logarithm_of_a_normal_tail():
    """eq-phi, against the error function; far out, against the tail's asymptote."""
    beats = Heartbeats(10.0, GAPS)
    mean, std = np.mean(GAPS), np.std(GAPS, ddof=1)
    for t in (10.0, 10.8, 11.05, 11.5, 12.0):
        tail = math.erfc((t - 10 - mean) / std / math.sqrt(2)) / 2
        assert phi(beats, t) == pytest.approx(-math.log10(tail), rel=1e-10)
    z = (30 - mean) / std
    far = (z * z / 2 + math.log(z * math.sqrt(2 * math.pi))) / math.log(10)
    assert phi(beats, 40.0) == pytest.approx(far, rel=1e-4)  # the tail itself is below the least float64


def test_suspicion_grows_with_silence_and_ends_with_a_heartbeat():
    beats = Heartbeats(10.0, GAPS)
    values = [phi(beats, t) for t in np.linspace(10, 13, 50)]
    assert np.all(np.diff(values) > 0)
    assert phi(hear(beats, 13.0), 13.0) < 0.1


def test_an_alarm_comes_when_suspicion_reaches_the_threshold():
    """eq-phi-alarm."""
    beats = Heartbeats(10.0, GAPS)
    for threshold in (0.5, 1.0, 3.0, 8.0):
        assert phi(beats, alarm_time(beats, threshold)) == pytest.approx(threshold, rel=1e-9)


def test_memory_has_the_last_gaps_only():
    beats = Heartbeats(0.0)
    for t in (1, 3, 6, 10):
        assert phi(beats, beats.last + 1000) == 0 or len(beats.gaps) >= 2
        beats = hear(beats, t, window=3)
    assert beats == Heartbeats(10, (2, 3, 4))


def test_equal_gaps_are_trusted_to_the_moment():
    beats = Heartbeats(5.0, (1.0, 1.0, 1.0))
    assert phi(beats, 5.5) == phi(beats, 6.0) == 0
    assert phi(beats, 6.0001) == math.inf


def test_a_record_at_once_is_the_same_as_one_by_one():
    gaps = np.random.default_rng(0).gamma(4, 0.25, 60)
    beats, expected = Heartbeats(0.0), []
    for gap in gaps:
        if len(beats.gaps) == 12:
            expected.append(phi(beats, beats.last + gap))
        beats = hear(beats, beats.last + gap, window=12)
    np.testing.assert_allclose(suspicions(gaps, 12), expected, rtol=1e-8)


def test_a_record_at_once_is_right_where_gaps_are_all_equal_or_one_is_huge():
    np.testing.assert_array_equal(
        suspicions(np.array([1.0, 1, 1, 1, 2, 1]), 3), [0, math.inf, phi_of(1, 1, 2)]
    )
    gaps = np.array([1e9, 1.0, 1.2, 0.9, 1.1])  # its square swallows the others' in a running sum
    np.testing.assert_allclose(suspicions(gaps, 3)[1], phi_of(1.0, 1.2, 0.9, then=1.1), rtol=1e-12)


@pytest.mark.parametrize("window", [10, 100, 1000])
def test_false_alarms_of_normal_heartbeats_are_as_many_as_the_law_says(window):
    """eq-phi-promise, eq-phi-window: counted over 200,000 heartbeats, within five standard errors.

    With 1000 gaps remembered the promise holds; with ten, threshold 3 gives eight times as many.
    """
    n = 200_000
    gaps = np.random.default_rng(window).normal(1.0, 0.1, n + window)
    values = suspicions(gaps, window)
    for threshold in (1, 2, 3):
        expected = false_alarm_rate(threshold, window)
        standard_error = math.sqrt(expected * (1 - expected) / n)
        assert abs(np.mean(values > threshold) - expected) < 5 * standard_error
        if window == 1000:
            assert expected == pytest.approx(10.0**-threshold, rel=0.05)
    if window == 10:
        assert expected > 7 * 1e-3


def test_student_s_law_by_simulation_of_its_definition():
    """eq-phi-window for a window of 5, against samples drawn outright, without any detector."""
    rng = np.random.default_rng(2)
    past, gap = rng.normal(size=(400_000, 5)), rng.normal(size=400_000)
    ratio = (gap - past.mean(axis=1)) / past.std(axis=1, ddof=1)
    for threshold in (1.0, 2.0):
        z = stats.norm.isf(10**-threshold)
        assert false_alarm_rate(threshold, 5) == pytest.approx(np.mean(ratio > z), rel=0.03)


def test_heartbeats_that_are_not_normal_break_the_promise_by_the_factor_that_their_law_says():
    """Exponential gaps end above mean + z std with chance e^-(1 + z): 17 times the promise at 3."""
    n = 200_000
    values = suspicions(np.random.default_rng(3).exponential(1.0, n + 1000), 1000)
    for threshold in (2, 3):
        z = stats.norm.isf(10.0**-threshold)
        expected = math.exp(-1 - z)
        assert np.mean(values > threshold) == pytest.approx(expected, rel=0.1)
        assert expected > 3 * 10.0**-threshold


def test_no_window_is_the_promise():
    """eq-phi-promise."""
    assert false_alarm_rate(3.0) == pytest.approx(1e-3, rel=1e-12)
    assert false_alarm_rate(3.0, 100_000) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: phi(Heartbeats(1.0), 0.5), ValueError, "t must be finite and >= 1.0, got 0.5"),
        (lambda: hear(Heartbeats(1.0), 0.5), ValueError, "t must be finite and >= 1.0, got 0.5"),
        (lambda: hear(Heartbeats(1.0), 2.0, 1), ValueError, "window must be an integer >= 2, got 1"),
        (
            lambda: alarm_time(Heartbeats(1.0, (1.0,)), 1),
            ValueError,
            "at least 2 gaps, got 1",
        ),
        (lambda: alarm_time(Heartbeats(1.0, GAPS), 0), ValueError, "threshold must be finite and > 0, got 0"),
        (lambda: suspicions(np.ones(5), 5), ValueError, "more than 5 entries, got shape"),
        (lambda: suspicions(np.array(["x"]), 2), TypeError, "gaps must be an array of real numbers"),
        (lambda: false_alarm_rate("high"), TypeError, "threshold must be a number, got 'high'"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
