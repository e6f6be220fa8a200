"""Real SuperLinks and SuperNodes for tests, each stopped by the id it was started with."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedsim.deploy.create import create
from fedsim.deploy.layout import Deployment
from tests.builders import free_port

_PROGRAM, _STARTED = b"flwr-clientapp", "Start `flwr-clientapp` process"
PATIENCE = 180.0  # seconds for a process to start on a busy machine


class Machines:
    """The processes of one deployment, all on this machine.

    Args:
        folder: Where the deployment is written.
        nodes: How many.
        options: For `create`.
    """

    def __init__(self, folder: Path, nodes: int, **options) -> None:
        self.folder = folder
        ports = [free_port() for _ in range(nodes)]
        self.made: Deployment = create(
            folder, nodes=nodes, port=free_port(), node_ports=ports, **options
        )
        self.running: dict[str, subprocess.Popen] = {}

    def start(self, role: str, *arguments: str, script: str | None = None, **environment) -> None:
        """Start a role by its own script, in a process group of its own."""
        command = [self.folder / (script or role) / "start.sh", *arguments]
        with self.log(role).open("ab") as log:
            self.running[role] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True, env={**os.environ, **environment},
            )  # fmt: skip

    def log(self, role: str) -> Path:
        """Return the file with what a role says."""
        return self.folder / f"{role}.log"

    def said(self, role: str) -> str:
        """Return what a role has said so far."""
        return self.log(role).read_text(errors="replace")

    def wait(self, role: str, text: str, *, times: int = 1) -> None:
        """Wait until a role has said something so many times."""
        wait(lambda: self.said(role).count(text) >= times, f"{role}: '{text}' × {times}")

    def up(self) -> None:
        """Start everything and wait until every node is connected."""
        self.start("superlink")
        self.wait("superlink", "Uvicorn running")
        for name in self.made.nodes:
            self.start(name)
        for name in self.made.nodes:
            self.wait(name, "SuperNode ID")

    def kill(self, role: str) -> None:
        """Kill one process with -9, and nothing that it started."""
        self.running[role].kill()
        self.running[role].wait()

    def stop(self, role: str) -> None:
        """Stop a role and what it started, and wait for it."""
        process = self.running.pop(role)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def training(self, role: str, round_: int) -> int:
        """Return the id of the process in which a node trains in a round, its round_-th."""
        taken = "Receiving: train message"
        self.wait(role, taken, times=round_)
        wait(
            lambda: _STARTED in self.said(role).split(taken, round_)[-1], f"{role}: round {round_}"
        )
        time.sleep(2)  # it is said just before; and the process of the last message may linger
        found: list[int] = []

        def look() -> bool:
            group = _group(self.running[role].pid)
            found[:] = sorted((pid for pid in group if _PROGRAM in _command(pid)), key=_began)
            return bool(found)

        wait(look, f"{role}: a client process")
        return found[-1]


@contextmanager
def machines(folder: Path, nodes: int, **options) -> Iterator[Machines]:
    """Yield a deployment's machines, and stop whatever still runs at the end."""
    there = Machines(folder, nodes, **options)
    try:
        yield there
    finally:
        for role in list(there.running):
            there.stop(role)


def wait(condition, what: str, patience: float = PATIENCE) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {patience:g} s: {what}")
        time.sleep(0.2)


def _group(leader: int) -> Iterator[int]:
    """Return the processes of a process group."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            if os.getpgid(int(path.name)) == leader:
                yield int(path.name)


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _began(pid: int) -> int:
    """Return when a process began, in the kernel's ticks."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return -1
