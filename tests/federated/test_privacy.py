"""Differential privacy: the sensitivity, the noise, how it composes, and that runs can be repeated."""

import pickle

import numpy as np
import pytest

from nnbrain.data import load_digits
from nnbrain.federated import (
    ALittle,
    Altered,
    Colluding,
    DifferentiallyPrivate,
    Ditto,
    FedAvg,
    FedOpt,
    FedSGD,
    Krum,
    LocalNoise,
    TrimmedMean,
    Update,
    Valued,
    clip,
    coordinate_median,
    make_clients,
    poisson,
    simulate,
    uniform,
)
from nnbrain.mlp import MLP, SGD

mlp = MLP((64, 8, 10))
theta = mlp.init(0, np.float64)


@pytest.fixture(scope="module")
def clients():
    X, y, *_ = load_digits()
    return make_clients(X[:60].astype(np.float64), y[:60], np.arange(60).reshape(30, 2))


def updates_of(private, clients):
    state = private.init(theta)
    return [private.client_update(state, c, np.random.default_rng(c.id)) for c in clients]


# ---- what a round does ----


def test_clipping_shortens_what_is_long_and_nothing_else():
    """eq-clip."""
    v = np.array([3.0, -4.0])
    assert clip(v, 5.0) is v
    np.testing.assert_allclose(clip(v, 1.0), [0.6, -0.8], rtol=1e-15)
    np.testing.assert_array_equal(clip(np.zeros(2), 1.0), np.zeros(2))


@pytest.mark.parametrize("inner", [FedAvg(mlp, epochs=2, learning_rate=0.5), FedSGD(mlp, 0.5)])
def test_without_noise_and_with_a_wide_bound_it_is_the_unweighted_algorithm(clients, inner):
    """eq-dp-fedavg with z = 0, R large, everybody there: with equal clients, the algorithm itself."""
    private = DifferentiallyPrivate(inner, 30, clip=1e6, noise_multiplier=0.0)
    got, _ = simulate(private, clients, theta, rounds=3)
    expected, _ = simulate(inner, clients, theta, rounds=3)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_one_client_moves_the_result_by_r_over_m_at_most(clients):
    """eq-dp-fedavg: neighbouring rounds before the noise. The bound is reached, as all are clipped."""
    private = DifferentiallyPrivate(FedAvg(mlp, learning_rate=0.5), 10, clip=0.3, noise_multiplier=0.0)
    updates, state = updates_of(private, clients), private.init(theta)
    everybody = private.server_update(state, updates)["theta"]
    moved = [
        np.linalg.norm(everybody - private.server_update(state, updates[:k] + updates[k + 1 :])["theta"])
        for k in range(len(clients))
    ]
    assert max(moved) <= 0.3 / 10 + 1e-12
    assert max(moved) == pytest.approx(0.3 / 10)
    wide = FedAvg(mlp, learning_rate=0.5)  # by itself, it has no such bound: n_samples decides
    heavy = updates_of(wide, clients)
    heavy[0] = heavy[0]._replace(n_samples=10_000)
    one, two = (wide.server_update({"theta": theta}, u)["theta"] for u in (heavy, heavy[1:]))
    assert np.linalg.norm(one - two) > 0.3 / 10


def test_the_noise_has_the_variance_it_should_and_is_alone_in_an_empty_round(clients):
    """eq-dp-fedavg: 40 rounds of nobody; the sample variance of 24,400 normal numbers, within 4 of its sd."""
    private = DifferentiallyPrivate(FedSGD(mlp, 1.0), 10, clip=0.3, noise_multiplier=2.0, seed=5)
    state, noise = private.init(theta), []
    for _ in range(40):
        following = private.server_update(state, [])
        noise.append((following["theta"] - state["theta"]) / (2.0 * 0.3 / 10))
        state = following
    noise = np.concatenate(noise)
    assert abs(noise.var() - 1) < 4 * np.sqrt(2 / noise.size)
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    assert len({n.tobytes() for n in noise.reshape(40, -1)}) == 40
    other = DifferentiallyPrivate(FedSGD(mlp, 1.0), 10, clip=0.3, noise_multiplier=2.0, seed=6)
    assert not np.array_equal(
        other.server_update(other.init(theta), [])["theta"],
        private.server_update(private.init(theta), [])["theta"],
    )


def test_a_run_lives_through_rounds_in_which_nobody_comes(clients, tmp_path):
    private = DifferentiallyPrivate(FedSGD(mlp, 0.5), 1, clip=0.3, noise_multiplier=0.5, seed=5)
    options = {"client_fraction": 1 / len(clients), "select": poisson, "seed": 3}
    whole, history = simulate(private, clients, theta, rounds=12, **options)
    empty = [r for r in history if not r.clients]
    assert 0 < len(empty) < 12
    assert all(np.isnan(r.metrics["loss"]) for r in empty)
    path = tmp_path / "run.npz"
    simulate(private, clients, theta, rounds=empty[0].number, checkpoint=path, **options)
    resumed, _ = simulate(private, clients, theta, rounds=12, checkpoint=path, **options)
    np.testing.assert_array_equal(resumed, whole)
    with pytest.raises(ValueError, match="vectors must be one or more"):
        simulate(FedSGD(mlp), clients, theta, rounds=12, **options)


