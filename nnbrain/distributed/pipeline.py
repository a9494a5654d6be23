"""Pipeline parallelism: each rank holds some consecutive layers, and microbatches pass from rank to rank."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnbrain import checks
from nnbrain.checks import Floats
from nnbrain.distributed.comm import Communicator
from nnbrain.distributed.pipeline_schedules import Backward, Exchange, Forward, Instruction, Step
from nnbrain.mlp.activations import ACTIVATIONS
from nnbrain.mlp.losses import LOSSES
from nnbrain.mlp.network import MLP, Workspace
from nnbrain.mlp.optimizers import Optimizer


def cut_layers(mlp: MLP, counts: Sequence[int]) -> list[MLP]:
    """Return the stages of a pipeline, networks of ``counts[0]``, ``counts[1]``, … consecutive layers.

    Their θs, one after the other, are the θ of `mlp`. Only the last stage has its loss.

    Raises
    ------
    TypeError, ValueError
        If a count is below 1, or they do not add up to the number of layers.
    """
    layers = len(mlp.sizes) - 1
    counts = [checks.integer(f"counts[{i}]", count) for i, count in enumerate(counts)]
    if sum(counts) != layers:
        raise ValueError(f"counts must add up to the {layers} layers of the network, got {counts}")
    ends = np.cumsum([0, *counts]).tolist()
    stages = [replace(mlp, sizes=mlp.sizes[a : b + 1], loss="mse") for a, b in pairwise(ends)]
    stages[-1] = replace(stages[-1], loss=mlp.loss)
    return stages


class _Kept(NamedTuple):
    """What a stage keeps of a microbatch from forward to backward."""

    workspace: Workspace
    inputs: Floats
    z: Floats  # sums of the stage's last layer; on the last stage ∂L/∂z has taken their place
    h: Floats  # f(z), what went to the next stage


class PipelineWorker:
    """One rank of a pipeline: it has a stage's part of θ, and does what a schedule says.

    Parameters
    ----------
    comm : Communicator
    stages : sequence of MLP
        One for each rank, as `cut_layers` returns them.
    theta : array (stages[rank].size,)
        This rank's part of θ; kept, and moved in place.
    optimizer : Optimizer, optional
        What a `Step` does with `theta` and `grad`; without one it does nothing.

    Attributes
    ----------
    theta, grad : array (stages[rank].size,)
    peak : int
        Most microbatches that the last `run` kept at one time.

    Raises
    ------
    TypeError, ValueError
        If `stages` or `theta` does not fit the communicator.
    """

    def __init__(
        self, comm: Communicator, stages: Sequence[MLP], theta: Floats, optimizer: Optimizer | None = None
    ) -> None:
        if len(stages) != comm.Get_size():
            raise ValueError(f"stages must be one for each of {comm.Get_size()} ranks, got {len(stages)}")
        self._comm, self._rank = comm, comm.Get_rank()
        self._first, self._last = self._rank == 0, self._rank == len(stages) - 1
        self._stage = stages[self._rank]
        self._activation, self._loss = ACTIVATIONS[self._stage.activation], LOSSES[self._stage.loss]
        self.theta, self.grad = checks.theta(theta, self._stage.size), np.zeros_like(theta)
        self.peak = 0
        self._optimizer = optimizer
        self._state = optimizer.init(theta) if optimizer else {}
        self._kept: dict[int, _Kept] = {}
        self._inbox: dict[tuple[int, int], Floats] = {}  # by rank and microbatch
        self._outbox: dict[tuple[int, int], Floats] = {}

    def run(
        self,
        instructions: Iterable[Instruction],
        X: npt.ArrayLike | None,
        y: npt.ArrayLike | None,
        sizes: Sequence[int],
    ) -> float:
        """Execute the instructions for one batch; return its mean loss on the last rank, 0 on the others.

        Parameters
        ----------
        instructions : iterable of Instruction
        X, y : arrays
            The batch. X is read on rank 0 only and y on the last only: elsewhere they may be None.
        sizes : sequence of int
            Rows in each microbatch, the same on all ranks.

        Raises
        ------
        TypeError, ValueError
            If `sizes`, X or y does not fit.
        """
        inputs, targets = self._check(X, y, sizes)
        self.grad[:], self.peak, loss = 0, 0, 0.0
        for instruction in instructions:
            match instruction:
                case Forward(i):
                    self._forward(i, inputs[i] if self._first else self._inbox.pop((self._rank - 1, i)))
                    if self._last:  # each sample counts 1/n of the whole batch: microbatches add up
                        loss += self._loss.value_and_delta(self._kept[i].z, targets[i], 1 / sum(sizes))
                case Backward(i):
                    self._backward(i)
                case Exchange(peer, int(send), None):
                    self._comm.Send(self._outbox.pop((peer, send)), peer, send)
                case Exchange(peer, None, int(receive)):
                    self._comm.Recv(self._buffer(peer, receive, sizes[receive]), peer, receive)
                case Exchange(peer, int(send), int(receive)):  # the tag is the microbatch: none is mistaken
                    buffer = self._buffer(peer, receive, sizes[receive])
                    self._comm.Sendrecv(self._outbox.pop((peer, send)), peer, send, buffer, peer, receive)
                case Step():
                    if self._optimizer:
                        self._optimizer.update(self.theta, self.grad, self._state)
        return loss

    def _forward(self, i: int, inputs: Floats) -> None:
        workspace = Workspace(self._stage, self.theta, len(inputs))
        z = h = workspace.forward(inputs)
        if not self._last:
            h = np.empty_like(z)
            self._activation.forward(z, h)
            self._outbox[self._rank + 1, i] = h
        self._kept[i] = _Kept(workspace, inputs, z, h)
        self.peak = max(self.peak, len(self._kept))

    def _backward(self, i: int) -> None:
        workspace, inputs, z, h = self._kept.pop(i)
        if self._last:
            delta = z
        else:
            delta = self._inbox.pop((self._rank + 1, i))  # ∂L/∂h
            self._activation.backward(delta, z, h)
        delta = workspace.backward(inputs, delta)
        self.grad += workspace.grad
        if not self._first:
            self._outbox[self._rank - 1, i] = delta @ self._stage.layers(self.theta)[0].W.T

    def _buffer(self, peer: int, i: int, rows: int) -> Floats:
        """Return memory for what `peer` sends of microbatch i: inputs from the left, blame from the right."""
        width = self._stage.sizes[0 if peer < self._rank else -1]
        self._inbox[peer, i] = np.empty((rows, width), self.theta.dtype)
        return self._inbox[peer, i]

    def _check(self, X: Any, y: Any, sizes: Sequence[int]) -> tuple[list[Floats], list[npt.NDArray[Any]]]:
        """Return the microbatches of what this rank reads, checked."""
        ends = np.cumsum([checks.integer(f"sizes[{i}]", size) for i, size in enumerate(sizes)])
        if len(ends) == 0:
            raise ValueError("sizes must have at least one microbatch, got none")
        n, inputs, targets = int(ends[-1]), [], []
        if self._first:
            X = checks.features(X, self._stage.sizes[0], self.theta.dtype)
            if len(X) != n:
                raise ValueError(f"sizes must add up to the {len(X)} rows of X, got {n}")
            inputs = np.split(X, ends[:-1])
        if self._last:
            y = self._loss.targets(y, n, self._stage.sizes[-1], self.theta.dtype)
            targets = np.split(y, ends[:-1])
        return inputs, targets
