"""Gradient codes: the sum comes back from every set of survivors, and costs what it should."""

from itertools import combinations
from math import comb

import numpy as np
import pytest

from nnbrain.distributed import (
    coded_gradient,
    cyclic_repetition,
    decode,
    decoding_vector,
    fractional_repetition,
    run_ranks,
    train,
)
from nnbrain.mlp import MLP, SGD

SIZES = [(p, s) for p in range(1, 9) for s in range(p)]
EVEN = [(p, s) for p, s in SIZES if p % (s + 1) == 0]
TOLERANCE = 1e-12  # of the norm of all partial gradients; the worst seen is 3e-14


def partial_gradients(p, n=40):
    return np.random.default_rng(p).normal(size=(p, n))


def losses(p, s):
    """Yield the survivors of every way to lose s of p workers."""
    patterns = [[r for r in range(p) if r not in lost] for lost in combinations(range(p), s)]
    assert len(patterns) == comb(p, s)
    return patterns


def everything_sent(B, gradients):
    return {r: coded_gradient(B[r], gradients.__getitem__) for r in range(len(B))}


@pytest.mark.parametrize(("p", "s"), SIZES)
def test_cyclic_repetition_is_exact_for_every_loss_of_s(p, s):
    """eq-code-sends, eq-code-decodes: all C(p, s) patterns, in float64."""
    g, B = partial_gradients(p), cyclic_repetition(p, s)
    sent = everything_sent(B, g)
    for alive in losses(p, s):
        a = decoding_vector(B, alive)
        assert not np.any(a[[r for r in range(p) if r not in alive]])
        got = decode(a, {r: sent[r] for r in alive})
        np.testing.assert_allclose(got, g.sum(axis=0), rtol=0, atol=TOLERANCE * np.linalg.norm(g))


@pytest.mark.parametrize(("p", "s"), EVEN)
def test_fractional_repetition_gives_the_same_bits_for_every_loss_of_s(p, s):
    """eq-code-decodes with weights 0 and 1: team by team, each in the order of its partitions."""
    g, B = partial_gradients(p), fractional_repetition(p, s)
    sent = everything_sent(B, g)
    teams = np.split(g, p // (s + 1))
    expected = sum((sum(team[1:], team[0]) for team in teams[1:]), sum(teams[0][1:], teams[0][0]))
    np.testing.assert_allclose(expected, g.sum(axis=0), rtol=0, atol=1e-14)
    for alive in losses(p, s):
        a = decoding_vector(B, alive)
        assert set(a) <= {0.0, 1.0}
        got = decode(a, {r: sent[r] for r in alive})
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("p", "s"), SIZES)
def test_redundancy_is_s_plus_1_times_the_computation_and_no_more_to_send(p, s):
    """eq-code-cost: counted calls; and no code can do with less, as each partition needs s + 1 workers."""
    for B in (cyclic_repetition(p, s), *([fractional_repetition(p, s)] if (p, s) in EVEN else [])):
        calls = []

        def gradient_of(j, calls=calls):
            calls.append(j)
            return np.ones(3)

        sent = [coded_gradient(row, gradient_of) for row in B]
        assert len(calls) == p * (s + 1)
        assert np.all(np.bincount(calls, minlength=p) == s + 1)
        assert {vector.shape for vector in sent} == {(3,)}


@pytest.mark.parametrize(("p", "s"), [(p, s) for p, s in SIZES if s + 1 < p])
def test_one_loss_more_is_refused_or_decoded_but_never_wrong(p, s):
    """With p even the points lie in pairs about zero, and some sets of fewer than p - s rows still do."""
    g, B, refused = partial_gradients(p), cyclic_repetition(p, s), 0
    sent = everything_sent(B, g)
    for alive in losses(p, s + 1):
        determined = np.linalg.matrix_rank(np.vstack([B[alive], np.ones(p)]), tol=1e-6) == len(alive)
        if determined:
            got = decode(decoding_vector(B, alive), {r: sent[r] for r in alive})
            np.testing.assert_allclose(got, g.sum(axis=0), rtol=0, atol=TOLERANCE * np.linalg.norm(g))
            continue
        refused += 1
        with pytest.raises(ValueError, match=f"{s + 1} of {p} workers are lost.*at most {s} losses"):
            decoding_vector(B, alive)
    assert refused == comb(p, s + 1) or (refused > 0 and p % 2 == 0)


def test_more_losses_are_borne_by_teams_as_long_as_each_has_a_survivor():
    B = fractional_repetition(6, 2)
    assert list(decoding_vector(B, [1, 5])) == [0, 1, 0, 0, 0, 1]
    with pytest.raises(ValueError, match=r"3 of 6 workers are lost, only \[3, 4, 5\] are left"):
        decoding_vector(B, [3, 4, 5])
    with pytest.raises(ValueError, match="at most 2 losses"):
        decoding_vector(B, [])


