"""Single neurons in continuous time: leaky integrate-and-fire and Hodgkin-Huxley.

Both simulate any number of unconnected neurons at once, one column each. Units: mV, ms; currents in
nA for the integrate-and-fire neuron (a whole cell) and in µA/cm² for Hodgkin-Huxley (a patch of
membrane).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, exprel

from nnbrain import checks
from nnbrain.checks import Floats, Ints


@dataclass(frozen=True)
class Recording:
    """What a simulation of n neurons over T steps recorded.

    Attributes
    ----------
    t : array (T,)
        Times in ms, at the end of each step.
    V : array (T, n)
        Membrane potentials in mV.
    spikes : list of n arrays
        Spike times in ms, a neuron each.
    """

    t: Floats
    V: Floats
    spikes: list[Floats]

    def rate(self, after: float = 0.0) -> Floats:
        """Return each neuron's mean rate in Hz: 1000 / mean interval between spikes later than `after` ms.

        A neuron with fewer than two such spikes has rate 0.
        """
        late = [times[times > after] for times in self.spikes]
        return np.array([1000 / np.diff(times).mean() if len(times) > 1 else 0.0 for times in late])


@dataclass(frozen=True)
class LIF:
    """The leaky integrate-and-fire neuron, τ dV/dt = -(V - E_L) + R I, with a spike at V_theta.

    After a spike V is held at V_reset for t_ref. Lapicque (1907); parameters of a generic cortical cell.

    Parameters
    ----------
    tau : float
        Membrane time constant τ in ms.
    R : float
        Membrane resistance in MΩ, so that R I is in mV for I in nA.
    E_L, V_theta, V_reset : float
        Resting potential, threshold and reset in mV; V_theta is above both others.
    t_ref : float
        Refractory period in ms.

    Raises
    ------
    ValueError
        If a time or the resistance is not positive, or V_theta is not the highest potential.
    """

    tau: float = 20.0
    R: float = 10.0
    E_L: float = -65.0
    V_theta: float = -50.0
    V_reset: float = -65.0
    t_ref: float = 2.0

    def __post_init__(self) -> None:
        checks.number("tau", self.tau, above=0)
        checks.number("R", self.R, above=0)
        checks.number("t_ref", self.t_ref, minimum=0)
        checks.number("V_theta", self.V_theta)
        checks.number("E_L", self.E_L, below=self.V_theta)
        checks.number("V_reset", self.V_reset, below=self.V_theta)

    @property
    def rheobase(self) -> float:
        """The current in nA above which the neuron fires at all: (V_theta - E_L) / R."""
        return (self.V_theta - self.E_L) / self.R

    def rate(self, current: npt.ArrayLike) -> Floats:
        """Return the firing rate in Hz at each constant `current` in nA, in closed form.

        1 / (t_ref + τ ln((RI - (V_reset - E_L)) / (RI - (V_theta - E_L)))), and 0 up to the rheobase.
        """
        drive = self.R * checks.floats("current", current)
        fires = drive > self.V_theta - self.E_L
        above = np.where(fires, drive, np.inf)  # where silent, any value: masked below
        with np.errstate(invalid="ignore"):
            charging = self.tau * np.log(
                (above - (self.V_reset - self.E_L)) / (above - (self.V_theta - self.E_L))
            )
        return np.where(fires, 1000 / np.where(fires, self.t_ref + charging, 1.0), 0.0)

    def simulate(self, current: npt.ArrayLike, duration: float, dt: float = 0.1) -> Recording:
        """Return a recording of n neurons over `duration` ms, all starting at E_L.

        Parameters
        ----------
        current : float or array (n,) or array (T, n)
            Injected current in nA: constant, or one row a step.
        duration, dt : float
            Length and step in ms; t_ref is rounded to steps. Between spikes the step is exact, whatever its
            length, for a current constant over it; spikes fall on the grid, up to dt late.

        Raises
        ------
        ValueError
            If a time is not positive or `current` has another shape.
        """
        currents = _currents(current, duration, dt)
        steps, n = currents.shape
        decay = np.exp(-dt / self.tau)
        refractory_steps = round(self.t_ref / dt)
        V = np.full(n, self.E_L)
        wait = np.zeros(n, dtype=int)
        trace, fired = np.empty((steps, n)), np.zeros((steps, n), dtype=bool)
        for k, I in enumerate(currents):
            V_inf = self.E_L + self.R * I
            V = np.where(wait > 0, self.V_reset, V_inf + (V - V_inf) * decay)
            wait -= wait > 0
            fired[k] = V >= self.V_theta
            V[fired[k]] = self.V_reset
            wait[fired[k]] = refractory_steps
            trace[k] = V
        return _recording(trace, fired, dt)


@dataclass(frozen=True)
class HodgkinHuxley:
    """The squid's giant axon at 6.3 °C: Hodgkin & Huxley (1952), with rest at -65 mV.

    C dV/dt = I - g_Na m³ h (V - E_Na) - g_K n⁴ (V - E_K) - g_L (V - E_L), and for each gate
    x in m, h, n: dx/dt = α_x(V) (1 - x) - β_x(V) x.

    Parameters
    ----------
    C : float
        Membrane capacitance in µF/cm².
    g_Na, g_K, g_L : float
        Largest conductances in mS/cm².
    E_Na, E_K, E_L : float
        Reversal potentials in mV.

    Raises
    ------
    ValueError
        If the capacitance is not positive or a conductance is negative.
    """

    C: float = 1.0
    g_Na: float = 120.0
    g_K: float = 36.0
    g_L: float = 0.3
    E_Na: float = 50.0
    E_K: float = -77.0
    E_L: float = -54.387

    def __post_init__(self) -> None:
        checks.number("C", self.C, above=0)
        for name in ("g_Na", "g_K", "g_L"):
            checks.number(name, getattr(self, name), minimum=0)
        for name in ("E_Na", "E_K", "E_L"):
            checks.number(name, getattr(self, name))

    def opening(self, V: Floats) -> Floats:
        """Return α(V), the rates in 1/ms at which the gates m, h, n open, shape (3, …)."""
        alpha = np.empty((3, *V.shape))
        alpha[0] = 1 / exprel(-(V + 40) / 10)  # x / (1 - e^-x), which is 1 at x = 0
        alpha[1] = 0.07 * np.exp(-(V + 65) / 20)
        alpha[2] = 0.1 / exprel(-(V + 55) / 10)
        return alpha

    def closing(self, V: Floats) -> Floats:
        """Return β(V), the rates in 1/ms at which the gates m, h, n close, shape (3, …)."""
        beta = np.empty((3, *V.shape))
        beta[0] = 4 * np.exp(-(V + 65) / 18)
        beta[1] = expit((V + 35) / 10)  # 1 / (1 + e^-x)
        beta[2] = 0.125 * np.exp(-(V + 65) / 80)
        return beta

    def derivative(self, state: Floats, current: Floats) -> Floats:
        """Return d/dt of the state (V, m, h, n), shape (4, …), in mV/ms and 1/ms."""
        V, m, h, n = state
        sodium = self.g_Na * m * m * m * h * (V - self.E_Na)
        potassium = self.g_K * (n * n) ** 2 * (V - self.E_K)
        leak = self.g_L * (V - self.E_L)
        change = np.empty_like(state)
        change[0] = (current - sodium - potassium - leak) / self.C
        change[1:] = self.opening(V) * (1 - state[1:]) - self.closing(V) * state[1:]
        return change

    def rest(self, n: int = 1) -> Floats:
        """Return the state (4, n) that n neurons have without current; there V is close to -65 mV."""

        def net_current(V: float) -> float:
            return float(self.derivative(self._steady(np.array([V])), np.zeros(1))[0, 0])

        return np.repeat(self._steady(np.array([brentq(net_current, -90, -50)])), n, axis=1)

    def simulate(self, current: npt.ArrayLike, duration: float, dt: float = 0.025) -> Recording:
        """Return a recording of n neurons over `duration` ms, starting at rest.

        Parameters
        ----------
        current : float or array (n,) or array (T, n)
            Injected current in µA/cm²: constant, or one row a step.
        duration, dt : float
            Length and step in ms, for the classical Runge-Kutta method of order 4; dt at most 0.05.

        Raises
        ------
        ValueError
            If a time is not positive, dt is too large to be stable, or `current` has another shape.

        Notes
        -----
        A spike is an upward crossing of -20 mV: from about 100 µA/cm² on, peaks no longer reach 0 mV, and
        beyond that the membrane only oscillates (depolarisation block).
        """
        checks.number("dt", dt, above=0, maximum=0.05)  # sodium's activation is as fast as 0.1 ms
        currents = _currents(current, duration, dt)
        steps, n = currents.shape
        state = self.rest(n)
        trace = np.empty((steps + 1, n))
        trace[0] = state[0]
        for k, I in enumerate(currents):
            state = runge_kutta_4(lambda s, I=I: self.derivative(s, I), state, dt)  # type: ignore[misc]
            trace[k + 1] = state[0]
        fired = (trace[:-1] < -20) & (trace[1:] >= -20)
        return _recording(trace[1:], fired, dt)

    def _steady(self, V: Floats) -> Floats:
        """Return the state (4, n) whose gates have settled at the potentials V (n,)."""
        alpha = self.opening(V)
        return np.concatenate([V[None], alpha / (alpha + self.closing(V))])


def runge_kutta_4(derivative: Callable[[Floats], Floats], state: Floats, dt: float) -> Floats:
    """Return the state one step of dt later by the classical Runge-Kutta method of order 4."""
    k1 = derivative(state)
    k2 = derivative(state + dt / 2 * k1)
    k3 = derivative(state + dt / 2 * k2)
    k4 = derivative(state + dt * k3)
    mean_slope: Floats = (k1 + 2 * k2 + 2 * k3 + k4) / 6
    return np.asarray(state + dt * mean_slope)


def _currents(current: npt.ArrayLike, duration: float, dt: float) -> Floats:
    """Return the current as one row a step, (T, n), whatever form it came in."""
    steps = round(checks.number("duration", duration, above=0) / checks.number("dt", dt, above=0))
    values = checks.floats("current", current)
    if steps < 1:
        raise ValueError(f"duration must be at least one step of dt = {dt} ms, got {duration}")
    if values.ndim < 2:
        return np.broadcast_to(np.atleast_1d(values), (steps, values.size))
    if values.ndim > 2 or len(values) != steps:
        raise ValueError(
            f"current must be a number, (n,) or ({steps}, n), one row a step, got shape {values.shape}"
        )
    return values


def _recording(V: Floats, fired: npt.NDArray[np.bool_], dt: float) -> Recording:
    steps: list[Ints] = [np.flatnonzero(column) for column in fired.T]
    return Recording(dt * np.arange(1, len(V) + 1), V, [dt * (k + 1) for k in steps])
