"""A data-parallel step in which each rank updates one piece of θ, and remembers only what that takes."""

from dataclasses import dataclass

import numpy as np

from nnbrain.checks import Floats
from nnbrain.distributed.collectives import pass_round, reduce_scatter
from nnbrain.distributed.comm import Communicator
from nnbrain.mlp.optimizers import Optimizer, State


@dataclass(frozen=True)
class ShardedOptimizer:
    """Any optimiser, its state cut over the ranks: each takes the step for one piece of θ and hands it on.

    It sums the gradient as well: the two halves of `ring_allreduce` stand before and after the step, so a
    rank sends what it would send to sum the gradient, and ends with the same θ.

    Parameters
    ----------
    comm : Communicator
        Of p ranks; all call `update` together.
    optimizer : Optimizer
        The rule for a piece. It must treat every parameter by itself, as all of `nnbrain.mlp` do.

    Notes
    -----
    Rajbhandari et al. (2020), "ZeRO: memory optimizations toward training trillion parameter models", the
    first of its three stages.
    """

    comm: Communicator
    optimizer: Optimizer

    def init(self, theta: Floats) -> State:
        """Return the state of this rank's piece, which belongs to no other rank."""
        mine = self._mine()
        piece = np.array_split(theta, self.comm.Get_size())[mine]
        return {"piece": np.array(mine), **self.optimizer.init(piece)}

    def update(self, theta: Floats, grad: Floats, state: State) -> None:
        """Move θ, the same on all ranks, one step against the sum of all ranks' `grad`.

        Changes theta and this rank's state in place and uses up grad.

        Raises
        ------
        ValueError
            If `state` is another rank's.
        """
        mine = self._mine()
        if state["piece"] != mine:
            raise ValueError(f"state must be of piece {mine}, got piece {state['piece']}'s")
        pieces = np.array_split(theta, self.comm.Get_size())  # views into theta
        self.optimizer.update(pieces[mine], reduce_scatter(self.comm, grad), state)
        pass_round(self.comm, pieces, mine)

    def _mine(self) -> int:
        """Return the number of the piece that `reduce_scatter` leaves on this rank."""
        return (self.comm.Get_rank() + 1) % self.comm.Get_size()
