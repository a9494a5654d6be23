"""Tensor parallelism: every layer is cut, and each rank holds a thinner network.

Layers are cut in pairs. The first of a pair is cut by columns of W, so that a rank has some of its units;
the second by rows, so that a rank takes in those same units and no others. What a rank computes is then a
part of a sum, and one all-reduce a pair makes it whole; going back, one more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.distributed.collectives import ring_allreduce
from nnbrain.distributed.comm import Communicator
from nnbrain.mlp.activations import ACTIVATIONS
from nnbrain.mlp.losses import LOSSES
from nnbrain.mlp.network import MLP, Workspace


@dataclass(frozen=True)
class TensorCut:
    """Which units of which layers each rank has.

    Counted from the output back, every second layer of units is whole on all ranks (the outputs, the
    second-last hidden layer, …) and every other is shared out. With an odd number of weight matrices the
    inputs are among those shared out: a rank then reads only its own columns of X.

    Parameters
    ----------
    mlp : MLP
    ranks : int
        How many.
    shares : sequence of float, optional
        How much of a layer each rank gets, relative to the others, all above 0; by default alike. Units
        are whole, so the shares are rounded.

    Raises
    ------
    TypeError, ValueError
        If `shares` does not fit `ranks`, or a rank is left without a unit in some layer.

    Examples
    --------
    >>> cut = TensorCut(MLP((64, 8, 10)), ranks=3)
    >>> [cut.thin(rank).sizes for rank in range(3)]
    [(64, 3, 10), (64, 2, 10), (64, 3, 10)]
    """

    mlp: MLP
    ranks: int
    shares: Sequence[float] | None = None

    def __post_init__(self) -> None:
        checks.integer("ranks", self.ranks)
        shares = [1.0] * self.ranks if self.shares is None else self.shares
        object.__setattr__(
            self, "shares", tuple(checks.number(f"shares[{r}]", s, above=0) for r, s in enumerate(shares))
        )
        if len(shares) != self.ranks:
            raise ValueError(f"shares must have one entry for each of {self.ranks} ranks, got {len(shares)}")
        for rank in range(self.ranks):
            for level, units in enumerate(self.units(rank)):
                if units.start == units.stop:
                    raise ValueError(
                        f"ranks and shares must leave every rank a unit in each layer that is cut; "
                        f"rank {rank} gets none of the {self.mlp.sizes[level]} in layer {level}"
                    )

    def units(self, rank: int) -> list[slice]:
        """Return the slice of each layer's units, the inputs first, that `rank` has: all, if it is whole."""
        assert self.shares is not None
        last = len(self.mlp.sizes) - 1
        ends = np.cumsum([0, *self.shares]) / np.sum(self.shares)
        found = []
        for level, d in enumerate(self.mlp.sizes):
            start, stop = np.rint(ends[rank : rank + 2] * d).astype(int).tolist()
            found.append(slice(0, d) if (last - level) % 2 == 0 else slice(start, stop))
        return found

    def thin(self, rank: int) -> MLP:
        """Return the network whose θ is the part of `rank`."""
        return replace(self.mlp, sizes=tuple(units.stop - units.start for units in self.units(rank)))

    def split(self, theta: Floats) -> list[Floats]:
        """Return each rank's part of θ, a vector of its own: the θ of its thin network.

        The biases of a layer cut by rows are added to a sum that all ranks share, so one rank must have
        them: rank 0. The others have zeros there, and keep them.
        """
        checks.theta(theta, self.mlp.size)
        parts = []
        for rank in range(self.ranks):
            thin, units = self.thin(rank), self.units(rank)
            part = np.zeros(thin.size, theta.dtype)
            cuts = zip(self.mlp.layers(theta), thin.layers(part), pairwise(units), strict=True)
            for level, (whole, mine, (rows, columns)) in enumerate(cuts, start=1):
                mine.W[:] = whole.W[rows, columns]
                if rank == 0 or not self.by_rows(level):
                    mine.b[:] = whole.b[columns]
            parts.append(part)
        return parts

    def join(self, parts: Sequence[Floats]) -> Floats:
        """Return the θ (or gradient) that `parts`, one of each rank in order, are the parts of.

        Raises
        ------
        ValueError
            If there is not one part a rank, or a part is not of its rank's length.
        """
        if len(parts) != self.ranks:
            raise ValueError(f"parts must have one vector for each of {self.ranks} ranks, got {len(parts)}")
        theta = np.zeros(self.mlp.size, parts[0].dtype)
        for rank, part in enumerate(parts):
            thin, units = self.thin(rank), self.units(rank)
            if part.shape != (thin.size,):
                raise ValueError(f"parts[{rank}] must have shape ({thin.size},), got {part.shape}")
            cuts = zip(self.mlp.layers(theta), thin.layers(part), pairwise(units), strict=True)
            for whole, mine, (rows, columns) in cuts:
                whole.W[rows, columns] = mine.W
                whole.b[columns] += mine.b  # of a layer cut by rows, all but rank 0's are zero
        return theta

    def by_rows(self, level: int) -> bool:
        """Return whether the weights into layer `level`, 1 to L, are cut by rows; else by columns."""
        return (len(self.mlp.sizes) - 1 - level) % 2 == 0


