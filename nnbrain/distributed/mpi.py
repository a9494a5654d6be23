"""Where MPI's launcher is, and how it wants to be called here. The launching is MPI's own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from nnbrain import checks


def mpiexec(n: int) -> list[str]:
    """Return the first words of a command that starts what follows them on `n` processes.

    The launcher beside the running Python is preferred, as a wheel installs it, to one on the PATH.

    Raises
    ------
    FileNotFoundError
        If mpi4py or a launcher is missing; the message says what to install.
    """
    checks.integer("n", n)
    # Not here, and without starting MPI, of which a file of shared memory would stay behind.
    probe = [sys.executable, "-c", "import mpi4py; mpi4py.rc.initialize = False; import mpi4py.MPI"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        raise FileNotFoundError("mpi4py cannot be loaded; to install it: pip install 'nnbrain[mpi]'")
    here = Path(sys.executable).parent
    launcher = shutil.which("mpiexec", path=f"{here}{os.pathsep}{os.environ.get('PATH', '')}")
    if launcher is None:
        raise FileNotFoundError("mpiexec was not found; to install it: pip install 'nnbrain[mpi]'")
    command = [launcher, "-n", str(n)]
    version = subprocess.run([launcher, "--version"], capture_output=True, text=True, check=False).stdout
    if "Open MPI" in version:
        command.append("--oversubscribe")  # more ranks than cores is slow, but right
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--allow-run-as-root")
    return command