def test_the_bound_follows_the_quantile():
    """eq-adaptive-clip: from far below and far above it comes to the quantile asked for."""
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(0.0, 0.5, 1000)
    tiny = MLP((1, 2))
    for start in (0.01, 100.0):
        private = DifferentiallyPrivate(FedSGD(tiny), 200, start, 0.5, quantile=0.7, clip_rate=0.3)
        state = private.init(tiny.init(0, np.float64))
        for _ in range(100):
            bound = float(state["privacy.clip"])
            came = rng.choice(lengths, 200, replace=False)
            short = [{"short": np.array(length <= bound, np.int8)} for length in came]
            state = private.server_update(state, [Update(0, np.zeros(tiny.size), 1, 0.0, s) for s in short])
        assert abs(np.mean(lengths <= float(state["privacy.clip"])) - 0.7) < 0.08
    still = private.server_update(
        state, [Update(0, np.zeros(tiny.size), 1, 0.0, {"short": np.array(1)})] * 200
    )
    factor = float(still["privacy.clip"] / state["privacy.clip"])
    assert np.log(factor) == pytest.approx(-0.3 * (1 - 0.7), abs=0.3 * 4 / 20)


def test_vectors_and_count_together_spend_what_was_asked():
    """eq-adaptive-clip: z⁻² = z_Δ⁻² + (2σ)⁻²; the library adds the two releases up to the same."""
    private = DifferentiallyPrivate(FedAvg(mlp), 100, 1.0, 2.0, quantile=0.5)
    assert private.vector_noise > 2.0
    assert private.vector_noise**-2 + (2 * private.count_noise) ** -2 == pytest.approx(2.0**-2, rel=1e-12)
    dp = pytest.importorskip("dp_accounting")
    accountant = dp.rdp.RdpAccountant()
    both = [dp.GaussianDpEvent(private.vector_noise), dp.GaussianDpEvent(private.count_noise / 0.5)]
    accountant.compose(dp.ComposedDpEvent(both))
    alone = dp.rdp.RdpAccountant().compose(dp.GaussianDpEvent(2.0))
    assert accountant.get_epsilon(1e-5) == pytest.approx(alone.get_epsilon(1e-5), rel=1e-9)


# ---- how it composes ----


@pytest.mark.parametrize("quantile", [None, 0.5])
def test_an_interrupted_private_run_goes_on_with_the_same_bits(clients, tmp_path, quantile):
    private = DifferentiallyPrivate(FedAvg(mlp, learning_rate=0.5), 15, 0.5, 1.0, quantile=quantile)
    options = {"client_fraction": 0.5, "select": poisson, "seed": 1}
    undisturbed = simulate(private, clients, mlp.init(0), rounds=6, **options)
    simulate(private, clients, mlp.init(0), rounds=2, checkpoint=tmp_path / "run.npz", **options)
    resumed = simulate(private, clients, mlp.init(0), rounds=6, checkpoint=tmp_path / "run.npz", **options)
    np.testing.assert_array_equal(resumed[0], undisturbed[0])
    assert resumed[0].dtype == np.float32
    assert len({len(r.clients) for r in resumed[1]}) > 1
    again = DifferentiallyPrivate(FedAvg(mlp, learning_rate=0.5), 15, 0.5, 1.0, quantile=quantile, seed=1)
    assert not np.array_equal(simulate(again, clients, mlp.init(0), rounds=6, **options)[0], resumed[0])


def chatty(update, state, client, rng):
    return update._replace(more={"mean": client.X.mean(axis=0)})


def test_an_algorithm_that_sends_more_is_refused(clients):
    private = DifferentiallyPrivate(Altered(FedAvg(mlp), chatty), 30, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"algorithm must send one vector a client, got .*: mean"):
        simulate(private, clients, theta, rounds=1)


def test_local_noise_refuses_what_it_would_not_reach(clients):
    loud = Altered(Altered(FedSGD(mlp), chatty), LocalNoise(0.2, 1.0))
    with pytest.raises(ValueError, match="must send one vector a client, got besides, without noise: mean"):
        simulate(loud, clients, theta, rounds=1)


@pytest.mark.parametrize("aggregate", [coordinate_median, TrimmedMean(1), Krum(1)])
def test_a_rule_that_needs_every_update_is_refused(aggregate):
    for inner in (FedAvg(mlp, aggregate=aggregate), Ditto(FedSGD(mlp, aggregate=aggregate))):
        with pytest.raises(ValueError, match="algorithm must have weighted_mean for its aggregate, got"):
            DifferentiallyPrivate(inner, 30, 1.0, 1.0)


