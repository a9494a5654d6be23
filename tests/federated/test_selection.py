"""Who is asked: against enumeration of all draws; and how long it takes: against all rounds there can be."""

import pickle
from dataclasses import replace
from itertools import combinations, permutations
from math import comb

import numpy as np
import pytest

from nnbrain.distributed import Cluster, exponential, steady
from nnbrain.federated import (
    Client,
    Deadline,
    FedAvg,
    PowerOfChoice,
    Round,
    Scaffold,
    Useful,
    Valued,
    expected_slowest,
    last_losses,
    local_loss,
    make_clients,
    partition_shards,
    round_ends,
    simulate,
    uniform,
)
from nnbrain.federated.selection import draw, number_asked
from nnbrain.mlp import MLP

mlp = MLP((64, 8, 10))
theta = mlp.init(0, np.float64)
state = {"theta": theta}
K = 7


class Drawn:
    """A generator whose choice is known beforehand."""

    def __init__(self, positions):
        self.positions = np.array(positions)

    def choice(self, K, d, *, replace, p=None):
        assert len(self.positions) == d
        return self.positions


def past(*rounds):
    """Return a history, of dictionaries from clients to the losses that they reported."""
    return [
        Round(i, list(losses), {}, {"loss": list(losses.values())})
        for i, losses in enumerate(rounds, start=1)
    ]


@pytest.fixture(scope="module")
def clients(digits):
    """Seven clients of equal size, with two kinds of digits each."""
    X, y, *_ = digits
    return make_clients(X[:700], y[:700], partition_shards(y[:700], K, 0))


def losses_by_hand(clients):
    """Return each client's mean cross-entropy, written out."""
    W1, b1 = theta[: 64 * 8].reshape(64, 8), theta[64 * 8 : 65 * 8]
    W2, b2 = theta[65 * 8 : 65 * 8 + 80].reshape(8, 10), theta[-10:]
    found = []
    for client in clients:
        z = np.maximum(client.X[client.index] @ W1 + b1, 0) @ W2 + b2
        own = z[np.arange(len(z)), client.y[client.index]]
        found.append(np.mean(np.log(np.exp(z).sum(axis=1)) - own))
    return np.array(found)


def test_with_all_as_candidates_those_with_the_highest_losses_are_asked(clients):
    """eq-power-of-choice, against losses written out and sorted."""
    losses = losses_by_hand(clients)
    np.testing.assert_allclose([local_loss(mlp, theta, c) for c in clients], losses, rtol=1e-12)
    weights = np.zeros(clients[2].n_samples)
    weights[4] = 2.0
    one = replace(clients[2], index=clients[2].index[4:5])
    assert local_loss(mlp, theta, replace(clients[2], weights=weights)) == pytest.approx(
        losses_by_hand([one])[0]
    )
    for n in (1, 3, 7):
        worst = sorted(np.argsort(losses)[K - n :])
        rng = np.random.default_rng(n)
        assert sorted(PowerOfChoice(mlp, K)(state, clients, n, rng, [])) == worst


def test_with_n_candidates_clients_are_drawn_in_proportion_to_their_data(unequal):
    """Successive draws without replacement, their probabilities from all orders."""
    sizes = [client.n_samples for client in unequal]
    expected = {}
    for first, second in permutations(range(4), 2):
        p = sizes[first] / sum(sizes) * sizes[second] / (sum(sizes) - sizes[first])
        pair = (min(first, second), max(first, second))
        expected[pair] = expected.get(pair, 0) + p
    rng, counts, draws = np.random.default_rng(0), dict.fromkeys(expected, 0), 3000
    for _ in range(draws):
        counts[tuple(sorted(PowerOfChoice(mlp, 2)(state, unequal, 2, rng, [])))] += 1
    for pair, p in expected.items():
        assert abs(counts[pair] / draws - p) < 4 * np.sqrt(p * (1 - p) / draws) + 1e-3
    assert sum(expected.values()) == pytest.approx(1)


