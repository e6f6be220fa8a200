"""Real SuperLinks and SuperNodes for tests, each stopped by the id it was started with."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from fedsim.deploy.create import create
from fedsim.deploy.layout import Deployment
from tests.builders import free_ports
from tests.pace import Patience

_PROGRAM = b"flwr-clientapp"
SLACK = 2.0  # seconds by which the time of boot is uncertain; a client process lives for longer


class Machines:
    """The processes of one deployment, all on this machine.

    Args:
        folder: Where the deployment is written.
        nodes: How many.
        patience: How long to wait on this machine.
        options: For `create`.
    """

    def __init__(self, folder: Path, nodes: int, patience: Patience, **options) -> None:
        self.folder, self.patience = folder, patience
        port, *ports = free_ports(nodes + 1)
        self.made: Deployment = create(folder, nodes=nodes, port=port, node_ports=ports, **options)
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
        self.patience.wait(
            lambda: self.said(role).count(text) >= times, f"{role}: '{text}' × {times}"
        )

    def up(self) -> None:
        """Start everything and wait until every node is connected."""
        self.start("superlink")
        self.wait("superlink", "Uvicorn running")
        for name in self.made.nodes:
            self.start(name)
        for name in self.made.nodes:
            self.wait(name, "SuperNode ID")

    def restart(self, name: str) -> None:
        """Start a killed node as often as it takes to be let in.

        Of a node that died without a word the SuperLink lets in no other with its key, until it
        has been silent for about a minute; Flower's SuperNode then gives up at once.
        """
        times = self.said(name).count("SuperNode ID")

        def is_in() -> bool:
            if self.running[name].poll() is not None:
                time.sleep(2)
                self.start(name)
            return self.said(name).count("SuperNode ID") > times

        self.patience.wait(is_in, f"{name} is let in again", 360.0)

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

    def held(self, roles: Sequence[str], since: float) -> dict[str, list[int]]:
        """Stop the nodes' client processes that began after a moment; return their ids.

        Each as soon as it imports the app: it has taken its message by then (of one that dies
        before, Flower starts another), and is seconds away from an answer.
        """
        found: dict[str, list[int]] = {}

        def look() -> bool:
            for role in (role for role in roles if role not in found):
                group = _group(self.running[role].pid)
                new = [
                    pid
                    for pid in group
                    if _PROGRAM in _command(pid) and _began(pid) > since - SLACK and _imports(pid)
                ]
                if new:
                    for pid in new:
                        os.kill(pid, signal.SIGSTOP)
                    found[role] = new
            return len(found) == len(roles)

        self.patience.wait(look, f"client processes of {', '.join(roles)}")
        return found


@contextmanager
def machines(folder: Path, nodes: int, patience: Patience, **options) -> Iterator[Machines]:
    """Yield a deployment's machines, and stop whatever still runs at the end."""
    started = Machines(folder, nodes, patience, **options)
    try:
        yield started
    finally:
        for role in list(started.running):
            started.stop(role)


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


def _imports(pid: int) -> bool:
    """Return whether a process has begun to load torch."""
    with suppress(OSError):
        return b"libtorch" in Path(f"/proc/{pid}/maps").read_bytes()
    return False


def _began(pid: int) -> float:
    """Return when a process began, in seconds since 1970."""
    with suppress(OSError):
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        return psutil.boot_time() + ticks / os.sysconf("SC_CLK_TCK")
    return -1.0