def test_a_server_that_needs_every_update_is_refused_inside_and_works_outside(clients):
    private, fedavg = DifferentiallyPrivate(FedAvg(mlp), 30, 1e6, 0.0), FedAvg(mlp)
    lying, X, y = ALittle(1.0), clients[0].X[:9], clients[0].y[:9]

    def around(algorithm):
        return [
            Colluding(algorithm, [0, 1, 2], lying),
            FedOpt(algorithm, SGD(1.0, momentum=0.9)),
            Valued(algorithm, X, y, 30),
        ]

    for inner in (*around(fedavg), private):
        for layers in (inner, Ditto(inner)):
            message = f"algorithm must leave .* got {type(inner).__name__}, whose"
            with pytest.raises(ValueError, match=message):
                DifferentiallyPrivate(layers, 30, 1.0, 1.0)
    for outer, plain in zip(around(private)[:2], around(fedavg)[:2], strict=True):
        got, _ = simulate(outer, clients, theta, rounds=2)
        expected, _ = simulate(plain, clients, theta, rounds=2)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
        assert np.abs(got - simulate(fedavg, clients, theta, rounds=2)[0]).max() > 1e-4


def test_the_server_shortens_what_a_client_did_not(clients):
    private = DifferentiallyPrivate(FedAvg(mlp), 10, 0.01, 0.0)
    updates, state = updates_of(private, clients), private.init(theta)
    honest = private.server_update(state, updates)["theta"]
    liar = updates[0]._replace(vector=1e3 * updates[0].vector)
    np.testing.assert_allclose(
        private.server_update(state, [liar, *updates[1:]])["theta"], honest, atol=1e-12
    )


@pytest.mark.parametrize("short", [np.array(7), np.array(-1), np.array(0.5), np.array(np.nan)])
def test_whether_a_move_was_short_is_one_bit(clients, short):
    private = DifferentiallyPrivate(FedAvg(mlp), 30, 0.3, 1.0, quantile=0.5)
    state = private.init(theta)
    liar = Update(4, np.zeros(mlp.size), 1, 0.0, {"short": short})
    with pytest.raises(ValueError, match=r"short must be 0 or 1, got .* from client 4"):
        private.server_update(state, [liar])
    with pytest.raises(ValueError, match="client 4 must send 'short'"):
        private.server_update(state, [liar._replace(more={})])


def test_local_noise_has_its_variance_and_composes(clients):
    """eq-local: a message is a clipped vector and noise z R on each entry."""
    quiet, loud = (Altered(FedSGD(mlp), LocalNoise(0.2, z)) for z in (0.0, 3.0))
    sent, meant = (np.concatenate([u.vector for u in updates_of(a, clients)]) for a in (loud, quiet))
    noise = (sent - meant) / (3.0 * 0.2)
    assert abs(noise.var() - 1) < 4 * np.sqrt(2 / noise.size)
    assert max(np.linalg.norm(u.vector) for u in updates_of(quiet, clients)) == pytest.approx(0.2)
    assert np.all(np.isfinite(simulate(loud, clients, theta, rounds=2)[0]))
    both = pickle.loads(pickle.dumps(DifferentiallyPrivate(loud, 30, 1.0, 1.0)))
    assert both == DifferentiallyPrivate(loud, 30, 1.0, 1.0)


def test_poisson_draws_each_client_independently():
    """The number that come is binomial; two clients come together as often as independent ones do."""
    rng, everybody = np.random.default_rng(0), [None] * 40
    came = np.zeros((4000, 40))
    for row in came:
        row[list(poisson({}, everybody, 8, rng, []))] = 1
    assert abs(came.mean() - 0.2) < 4 * np.sqrt(0.16 / came.size)
    assert abs(came.sum(axis=1).var() - 40 * 0.16) < 4 * 40 * 0.16 * np.sqrt(2 / 4000)
    assert abs(np.mean(came[:, 0] * came[:, 1]) - 0.04) < 4 * np.sqrt(0.04 * 0.96 / 4000)
    fixed = np.array([len(uniform({}, everybody, 8, rng, [])) for _ in range(20)])
    assert np.all(fixed == 8)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"clip": 0.0}, "clip"),
        ({"noise_multiplier": -1.0}, "noise_multiplier"),
        ({"clients_per_round": 0}, "clients_per_round"),
        ({"quantile": 1.0}, "quantile"),
        ({"quantile": 0.5, "noise_multiplier": 3.0}, "noise_multiplier must be below clients_per_round / 10"),
        ({"seed": -1}, "seed"),
        ({"clip_rate": 0.0}, "clip_rate"),
    ],
)
def test_settings_out_of_range_are_refused(settings, name):
    private = {"clients_per_round": 30, "clip": 1.0, "noise_multiplier": 1.0, **settings}
    with pytest.raises(ValueError, match=name):
        DifferentiallyPrivate(FedAvg(mlp), **private)
    if name in ("clip", "noise_multiplier"):
        with pytest.raises(ValueError, match=name):
            LocalNoise(**{"clip": 1.0, "noise_multiplier": 1.0, **settings})
