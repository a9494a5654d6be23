"""Saying less: what clients send, compressed as Part III compresses gradients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnbrain import checks
from nnbrain.distributed.compression import Compressor, add_residual
from nnbrain.federated.algorithms import State, Update, Wrapper
from nnbrain.federated.clients import Client

PAYLOAD, RESIDUAL = "compressed.payload", "compressed.residual"  # what is sent; what the client keeps
# In the place of the vector, which is not sent: empty, and of a type that one cannot compute with, so that
# whatever would alter a vector on its way gets an error.
NOT_SENT = np.empty(0, "V1")


@dataclass(frozen=True)
class Compressed(Wrapper):
    """An algorithm whose clients send a compressor's bytes in the place of their vectors.

    A client adds to its vector what it still owes from its last rounds, sends what the compressor makes of
    this, and keeps what that left out: whatever it has sent, and what it owes, are together the sum of its
    vectors. The server decodes the bytes and goes on as always.

    Parameters
    ----------
    algorithm : Algorithm
        Any. What its clients send besides the vector goes as it is. Anything that alters a vector on its way,
        `Altered` for one, goes inside.
    compressor : Compressor
        `TopK`, `Sign` or `QSGD` of `nnbrain.distributed`.
    feedback : bool
        Whether clients remember what they owe, or else forget it.

    Raises
    ------
    TypeError, ValueError
        If `feedback` is not a bool; in a round, if a client sends a payload of another length.
    FloatingPointError
        In a round, if a client's vector is not finite.

    Notes
    -----
    Error feedback: Seide et al. (2014); Karimireddy, Rebjock, Stich & Jaggi (2019).
    """

    compressor: Compressor
    feedback: bool = True

    def __post_init__(self) -> None:
        checks.flag("feedback", self.feedback)

    def client_update(self, state: State, client: Client, rng: np.random.Generator) -> Update:
        """Return the algorithm's update with a payload for its vector, and the residual in its memory."""
        update = self.algorithm.client_update(state, client, rng)
        vector, memory = update.vector.copy(), dict(update.memory)
        add_residual(vector, client.memory.get(RESIDUAL))
        payload = self.compressor.encode(vector, rng)
        if self.feedback:
            memory[RESIDUAL] = vector - self.compressor.decode(payload, vector.size, vector.dtype)
        return update._replace(vector=NOT_SENT, more={**update.more, PAYLOAD: payload}, memory=memory)

    def server_update(self, state: State, updates: Sequence[Update]) -> State:
        """Return the state after the algorithm got the decoded vectors."""
        theta = state["theta"]
        length = self.compressor.encode(np.zeros_like(theta), np.random.default_rng(0)).shape

        def decoded(update: Update) -> Update:
            vector = self.compressor.decode(update.sent(PAYLOAD, length), theta.size, theta.dtype)
            more = {name: array for name, array in update.more.items() if name != PAYLOAD}
            return update._replace(vector=vector, more=more)

        return self.algorithm.server_update(state, [decoded(update) for update in updates])
