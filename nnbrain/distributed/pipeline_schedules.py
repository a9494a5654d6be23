"""Schedules of a pipeline: in which order a rank computes, sends and receives.

A schedule yields instructions. `replay` gives them virtual clocks, and `nnbrain.distributed.pipeline`
executes them: what is drawn as a timeline is what runs.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nnbrain import checks
from nnbrain.distributed.comm import DeadlockError


@dataclass(frozen=True)
class Forward:
    """Take a microbatch through this rank's layers, and keep what going back will need."""

    microbatch: int


@dataclass(frozen=True)
class Backward:
    """Take the blame of a microbatch back through this rank's layers, and add up the gradient."""

    microbatch: int


@dataclass(frozen=True)
class Exchange:
    """Send to the rank `peer`, a neighbour, receive from it, or both at once: what is None is left out.

    `send` and `receive` are numbers of microbatches. What is sent depends on the direction: to the right,
    rank + 1, a stage's outputs, and to the left ∂L/∂inputs. Whoever sends waits for the receiver.
    """

    peer: int
    send: int | None = None
    receive: int | None = None

    def __post_init__(self) -> None:
        if self.send is None and self.receive is None:
            raise ValueError("send or receive must be a microbatch, got None for both")


@dataclass(frozen=True)
class Step:
    """Move θ against the gradient of the whole batch."""


Instruction = Forward | Backward | Exchange | Step


def gpipe(p: int, m: int, rank: int) -> Iterator[Instruction]:
    """Yield what `rank` of `p` does with a batch of `m` microbatches: all forward, then all back.

    The ranks keep all m microbatches at the turning point.

    Notes
    -----
    Huang et al. (2019), "GPipe", without its recomputation of what lies within a stage.
    """
    left, right = _neighbours(p, m, rank)
    for i in range(m):
        if left is not None:
            yield Exchange(left, receive=i)
        yield Forward(i)
        if right is not None:
            yield Exchange(right, send=i)
    for i in reversed(range(m)):
        if right is not None:
            yield Exchange(right, receive=i)
        yield Backward(i)
        if left is not None:
            yield Exchange(left, send=i)
    yield Step()


def one_f_one_b(p: int, m: int, rank: int) -> Iterator[Instruction]:
    """Yield what `rank` of `p` does with a batch of `m` microbatches: one forward, one back, in turn.

    Rank r goes forward p - 1 - r times to fill the pipeline; from then on each forward is followed by a
    backward, so it never keeps more than p - r microbatches. Between the two, outputs that go right and
    blame that comes left cross: two neighbours that both sent first would wait for each other for ever.

    Notes
    -----
    Narayanan et al. (2021), "Memory-efficient pipeline-parallel DNN training": PipeDream-Flush.
    """
    left, right = _neighbours(p, m, rank)
    ahead = min(p - 1 - rank, m)
    for i in range(ahead):
        if left is not None:
            yield Exchange(left, receive=i)
        yield Forward(i)
        yield Exchange(rank + 1, send=i)
    if left is not None and ahead < m:
        yield Exchange(left, receive=ahead)
    for i in range(m - ahead):
        yield Forward(ahead + i)
        if right is not None:
            yield Exchange(right, send=ahead + i, receive=i)
        yield Backward(i)
        if left is not None:
            following = ahead + i + 1
            yield Exchange(left, send=i, receive=following if following < m else None)
    for i in range(m - ahead, m):
        yield Exchange(rank + 1, receive=i)
        yield Backward(i)
        if left is not None:
            yield Exchange(left, send=i)
    yield Step()


def _neighbours(p: int, m: int, rank: int) -> tuple[int | None, int | None]:
    checks.integer("p", p)
    checks.integer("m", m)
    if checks.integer("rank", rank, minimum=0) >= p:
        raise ValueError(f"rank must be in 0..{p - 1}, got {rank}")
    return (rank - 1 if rank else None), (rank + 1 if rank < p - 1 else None)


_Side = tuple[int, int, int, str]  # of a message: source, destination, microbatch, "send" or "receive"


class Span(NamedTuple):
    """An instruction that a rank was busy with, and its start and end in virtual time."""

    instruction: Instruction
    start: float
    end: float


def twice_as_long_back(rank: int, instruction: Forward | Backward) -> float:
    """Return 1 for a forward, 2 for a backward pass, which takes two matrix products to a forward's one."""
    return 1.0 if isinstance(instruction, Forward) else 2.0


def replay(
    schedules: Sequence[Iterable[Instruction]],
    duration: Callable[[int, Forward | Backward], float] = twice_as_long_back,
    message: float = 0.0,
) -> list[list[Span]]:
    """Return what each rank does when, each rank having a clock of its own.

    Parameters
    ----------
    schedules : sequence of iterables of Instruction
        One for each rank.
    duration : callable
        Takes a rank and its `Forward` or `Backward`, returns how long that takes.
    message : float
        How long an `Exchange` takes from the moment when both sides are there. A step takes no time.

    Raises
    ------
    DeadlockError
        If ranks wait for each other; the message says who waits for whom.
    """
    queues = [list(schedule) for schedule in schedules]
    spans: list[list[Span]] = [[] for _ in queues]
    clock, done = [0.0] * len(queues), [0] * len(queues)
    ready: dict[tuple[_Side, int], float] = {}  # a side and which time it comes: since when
    passed: Counter[_Side] = Counter()
    moved = True
    while moved:
        moved = False
        for rank, queue in enumerate(queues):
            while done[rank] < len(queue):
                instruction, start = queue[done[rank]], clock[rank]
                if isinstance(instruction, Exchange):
                    ours, theirs = _sides(rank, instruction)
                    nth = [passed[side] for side in ours]  # the next batch has the same microbatches
                    for side in zip(ours, nth, strict=True):
                        ready.setdefault(side, start)
                    sides = [*zip(ours, nth, strict=True), *zip(theirs, nth, strict=True)]
                    if not all(side in ready for side in sides):
                        break
                    start = max(ready[side] for side in sides)
                    passed.update(ours)
                    clock[rank] = start + message
                elif not isinstance(instruction, Step):
                    clock[rank] += duration(rank, instruction)
                spans[rank].append(Span(instruction, start, clock[rank]))
                done[rank] += 1
                moved = True
    stuck = [(rank, queue[done[rank]]) for rank, queue in enumerate(queues) if done[rank] < len(queue)]
    if stuck:
        waits = [f"rank {r} waits for rank {e.peer}" for r, e in stuck if isinstance(e, Exchange)]
        raise DeadlockError("deadlock: " + ", ".join(waits))
    return spans


def _sides(rank: int, exchange: Exchange) -> tuple[list[_Side], list[_Side]]:
    """Return what an exchange offers or asks for, and what the peer must ask for or offer."""
    ours, theirs = [], []
    if exchange.send is not None:
        ours.append((rank, exchange.peer, exchange.send, "send"))
        theirs.append((rank, exchange.peer, exchange.send, "receive"))
    if exchange.receive is not None:
        ours.append((exchange.peer, rank, exchange.receive, "receive"))
        theirs.append((exchange.peer, rank, exchange.receive, "send"))
    return ours, theirs


def bubble(spans: Sequence[Sequence[Span]]) -> float:
    """Return the share of the ranks' time, from 0 to the end of the last, in which they do not compute."""
    end = max(span.end for row in spans for span in row)
    busy = sum(s.end - s.start for row in spans for s in row if isinstance(s.instruction, Forward | Backward))
    return 1 - busy / (len(spans) * end)