class TensorParallel:
    """One rank's part of a network that all ranks compute together, and the memory for it.

    It is used as a `nnbrain.mlp.network.Workspace` is: `loss_and_grad` leaves the gradient in `grad`, and
    an optimiser moves `theta`. The first needs all ranks; for the second, each rank moves its own part.

    Parameters
    ----------
    comm : Communicator
        All ranks make theirs, and call its methods, together and with the same X and y.
    cut : TensorCut
        For as many ranks as `comm` has.
    theta : array
        This rank's part, ``cut.split(theta)[rank]``; kept, not copied.
    batch_size : int
        Most rows that a batch will have.
    allreduce : callable
        Sums a vector over the ranks, in place, with the same bits on all: ``allreduce(comm, vector)``.

    Attributes
    ----------
    theta, grad : array
        This rank's parts of θ and of the gradient that the last `loss_and_grad` left.

    Raises
    ------
    TypeError, ValueError
        If `theta` or `cut` does not fit the communicator.

    Notes
    -----
    Shoeybi et al. (2019), "Megatron-LM": there the sum after a pair is the operator g, that of the way
    back f; and the row-cut layer's biases, here rank 0's, are copied to all ranks and added after the sum.
    """

    def __init__(
        self,
        comm: Communicator,
        cut: TensorCut,
        theta: Floats,
        batch_size: int,
        allreduce: Callable[[Communicator, Floats], None] = ring_allreduce,
    ) -> None:
        if cut.ranks != comm.Get_size():
            raise ValueError(f"cut must be for the {comm.Get_size()} ranks of comm, got one for {cut.ranks}")
        rank = comm.Get_rank()
        thin = cut.thin(rank)
        self.theta, self.grad = checks.theta(theta, thin.size), np.zeros_like(theta)
        self._batch_size = checks.integer("batch_size", batch_size)
        self._comm, self._allreduce = comm, allreduce
        self._mlp, self._columns = cut.mlp, cut.units(rank)[0]
        self._activation, self._loss = ACTIVATIONS[cut.mlp.activation], LOSSES[cut.mlp.loss]
        # A block is a pair of layers (the first of an odd number is alone): a small network of its own.
        last = len(thin.sizes) - 1
        self._blocks = []
        rest = self.theta
        for level in range(2 - last % 2, last + 1, 2):
            block = replace(thin, sizes=thin.sizes[max(level - 2, 0) : level + 1], loss="mse")
            self._blocks.append((block, Workspace(block, rest[: block.size], batch_size)))
            rest = rest[block.size :]
        self._others_biases = [
            b for level, (_, b) in enumerate(thin.layers(self.grad), start=1) if rank and cut.by_rows(level)
        ]
        self._kept: list[tuple[Floats, Floats]] = []

    def forward(self, X: npt.ArrayLike) -> Floats:
        """Return the logits (n, k) of the rows of X (n, d_0), the same bits on all ranks.

        Raises
        ------
        TypeError, ValueError
            If X does not fit the network, or has more rows than `batch_size`.
        """
        inputs = self._our_columns(X)
        self._kept = []
        for i, (_, workspace) in enumerate(self._blocks):
            if i:
                _, z = self._kept[i - 1]
                inputs = np.empty_like(z)
                self._activation.forward(z, inputs)
            # our part of a sum over all ranks' units, then the whole
            z = workspace.forward(inputs)
            self._allreduce(self._comm, z.reshape(-1))
            self._kept.append((inputs, z))
        return z

    def backward(self, delta: Floats) -> None:
        """Leave this rank's part of the gradient in `grad`, given ∂L/∂z of the last `forward`'s logits."""
        for i in reversed(range(len(self._blocks))):
            block, workspace = self._blocks[i]
            inputs, _ = self._kept[i]
            # from delta of the block's last layer to that of its first
            delta = workspace.backward(inputs, delta)
            if i:
                # our part of the blame on the inputs, then the whole
                delta = delta @ block.layers(workspace.theta)[0].W.T
                self._allreduce(self._comm, delta.reshape(-1))
                _, z = self._kept[i - 1]
                self._activation.backward(delta, z, inputs)
        np.concatenate([each.grad for _, each in self._blocks], out=self.grad)
        for b in self._others_biases:
            b[:] = 0

    def loss_and_grad(self, X: npt.ArrayLike, y: npt.ArrayLike) -> float:
        """Return the mean loss over the rows of X, and leave this rank's part of the gradient in `grad`.

        Raises
        ------
        TypeError, ValueError
            As `forward`, and if y does not fit the loss.
        """
        delta = self.forward(X)
        n, k = delta.shape
        targets = self._loss.targets(y, n, k, self.theta.dtype)
        loss = self._loss.value_and_delta(delta, targets, 1 / n)
        self.backward(delta)
        return loss

    def _our_columns(self, X: npt.ArrayLike) -> Floats:
        """Return those columns of X that this rank's units take in, checked."""
        X = checks.features(X, self._mlp.sizes[0], self.theta.dtype)
        if len(X) > self._batch_size:
            raise ValueError(f"X must have at most batch_size = {self._batch_size} rows, got {len(X)}")
        return np.ascontiguousarray(X[:, self._columns])