def test_a_sum_that_rounding_hides_is_refused_and_not_returned():
    """Of 32 workers half are lost: each set either decodes or says why not."""
    rng, B, refused = np.random.default_rng(0), cyclic_repetition(32, 16), 0
    for _ in range(60):
        alive = rng.choice(32, 16, replace=False)
        try:
            np.testing.assert_allclose(decoding_vector(B, alive) @ B, 1, rtol=0, atol=1e-8)
        except ValueError as error:
            refused += "16 of 32 workers are lost" in str(error) and "rounding hides" in str(error)
    assert refused > 0


def test_fractional_repetition_by_hand():
    """The example of teams of two: 0 and 1 share partitions 0 and 1; 2 and 3 share 2 and 3."""
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    np.testing.assert_array_equal(fractional_repetition(4, 1), expected)


def test_the_paper_s_example_of_three_workers_decodes():
    """Tandon et al. (2017), figure 2: g1/2 + g2, g2 - g3, g1/2 + g3, any two of which give the sum."""
    B = np.array([[0.5, 1, 0], [0, 1, -1], [0.5, 0, 1]])
    expected = {(0, 1): [2, -1, 0], (0, 2): [1, 0, 1], (1, 2): [0, 1, 2]}
    for alive, a in expected.items():
        np.testing.assert_allclose(decoding_vector(B, alive), a, rtol=0, atol=1e-14)


def test_rows_of_the_cyclic_code_are_polynomials_of_low_degree_and_go_round():
    B = cyclic_repetition(5, 2)
    for r in range(5):
        assert set(np.flatnonzero(B[r])) == {r, (r + 1) % 5, (r + 2) % 5}
        points = np.cos((np.arange(5) + 0.5) * np.pi / 5)
        fitted = np.polynomial.Polynomial.fit(points, B[r], 5 - 2 - 1)
        np.testing.assert_allclose(fitted(points), B[r], rtol=0, atol=1e-14)
    np.testing.assert_array_equal(cyclic_repetition(4, 3), np.ones((4, 4)))  # all do everything


@pytest.mark.parametrize("code", [fractional_repetition, cyclic_repetition])
def test_training_with_two_workers_lost_at_each_step_is_the_undisturbed_training(code):
    """The decoding weights as weights in an all-reduce: the lost ranks put in nothing."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(120, 8)), rng.integers(0, 3, 120)
    mlp, p, s = MLP((8, 10, 3)), 6, 2
    theta, B = mlp.init(0, np.float64), code(p, s)
    options = {"optimizer": SGD(0.2), "epochs": 5, "batch_size": 24, "rng": 3}

    def program(comm):
        dice = np.random.default_rng(9)

        def allreduce(comm, vector):
            # What this rank would have sent: its row of B over the parts that all ranks have.
            parts = np.zeros((p, len(vector)))
            parts[comm.Get_rank()] = vector
            comm.Allreduce(None, parts.reshape(-1))
            alive = np.setdiff1d(np.arange(p), dice.choice(p, s, replace=False))
            sent = {int(r): coded_gradient(B[r], parts.__getitem__) for r in alive}
            vector[:] = decode(decoding_vector(B, alive), sent)

        return train(comm, mlp, theta, X, y, allreduce=allreduce, **options)[0]

    expected, _ = run_ranks(1, train, mlp, theta, X, y, **options)[0]
    results = run_ranks(p, program)
    np.testing.assert_allclose(results[0], expected, rtol=0, atol=1e-12)
    assert all(np.array_equal(result, results[0]) for result in results)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fractional_repetition(6, 3), ValueError, r"s \+ 1 must divide p, got p=6 and s=3; cyclic"),
        (lambda: fractional_repetition(0, 0), ValueError, "p must be an integer >= 1, got 0"),
        (lambda: cyclic_repetition(4, 4), ValueError, "s must be below the number of workers, 4, got 4"),
        (lambda: cyclic_repetition(4, -1), ValueError, "s must be an integer >= 0, got -1"),
        (lambda: cyclic_repetition(4.0, 1), TypeError, "p must be an integer, got 4.0"),
        (lambda: decoding_vector(np.eye(3), [0, 1, 3]), ValueError, r"different workers in 0\.\.2, got"),
        (lambda: decoding_vector(np.eye(3), [0, 1, 1, 2]), ValueError, "survivors must be different"),
        (lambda: coded_gradient(np.zeros(3), lambda j: np.ones(2)), ValueError, "row must have a partition"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
