"""A federation of Flower as processes on this machine, which trust nobody without a certificate or a key.

Needs the extra ``flower``, and a system with process groups (not Windows).
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any

from nnbrain.federated.certificates import make_authority, make_certificate, make_node_key


class Deployment:
    """A SuperLink and SuperNodes as processes on this machine, until the ``with`` block ends.

    They live in a temporary folder, which has their certificates, keys, logs and Flower's own state. In the
    end, on an error too, every process is killed and the folder deleted. (If this process itself is killed,
    nobody does so.)

    Parameters
    ----------
    program : str
        The source of a module that defines ``client``, a ClientApp, and ``server``, a ServerApp.

    Attributes
    ----------
    folder : Path
        The temporary folder, inside the ``with`` block.
    """

    def __init__(self, program: str) -> None:
        self.program = program
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._registered: dict[str, str] = {}

    def __enter__(self) -> "Deployment":
        self.folder = Path(mkdtemp(prefix="nnbrain-federation-"))
        try:
            self._furnish()
            self.start(
                "superlink",
                *["flower-superlink", "--host", "127.0.0.1", "--port", str(self._port)],
                *["--ssl-ca-certfile", str(self.folder / "authority.crt")],
                *["--ssl-certfile", str(self.folder / "server.crt")],
                *["--ssl-keyfile", str(self.folder / "server.key")],
                *["--enable-supernode-auth", "--disable-runtime-dependency-installation"],
            )
            self._wait_for_port()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name in list(self._processes):
            self.kill(name)
        shutil.rmtree(self.folder)

    def register(self, name: str) -> None:
        """Make a pair of keys for a node, and tell the SuperLink the public one and the node's name.

        If there was a node of that name, it is struck off: its key is never accepted again.
        """
        if name in self._registered:
            self.flwr("supernode", "unregister", self._registered.pop(name))
        make_node_key(self.folder, f"node-{name}")
        public = str(self.folder / f"node-{name}.pub")
        answer = self.flwr("supernode", "register", public, "--name", name, "--format", "json")
        self._registered[name] = str(json.loads(answer)["node-id"])

    def start_node(self, name: str, authority: str = "authority", **node_config: Any) -> None:
        """Start a SuperNode that signs with the key ``node-name`` and believes servers of the authority."""
        config = " ".join(f"{key}={json.dumps(value)}" for key, value in node_config.items())
        self.start(
            f"node-{name}",
            *["flower-supernode", "--superlink", f"127.0.0.1:{self._port}"],
            *["--root-certificates", str(self.folder / f"{authority}.crt")],
            *["--auth-supernode-private-key", str(self.folder / f"node-{name}")],
            *["--port", str(free_port())],
            *["--max-retries", "3", "--node-config", config],
        )

    def run(self, **config: str | float) -> None:
        """Hand the program to the SuperLink, which runs its server with `config`; nodes get its client."""
        values = "".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items())
        (self.folder / "app" / "pyproject.toml").write_text(_PYPROJECT + values, encoding="utf-8")
        self.flwr("run", str(self.folder / "app"))

    def start(self, name: str, command: str, *arguments: str) -> None:
        """Start a process in a group of its own; what it prints is kept in its log."""
        with open(self.folder / f"{name}.log", "ab") as log:
            self._processes[name] = subprocess.Popen(
                [_command(command), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(name),
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """Kill a process and all that it has started, at once."""
        process = self._processes.pop(name)
        for kill, pid in [(os.killpg, process.pid), *((os.kill, pid) for pid in _descendants(process.pid))]:
            with contextlib.suppress(ProcessLookupError):
                kill(pid, signal.SIGKILL)
        process.wait()

    def log(self, name: str) -> str:
        """Return what a process has printed so far."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def wait_for(self, what: str, happened: Callable[[], bool], timeout: float = 120.0) -> None:
        """Wait until ``happened()``, or raise a TimeoutError that says `what` has not."""
        end = time.monotonic() + timeout
        while not happened():
            if time.monotonic() > end:
                logs = "\n".join(f"--- {name}\n{self.log(name)[-2000:]}" for name in self._processes)
                raise TimeoutError(f"{what} has not happened in {timeout:g} s\n{logs}")
            time.sleep(0.1)

    def running(self, name: str) -> bool:
        """Return whether a process is there; if it has ended, so does all that it has started."""
        if name in self._processes and self._processes[name].poll() is not None:
            self.kill(name)
        return name in self._processes

    def flwr(self, *arguments: str) -> str:
        """Run Flower's command line for this SuperLink, and return what it prints."""
        done = subprocess.run(
            [_command("flwr"), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            env=self._environment("user"),
        )
        if done.returncode:
            raise RuntimeError(f"flwr {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def _furnish(self) -> None:
        """Fill the folder: the program, the server's certificate, and where the command line finds it."""
        self._port = free_port()
        make_certificate(self.folder, "server", "authority", make_authority(self.folder, "authority"))
        app, home = self.folder / "app", self._home("user")
        app.mkdir()
        home.mkdir(parents=True)
        (app / "program.py").write_text(self.program, encoding="utf-8")
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "ours"\n\n[superlink.ours]\naddress = "127.0.0.1:{self._port}"\n'
            f'root-certificates = "{self.folder / "authority.crt"}"\n',
            encoding="utf-8",
        )

    def _home(self, name: str) -> Path:
        return self.folder / "homes" / name

    def _environment(self, name: str) -> dict[str, str]:
        """Return a process's environment: no telemetry, no look for updates, a Flower home of its own."""
        return os.environ | {
            "FLWR_HOME": str(self._home(name)),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "OPENBLAS_NUM_THREADS": "1",
        }

    def _wait_for_port(self) -> None:
        def listening() -> bool:
            if not self.running("superlink"):
                raise RuntimeError(f"the SuperLink has ended:\n{self.log('superlink')}")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self._port)) == 0

        self.wait_for("the SuperLink's start", listening)


def _descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that these have; some leave its group."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    children: dict[int, list[int]] = {}
    for line in listing.stdout.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found[1:]


def free_port() -> int:
    """Return a port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _command(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


_PYPROJECT = """\
[project]
name = "federation"
version = "1.0.0"
license = "BSD-3-Clause"

[tool.flwr.app]
publisher = "nnbrain"

[tool.flwr.app.components]
clientapp = "program:client"
serverapp = "program:server"

[tool.flwr.app.config]
"""
