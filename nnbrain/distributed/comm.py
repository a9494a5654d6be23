"""Ranks that exchange messages: a communicator with mpi4py's interface, here within one process.

A program is a function of a communicator. `run_ranks` runs it on threads, to explain and to test; under
``mpiexec`` the very same function takes ``mpi4py.MPI.COMM_WORLD``.
"""

import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from nnbrain import checks
from nnbrain.distributed.collectives import broadcast, ring_allreduce

Buffer = npt.NDArray[Any]
Key = tuple[int, int, int]  # source, destination, tag
T = TypeVar("T")


class Communicator(Protocol):
    """What a program may ask of its communicator: a part of `mpi4py.MPI.Comm`, names and meaning."""

    def Get_rank(self) -> int:
        """Return which rank this is, 0..size-1."""

    def Get_size(self) -> int:
        """Return how many ranks there are."""

    def Send(self, buf: Buffer, dest: int, tag: int = 0) -> None:
        """Send the array to rank `dest`. MPI may wait for the receiver, and ranks in one process do."""

    def Recv(self, buf: Buffer, source: int, tag: int = 0) -> None:
        """Wait for an array from rank `source` and put it into `buf`."""

    def Sendrecv(
        self,
        sendbuf: Buffer,
        dest: int,
        sendtag: int = 0,
        recvbuf: Buffer | None = None,
        source: int = 0,
        recvtag: int = 0,
    ) -> None:
        """Send and receive at once, as neighbours on a ring must: neither waits for the other."""

    def Barrier(self) -> None:
        """Wait until every rank has come here."""

    def Bcast(self, buf: Buffer, root: int = 0) -> None:
        """Put what rank `root` has in `buf` into every rank's `buf`."""

    def Allreduce(self, sendbuf: Buffer | None, recvbuf: Buffer) -> None:
        """Put the sum of all ranks' arrays into every `recvbuf`; None as `sendbuf` means in place."""


class DeadlockError(RuntimeError):
    """Every rank that still runs waits for one that will neither send nor receive."""


class _Stopped(BaseException):
    """Raised in a waiting rank when another has failed; `run_ranks` raises that other's error."""


@dataclass
class _Message:
    """An array that is still the sender's: who receives it copies it, and then the sender may go on."""

    array: Buffer
    taken: bool = False


@dataclass(frozen=True)
class _Wait:
    """What a rank waits for, in words, and whether it has come."""

    what: str
    ready: Callable[[], bool]


class _World:
    """What the ranks of one run share: mailboxes, and who waits for what."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.changed = threading.Condition()
        self.mail: dict[Key, deque[_Message]] = defaultdict(deque)
        self.waiting: dict[int, _Wait] = {}
        self.running = size
        self.error: tuple[int, BaseException] | None = None

    def fail(self, rank: int, error: BaseException) -> None:
        with self.changed:
            self.error = self.error or (rank, error)
            self.changed.notify_all()

    def leave(self) -> None:
        with self.changed:
            self.running -= 1
            self.changed.notify_all()  # who waits for this rank now waits for ever: let it find out

    def wait(self, rank: int, what: str, ready: Callable[[], bool]) -> None:
        """Let `rank` wait, `changed` being held, until `ready`, unless all wait and so none ever will be."""
        self.waiting[rank] = _Wait(what, ready)
        try:
            while not ready():
                if self.error:
                    raise _Stopped
                if len(self.waiting) == self.running and not any(w.ready() for w in self.waiting.values()):
                    every = (f"rank {rank} waits for {w.what}" for rank, w in sorted(self.waiting.items()))
                    raise DeadlockError("deadlock: " + ", ".join(every))
                self.changed.wait()
        finally:
            del self.waiting[rank]


class _Collectives:
    """Collective operations made of the point-to-point messages of the communicator that inherits them."""

    def Barrier(self: Communicator) -> None:
        self.Allreduce(None, np.zeros(self.Get_size()))

    def Bcast(self: Communicator, buf: Buffer, root: int = 0) -> None:
        broadcast(self, buf, root)

    def Allreduce(self: Communicator, sendbuf: Buffer | None, recvbuf: Buffer) -> None:
        if sendbuf is not None:
            recvbuf[...] = sendbuf
        ring_allreduce(self, recvbuf)


class LocalCommunicator(_Collectives):
    """One rank's end of an in-process world; made by `run_ranks`."""

    def __init__(self, world: _World, rank: int) -> None:
        self._world, self._rank = world, rank

    def Get_rank(self) -> int:
        return self._rank

    def Get_size(self) -> int:
        return self._world.size

    def Send(self, buf: Buffer, dest: int, tag: int = 0) -> None:
        self._until_taken(self._post(buf, dest, tag), dest, tag)

    def Recv(self, buf: Buffer, source: int, tag: int = 0) -> None:
        self._check_peer("source", source)
        world = self._world
        with world.changed:
            mail = world.mail[source, self._rank, tag]
            world.wait(self._rank, f"rank {source} to send (tag {tag})", lambda: bool(mail))
            message = mail.popleft()
        array = message.array
        fits = array.shape == buf.shape and array.dtype == buf.dtype
        if fits:
            buf[...] = array
        with world.changed:
            message.taken = True
            world.changed.notify_all()
        if not fits:
            raise ValueError(
                f"rank {self._rank} expected {buf.dtype}{list(buf.shape)} from rank {source}, "
                f"got {array.dtype}{list(array.shape)}"
            )

    def Sendrecv(
        self,
        sendbuf: Buffer,
        dest: int,
        sendtag: int = 0,
        recvbuf: Buffer | None = None,
        source: int = 0,
        recvtag: int = 0,
    ) -> None:
        if recvbuf is None:
            raise TypeError("recvbuf must be an array, got None")
        message = self._post(sendbuf, dest, sendtag)
        self.Recv(recvbuf, source, recvtag)
        self._until_taken(message, dest, sendtag)

    def _post(self, buf: Buffer, dest: int, tag: int) -> _Message:
        self._check_peer("dest", dest)
        message = _Message(buf)
        with self._world.changed:
            if self._world.error:
                raise _Stopped
            self._world.mail[self._rank, dest, tag].append(message)
            self._world.changed.notify_all()
        return message

    def _until_taken(self, message: _Message, dest: int, tag: int) -> None:
        world = self._world
        with world.changed:
            world.wait(self._rank, f"rank {dest} to receive (tag {tag})", lambda: message.taken)

    def _check_peer(self, name: str, rank: int) -> None:
        if not 0 <= rank < self._world.size:
            raise ValueError(f"{name} must be a rank in 0..{self._world.size - 1}, got {rank}")