@pytest.mark.parametrize(("n", "d"), [(2, 2), (2, 4), (3, 5), (3, 7), (1, 3)])
def test_the_chance_to_be_asked_falls_with_the_rank_of_the_loss(clients, n, d):
    """eq-asked: against all sets of candidates."""
    times = np.zeros(K)
    for candidates in combinations(range(K), d):
        times[PowerOfChoice(mlp, d)(state, clients, n, Drawn(candidates), [])] += 1
    ranks = 1 + np.argsort(np.argsort(-losses_by_hand(clients)))
    for k, r in enumerate(ranks.tolist()):
        ways = sum(comb(r - 1, j) * comb(K - r, d - 1 - j) for j in range(min(n, d)))
        assert times[k] / comb(K, d) == pytest.approx(ways / comb(K, d), abs=1e-15)
    assert times.sum() / comb(K, d) == pytest.approx(n)


def test_remembered_losses_are_the_last_reported_and_new_clients_come_first(clients):
    history = past({0: 0.3, 1: 0.9, 2: 0.1}, {1: 0.2, 3: 0.5, 4: 0.6})
    assert last_losses(history) == {0: 0.3, 1: 0.2, 2: 0.1, 3: 0.5, 4: 0.6}
    rule = PowerOfChoice(mlp, 5, remembered=True)
    assert sorted(rule({}, clients, 3, Drawn([0, 1, 2, 3, 4]), history)) == [0, 3, 4]
    assert sorted(rule({}, clients, 2, Drawn([6, 1, 2, 3, 5]), history)) == [5, 6]


def test_weights_by_the_chance_to_be_asked_make_the_mean_move_unbiased():
    """eq-unbiased: over all rounds there can be; FedAvg's own weights do so for clients of equal size."""
    rng = np.random.default_rng(0)
    moves = rng.normal(size=(K, 3))
    for sizes, exact in ((np.full(K, 20), True), (np.array([1, 2, 3, 5, 8, 13, 21]), False)):
        target = sizes / sizes.sum() @ moves
        for n in (1, 3):
            rounds = [list(S) for S in combinations(range(K), n)]
            chance = n / K
            divided = [sizes[S] / sizes.sum() / chance @ moves[S] for S in rounds]
            np.testing.assert_allclose(np.mean(divided, axis=0), target, atol=1e-14)
            fedavg = np.mean([sizes[S] / sizes[S].sum() @ moves[S] for S in rounds], axis=0)
            assert np.allclose(fedavg, target, atol=1e-14) == exact
    # any other rule, here one that leans on the first clients: as long as no chance is 0
    weights = np.array([5, 4, 3, 2, 1, 1, 1.0])
    rounds = [list(S) for S in combinations(range(K), 2)]
    chances = np.array([weights[S].prod() for S in rounds])
    chances /= chances.sum()
    asked = sum(p * np.isin(range(K), S) for p, S in zip(chances, rounds, strict=True))
    total = sum(p * (moves[S].T / asked[S]).sum(axis=1) / K for p, S in zip(chances, rounds, strict=True))
    np.testing.assert_allclose(total, moves.mean(axis=0), atol=1e-14)


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("d", [4, K])
def test_a_deadline_lets_those_in_time_take_part_and_no_more_than_n(clients, n, d):
    seconds = [3.0, 1.0, 2.5, 0.5, 4.0, 1.5, 2.0]
    rule = Deadline(seconds, 2.0, None if d == K else d)
    for drawn in permutations(range(K), d):
        in_time = [k for k in drawn if seconds[k] <= 2][:n]
        expected = in_time or [min(drawn, key=lambda k: seconds[k])]
        assert sorted(rule(state, clients, n, Drawn(drawn), [])) == sorted(expected)
    assert Deadline(seconds, 0.1)(state, clients, n, np.random.default_rng(0), []) == [3]


def test_all_who_are_in_time_are_asked_equally_often(clients):
    rule, rng, counts = Deadline([1, 5, 1, 5, 1, 1, 1], 2), np.random.default_rng(0), np.zeros(K)
    for _ in range(2000):
        counts[rule(state, clients, 2, rng, [])] += 1
    assert np.all(counts[[1, 3]] == 0)
    assert np.all(np.abs(counts[[0, 2, 4, 5, 6]] / 2000 - 2 / 5) < 4 * np.sqrt(0.24 / 2000))


