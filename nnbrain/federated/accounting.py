"""What a private run has spent: the arithmetic of ε and δ, left to ``dp-accounting``.

Needs the extra ``privacy``.
"""

from importlib import import_module
from typing import Any

import numpy as np

from nnbrain import checks


def epsilon(
    noise_multiplier: float,
    *,
    clients: int,
    clients_per_round: int,
    rounds: int,
    delta: float,
    sampling: str = "poisson",
) -> float:
    """Return ε of a run, so that it is (ε, δ)-private for each client.

    Parameters
    ----------
    noise_multiplier : float
        z: noise of standard deviation z R on a sum of vectors that are R long at most.
    clients, clients_per_round : int
        K and m. What one client sends under `LocalNoise` is a sum over 1 of 1, with sampling="fixed".
    rounds : int
    delta : float
        δ in (0, 1). It should be well below 1/K.
    sampling : {"poisson", "fixed"}
        How clients are selected, and with it what is hidden. With "poisson", as `poisson` selects, it is
        whether a client is there at all, which moves a sum by R. With "fixed", exactly m in each round, as
        `uniform` selects, K is known, and what is hidden is which client it is: that moves a sum by 2R.

    Returns
    -------
    float
        0 for no rounds, infinity for no noise.

    Raises
    ------
    ValueError
        If an argument is out of range.
    ImportError
        If dp-accounting is not there.

    Notes
    -----
    ``dp_accounting`` computes it: from privacy-loss distributions, which bound ε closely; for fixed sizes
    below K from Rényi divergences, with Theorem 27 of Wang et al. (2019). Both bound it from above.
    """
    checks.number("noise_multiplier", noise_multiplier, minimum=0)
    clients, m = checks.integer("clients", clients), checks.integer("clients_per_round", clients_per_round)
    if m > clients:
        raise ValueError(f"clients_per_round must be at most the {clients} clients, got {m}")
    rounds = checks.integer("rounds", rounds, minimum=0)
    checks.number("delta", delta, above=0, below=1)
    checks.choice("sampling", sampling, ("poisson", "fixed"))
    dp = _library()
    if rounds == 0 or noise_multiplier == 0:
        return float(np.inf) if rounds else 0.0
    # The library's multipliers are of the largest change of the sum: R, or 2R.
    z = noise_multiplier if sampling == "poisson" else noise_multiplier / 2
    event, everybody = dp.GaussianDpEvent(z), m == clients
    # Losses are rounded up to steps: where there is no sampling, they are large, and so may the steps be.
    step = max(5e-4, 5e-5 * rounds / z**2 if everybody else 0.0)
    accountant = dp.pld.PLDAccountant(value_discretization_interval=step)
    if sampling == "poisson" and not everybody:
        event = dp.PoissonSampledDpEvent(m / clients, event)
    elif not everybody:
        event = dp.SampledWithoutReplacementDpEvent(clients, m, event)
        accountant = dp.rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
    accountant.compose(event, rounds)
    return float(accountant.get_epsilon(delta))


def _library() -> Any:
    try:
        import_module("dp_accounting.pld"), import_module("dp_accounting.rdp")
        return import_module("dp_accounting")
    except ImportError as error:
        raise ImportError(
            "epsilon needs dp-accounting; to install it: pip install 'nnbrain[privacy]'"
        ) from error
