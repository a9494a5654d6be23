"""What privacy costs: the accountant against closed forms, an integral, the library and published numbers."""

import sys

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from nnbrain.federated import epsilon


def gaussian_delta(eps, z):
    """δ of the Gaussian mechanism, in closed form: Balle and Wang (2018), Theorem 8."""
    return norm.cdf(0.5 / z - eps * z) - np.exp(eps) * norm.cdf(-0.5 / z - eps * z)


@pytest.mark.parametrize(("z", "rounds"), [(1.0, 1), (4.0, 9), (2.0, 3)])
def test_epsilon_without_sampling_is_the_closed_form(z, rounds):
    """eq-dp: T Gaussian releases are one with z/√T; and hiding which one it is halves z."""
    pytest.importorskip("dp_accounting")
    run = {"clients": 50, "clients_per_round": 50, "rounds": rounds, "delta": 1e-5}
    expected = brentq(lambda e: gaussian_delta(e, z / np.sqrt(rounds)) - 1e-5, 1e-3, 60)
    assert epsilon(z, **run) == pytest.approx(expected, abs=2e-3)
    assert epsilon(2 * z, sampling="fixed", **run) == pytest.approx(expected, abs=2e-3)


def test_epsilon_of_one_sampled_round_is_an_integral():
    """eq-dp: the excess of q N(1, z²) + (1 - q) N(0, z²) over e^ε N(0, z²), integrated; and the other way."""
    pytest.importorskip("dp_accounting")
    z, q, delta = 1.0, 0.1, 1e-4
    eps = epsilon(z, clients=1000, clients_per_round=100, rounds=1, delta=delta)

    def mixture(x):
        return q * norm.pdf(x, 1, z) + (1 - q) * norm.pdf(x, 0, z)

    def excess(x):
        return max(mixture(x) - np.exp(eps) * norm.pdf(x, 0, z), 0)

    def lack(x):
        return max(norm.pdf(x, 0, z) - np.exp(eps) * mixture(x), 0)

    found = max(quad(f, -12, 12, limit=500, points=[-4, -2, 2, 4])[0] for f in (excess, lack))
    assert found == pytest.approx(delta, rel=2e-2)


def test_epsilon_is_the_librarys_and_below_published_bounds():
    """Bu et al. (2020), figure 4: q = 256/60000, σ = 0.7, 70 epochs, δ = 1e-5 cost ε = 8.68.

    TensorFlow Privacy's tutorial: q = 250/60000, σ = 1.3, 3,600 steps, δ = 1e-5 cost 1.18. Both are moments
    accountants, which add log(1/δ)/(α - 1) to a Rényi divergence: with the library's that is their number.
    """
    dp = pytest.importorskip("dp_accounting")
    published = [(0.7, 60_000, 256, 16_406, 8.68), (1.3, 60_000, 250, 3_600, 1.18)]
    for z, clients, m, rounds, number in published:
        event = dp.PoissonSampledDpEvent(m / clients, dp.GaussianDpEvent(z))
        orders = np.concatenate([np.arange(20, 110) / 10, np.arange(11, 65)])
        rdp = dp.rdp.RdpAccountant(list(orders)).compose(event, rounds)._rdp
        assert min(rdp + np.log(1e5) / (orders - 1)) == pytest.approx(number, abs=0.006)
        ours = epsilon(z, clients=clients, clients_per_round=m, rounds=rounds, delta=1e-5)
        closely = dp.pld.PLDAccountant().compose(event, rounds).get_epsilon(1e-5)
        assert closely - 1e-9 <= ours <= 1.01 * closely
        assert ours < dp.rdp.RdpAccountant().compose(event, rounds).get_epsilon(1e-5) < number


def test_a_fixed_number_of_clients_is_counted_as_it_is_drawn():
    """The library's event for it, at half the multiplier: replacing a client moves a sum by 2R."""
    dp = pytest.importorskip("dp_accounting")
    run = {"clients": 1000, "clients_per_round": 50, "rounds": 20, "delta": 1e-5}
    accountant = dp.rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
    accountant.compose(dp.SampledWithoutReplacementDpEvent(1000, 50, dp.GaussianDpEvent(2.0)), 20)
    assert epsilon(4.0, sampling="fixed", **run) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9)
    assert epsilon(4.0, sampling="fixed", **run) > epsilon(4.0, **run)


def test_epsilon_at_the_edges(monkeypatch):
    pytest.importorskip("dp_accounting")
    run = {"clients": 100, "clients_per_round": 10, "delta": 1e-5}
    assert epsilon(1.0, rounds=0, **run) == 0.0
    assert epsilon(0.0, rounds=1, **run) == np.inf
    assert epsilon(np.float32(1), rounds=np.int64(5), **run) == epsilon(1, rounds=5, **run)
    assert epsilon(1.0, rounds=5, **run) < epsilon(1.0, rounds=10, **run) < epsilon(0.9, rounds=10, **run)
    with pytest.raises(ValueError, match="at most the 100 clients, got 101"):
        epsilon(1.0, rounds=1, clients=100, clients_per_round=101, delta=1e-5)
    for wrong in ({"delta": 0.0}, {"delta": 1.0}, {"rounds": -1}, {"sampling": "shuffled"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            epsilon(1.0, **{"rounds": 1, **run, **wrong})
    monkeypatch.setitem(sys.modules, "dp_accounting.pld", None)
    with pytest.raises(ImportError, match=r"pip install 'nnbrain\[privacy\]'"):
        epsilon(1.0, rounds=1, **run)


def test_what_a_test_can_find_out_is_bounded():
    """eq-dp-roc: for a sum with noise, the best test there is, at every threshold, stays below the line."""
    pytest.importorskip("dp_accounting")
    for z in (0.5, 1.0, 3.0):
        eps = epsilon(z, clients=1, clients_per_round=1, rounds=1, delta=1e-5)
        threshold = np.linspace(-6 * z, 1 + 6 * z, 400)
        false, true = norm.sf(threshold / z), norm.sf((threshold - 1) / z)
        assert np.all(true <= np.exp(eps) * false + 1e-5)
        assert np.max(true - np.exp(0.9 * eps) * false) > 1e-5
