"""Worker processes that do not come to work, that die, and errors on their way to the caller."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import sleep

import numpy as np
import pytest

from nnbrain.federated import FedSGD, simulate, uniform
from nnbrain.mlp import MLP

mlp = MLP((64, 16, 10))
theta = mlp.init(0, np.float64)

# Data and state larger than the buffer of a pipe, 64 kB: whoever fills one that nobody reads waits for ever.
PROGRAM = """
import os, signal
from nnbrain.data import load_digits
from nnbrain.federated import FedSGD, make_clients, partition_iid, simulate
from nnbrain.mlp import MLP

mlp = MLP((64, 400, 10))
class Mine(FedSGD):
    pass

def main(algorithm):
    X, y, *_ = load_digits()
    clients = make_clients(X, y, partition_iid(len(X), 4, 0))
    simulate(algorithm, clients, mlp.init(0), rounds=1, workers=2)
"""
KILL = "if __name__ == '__mp_main__':\n    os.kill(os.getpid(), signal.SIGKILL)\n"
PROGRAMS = {
    "a class of a program without a file": (
        "main(Mine(mlp))",
        ["AttributeError: Can't get attribute 'Mine'", "are their classes in a module?"],
    ),
    "no guard": (
        "main(FedSGD(mlp))",
        ["died twice in round 1", "clients not finished: [0, 1, 2, 3]", '__name__ == "__main__"'],
    ),
    "killed at the start": (
        f"{KILL}if __name__ == '__main__':\n    main(FedSGD(mlp))",
        ["died twice in round 1", "clients not finished: [0, 1, 2, 3]"],
    ),
}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("what", PROGRAMS)
def test_a_worker_that_cannot_start_is_an_error_and_nothing_hangs(what, tmp_path):
    end, expected = PROGRAMS[what]
    program, file = PROGRAM + end, tmp_path / "program.py"
    file.write_text(program)
    command = [sys.executable, *(["-c", program] if "without a file" in what else [str(file)])]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 1
    assert [text for text in expected if text not in done.stderr] == []
    assert list(tmp_path.iterdir()) == [file]  # what was written for the workers is gone


@dataclass(frozen=True)
class Dying(FedSGD):
    """In the round that starts from θ as it was at first, client 1's process is killed, `times` times."""

    folder: str = ""
    times: int = 1

    def client_update(self, state, client, rng):
        if client.id == 1:
            deaths = len(list(Path(self.folder).iterdir()))
            if deaths < self.times:
                (Path(self.folder) / str(deaths)).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().client_update(state, client, rng)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_worker_that_is_killed_costs_a_repetition_and_no_other_process(unequal, tmp_path):
    expected, _ = simulate(FedSGD(mlp), unequal, theta, rounds=2)
    others = []

    def start_another(*arguments):
        others.append(get_context("spawn").Process(target=sleep, args=(600,), daemon=True))
        others[-1].start()
        return uniform(*arguments)

    algorithm = Dying(mlp, folder=str(tmp_path))
    got, _ = simulate(algorithm, unequal, theta, rounds=2, workers=2, select=start_another)
    np.testing.assert_array_equal(got, expected)
    assert [process.is_alive() for process in others] == [True, True]
    for process in others:
        process.kill()
        process.join()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_client_whose_process_keeps_dying_is_named(unequal, tmp_path):
    with pytest.raises(RuntimeError, match=r"died twice in round 1; clients not finished: \[.*1"):
        simulate(Dying(mlp, folder=str(tmp_path), times=9), unequal, theta, rounds=2, workers=2)


class MisfitError(Exception):
    """Pickled, it is one argument, of which it cannot be made again."""

    def __init__(self, found, wanted):
        super().__init__(f"{found} is no {wanted}")


@dataclass(frozen=True)
class Failing(FedSGD):
    def client_update(self, state, client, rng):
        if client.id == 2:
            raise MisfitError("a pear", "apple")
        return super().client_update(state, client, rng)


def test_an_error_that_does_not_pickle_is_told_with_client_and_round(unequal):
    with pytest.raises(MisfitError) as here:
        simulate(Failing(mlp), unequal, theta, rounds=1)
    assert here.value.__notes__ == ["raised by client 2 in round 1"]
    with pytest.raises(RuntimeError, match="MisfitError: a pear is no apple; raised by client 2 in round 1"):
        simulate(Failing(mlp), unequal, theta, rounds=1, workers=2)