class Metered(_Collectives):
    """A communicator, local or MPI's, that counts what its rank sends.

    Its collectives are this package's own, built of point-to-point messages, so that none escapes the count.

    Attributes
    ----------
    messages_sent, bytes_sent : int
        By this rank, since it was made.
    """

    def __init__(self, comm: Communicator) -> None:
        self._comm = comm
        self.messages_sent = 0
        self.bytes_sent = 0

    def Get_rank(self) -> int:
        return self._comm.Get_rank()

    def Get_size(self) -> int:
        return self._comm.Get_size()

    def Send(self, buf: Buffer, dest: int, tag: int = 0) -> None:
        self._count(buf)
        self._comm.Send(buf, dest, tag)

    def Recv(self, buf: Buffer, source: int, tag: int = 0) -> None:
        self._comm.Recv(buf, source, tag)

    def Sendrecv(
        self,
        sendbuf: Buffer,
        dest: int,
        sendtag: int = 0,
        recvbuf: Buffer | None = None,
        source: int = 0,
        recvtag: int = 0,
    ) -> None:
        self._count(sendbuf)
        self._comm.Sendrecv(sendbuf, dest, sendtag, recvbuf, source, recvtag)

    def _count(self, buf: Buffer) -> None:
        self.messages_sent += 1
        self.bytes_sent += buf.nbytes


def run_ranks(n: int, program: Callable[..., T], /, *args: Any, **options: Any) -> list[T]:
    """Run ``program(comm, *args, **options)`` on `n` ranks at once; return what each returned, in order.

    Raises
    ------
    Exception
        The first that a rank raised, with a note that names the rank; the other ranks are stopped.
    DeadlockError
        If all ranks that still run wait for each other; the message says who waits for whom.

    Notes
    -----
    The ranks are threads, and arrays in `args` are shared: a program must not change them. BLAS is held
    to one thread meanwhile, since the ranks already share the cores.
    """
    world = _World(checks.integer("n", n))
    results: list[T | None] = [None] * n

    def run(rank: int) -> None:
        try:
            results[rank] = program(LocalCommunicator(world, rank), *args, **options)
        except BaseException as error:
            world.fail(rank, error)
        finally:
            world.leave()

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(n)]
    with threadpool_limits(limits=1, user_api="blas"):
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt as error:
            world.fail(-1, error)
            raise
    if world.error:
        rank, first = world.error
        first.add_note(f"raised on rank {rank} of {n}")
        raise first
    return results  # type: ignore[return-value]  # every rank has returned