def test_useful_clients_stay_and_others_go_when_they_were_tried_enough(clients):
    found = {"value": np.array([1.0, -1, 0, -3, -2, 5, -4]), "valued": np.array([3, 2, 2, 2, 1, 9, 0])}
    for trials, gone in ((1, {1, 3, 4}), (2, {1, 3}), (3, set())):
        seen = set()
        for seed in range(60):
            asked = Useful(trials)(found, clients, 3, np.random.default_rng(seed), [])
            assert len(set(asked)) == 3
            seen |= set(asked)
        assert seen == set(range(K)) - gone
    # more are wanted than are left: the best of the others
    assert sorted(Useful(1)(found, clients, 5, np.random.default_rng(0), [])) == [0, 1, 2, 5, 6]


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_the_mean_time_of_the_slowest_is_that_over_all_rounds(n):
    """eq-slowest."""
    seconds = [3.0, 1.0, 2.5, 0.5, 4.0, 1.0, 2.0]
    expected = np.mean([max(S) for S in combinations(seconds, n)])
    assert expected_slowest(seconds, n) == pytest.approx(expected, rel=1e-14)


def test_a_round_ends_with_its_slowest_client_or_with_the_deadline():
    history = past({0: 0, 2: 0}, {1: 0}, {0: 0, 1: 0, 2: 0})
    cluster = Cluster(3, steady([1.0, 2.5, 4.0]))
    np.testing.assert_allclose(round_ends(history, cluster), [4.0, 6.5, 10.5])
    np.testing.assert_allclose(round_ends(history, Cluster(3, steady(1.0), latency=0.5)), [1.5, 3.0, 4.5])
    np.testing.assert_allclose(round_ends(history, cluster, deadline=3.0), [3.0, 6.0, 9.0])
    # a client's times are its own: its first, second, ... whoever else takes part
    drawn = [[rng.exponential() for _ in range(2)] for rng in np.random.default_rng(5).spawn(3)]
    lengths = [max(drawn[0][0], drawn[2][0]), drawn[1][0], max(drawn[0][1], drawn[1][1], drawn[2][1])]
    ends = round_ends(history, Cluster(3, exponential(1.0), seed=5))
    np.testing.assert_allclose(ends, np.cumsum(lengths), rtol=1e-14)
    assert len(round_ends([], Cluster(3, steady(1.0)))) == 0


@pytest.mark.parametrize(("n_clients", "n"), [(1, 1), (9, 4), (9, 9), (0, 0)])
def test_a_draw_is_of_different_positions_in_order_and_uniform_is_such_a_draw(clients, n_clients, n):
    drawn = draw(n_clients, n, np.random.default_rng(3))
    assert list(drawn) == sorted(set(drawn))
    assert len(drawn) == n
    assert set(drawn) <= set(range(n_clients))
    expected = draw(K, 3, np.random.default_rng(n))
    np.testing.assert_array_equal(uniform(state, clients, 3, np.random.default_rng(n), []), expected)


@pytest.mark.parametrize(("C", "n", "asked"), [(0.1, 100, 10), (0.001, 100, 1), (1.0, 7, 7), (0.25, 7, 2)])
def test_how_many_a_share_is(C, n, asked):
    assert number_asked(C, n) == asked


def test_the_order_of_a_rules_answer_does_not_matter(clients):
    def backwards(*arguments):
        return uniform(*arguments)[::-1]

    options = {"rounds": 2, "client_fraction": 4 / 7}
    ends = [simulate(FedAvg(mlp), clients, theta, select=rule, **options)[0] for rule in (uniform, backwards)]
    np.testing.assert_array_equal(*ends)


rules = {
    "uniform": uniform,
    "power of choice": PowerOfChoice(mlp, 5),
    "remembered": PowerOfChoice(mlp, 6, remembered=True),
    "deadline": Deadline([1, 2, 3, 4, 5, 6, 7], 5.5, 6),
    "useful": Useful(1),
}


