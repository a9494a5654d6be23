"""Run all benchmarks, or those named, each in an environment that is made first if need be.

python benchmarks/run.py [mlp] [federated] [distributed] [equality] [three_networks] [brain]
python benchmarks/run.py fedavg_table [cell …]    one of the experiments that chapters draw, by name only
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
CONSTRAINTS = ROOT / "constraints.txt"
# Each with the requirements it has. Brian2 needs an older NumPy than the others, so it is kept apart.
BENCHMARKS = {
    "mlp": "requirements.txt",
    "federated": "requirements.txt",
    "distributed": "requirements.txt",
    "equality": "requirements.txt",
    "three_networks": "requirements.txt",
    "brain": "requirements-brain.txt",
}

# What chapters draw from their records. What follows the name is the script's.
EXPERIMENTS = ("fedavg_table", "fedavg_starts", "unequal", "adversaries")


def make_environment(requirements):
    """Install nnbrain and each library that will install; return the environment's Python.

    requirements.txt goes to .venv-bench, requirements-brain.txt to .venv-bench-brain, and so on.
    """
    folder = ROOT / Path(requirements).stem.replace("requirements", ".venv-bench")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / ".installed"
    lines = (HERE / requirements).read_text(encoding="utf-8")
    wanted = CONSTRAINTS.read_text(encoding="utf-8") + lines
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"Installing into {folder.name}: up to 3 GB, some minutes, once", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if requirements == "requirements.txt":
        subprocess.run([*pip, "-c", CONSTRAINTS, "-e", ROOT], check=True)
        # What nnbrain runs on stays as it is; versions of what is not here must not keep the others out.
        freeze = [python, "-m", "pip", "freeze", "--exclude-editable"]
        held = subprocess.run(freeze, check=True, capture_output=True, text=True).stdout
        (folder / "held.txt").write_text(held, encoding="utf-8")
        wishes = [
            ["-c", folder / "held.txt", line] for line in lines.splitlines() if not line.startswith("#")
        ]
    else:
        subprocess.run([*pip, "-e", ROOT], check=True)
        wishes = [["-r", HERE / requirements]]  # all at once: the versions of one decide about the others'
    for wish in wishes:
        if subprocess.run([*pip, *wish]).returncode:
            print(f"{wish[-1]} does not install here; the benchmarks go on without it", flush=True)
    stamp.write_text(wanted, encoding="utf-8")  # last: an interrupted installation is done again
    return python


def main():
    if sys.argv[1:] and sys.argv[1] in EXPERIMENTS:
        python = make_environment("requirements.txt")
        sys.exit(subprocess.run([python, HERE / f"{sys.argv[1]}.py", *sys.argv[2:]]).returncode)
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        there = ", ".join([*BENCHMARKS, *EXPERIMENTS])
        sys.exit(f"There is no benchmark {', '.join(sorted(unknown))}; there are {there}")
    failed = []
    for name in names:
        python = make_environment(BENCHMARKS[name])
        print(f"\n{name}", flush=True)
        if subprocess.run([python, HERE / f"{name}.py"]).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