@pytest.mark.parametrize("name", rules)
def test_a_run_that_goes_on_from_a_checkpoint_has_the_same_bits(clients, tmp_path, name):
    rule = rules[name]
    assert pickle.loads(pickle.dumps(rule)) == rule
    path, options = tmp_path / "run.npz", {"client_fraction": 3 / 7, "seed": 2, "select": rule}
    for algorithm in (FedAvg(mlp, 1, 20, 0.2), Scaffold(mlp, 1, 20, 0.2, total_samples=700)):
        if name == "useful":
            algorithm = Valued(algorithm, clients[0].X[:40], clients[0].y[:40], K)
        once = simulate(algorithm, clients, theta, rounds=6, **options)
        simulate(algorithm, clients, theta, rounds=3, checkpoint=path, **options)
        again = simulate(algorithm, clients, theta, rounds=6, checkpoint=path, **options)
        np.testing.assert_array_equal(again[0], once[0])
        assert again[1] == once[1]
        other = PowerOfChoice(mlp, 4)
        with pytest.raises(ValueError, match="its select is"):
            simulate(algorithm, clients, theta, rounds=6, checkpoint=path, **{**options, "select": other})
        path.unlink()


def test_ids_and_not_positions_say_who_is_slow_or_has_a_loss(clients):
    renamed = [Client(K - 1 - c.id, c.X, c.y, c.index) for c in clients]
    everyone = np.arange(K)
    assert sorted(Deadline([1, 1, 9, 9, 9, 9, 9], 2)(state, renamed, 2, Drawn(everyone), [])) == [5, 6]
    rule = PowerOfChoice(mlp, K, remembered=True)
    assert rule({}, renamed, 1, Drawn(everyone), past(dict(enumerate([9.0, 1, 1, 1, 1, 1, 1])))) == [6]


rng = np.random.default_rng(0)
few = {**state, "value": np.zeros(5), "valued": np.zeros(5, int)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: PowerOfChoice(mlp, 0), "candidates must be an integer >= 1, got 0"),
        (lambda c: PowerOfChoice(mlp, 2)(state, c, 3, rng, []), "candidates must be at least the 3 clients"),
        (lambda c: PowerOfChoice(mlp, 8)(state, c, 3, rng, []), "asked in a round and at most all 7, got 8"),
        (lambda c: Deadline([1, 0], 1), r"seconds\[1\] must be finite and > 0, got 0"),
        (lambda c: Deadline([1], 0), "deadline must be finite and > 0, got 0"),
        (lambda c: Deadline([1], 1, 0), "candidates must be an integer >= 1, got 0"),
        (lambda c: Deadline([1] * 7, 1, 8)(state, c, 3, rng, []), "candidates must be at most the 7 clients"),
        (lambda c: Deadline([1] * 6, 1)(state, c, 3, rng, []), "seconds must have an entry for each client"),
        (lambda c: Useful(0), "trials must be an integer >= 1, got 0"),
        (lambda c: Useful()(state, c, 3, rng, []), "state must have 'value', of Valued, got"),
        (lambda c: Useful()(few, c, 3, rng, []), r"ids in 0\.\.4, as n_clients of Valued says, got \[5, 6\]"),
        (lambda c: expected_slowest([1, 2], 3), "n must be at most the 2 clients there are, got 3"),
        (lambda c: round_ends(past({3: 0}), Cluster(3, steady(1.0))), "worker must be an idle one"),
        (lambda c: round_ends([], Cluster(3, steady(1.0)), deadline=-1), "deadline must be finite and > 0"),
    ],
)
def test_bad_input_is_refused(clients, call, message):
    with pytest.raises(ValueError, match=message):
        call(clients)


def test_a_busy_cluster_is_refused():
    cluster = Cluster(3, steady(1.0))
    cluster.start(1)
    with pytest.raises(ValueError, match=r"cluster must have idle workers only, got \[1\]"):
        round_ends([], cluster)
