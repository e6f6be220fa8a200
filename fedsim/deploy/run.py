"""A run of a deployment: started, followed round by round, judged, and its folder fetched.

Through Flower's public command line alone. `flwr run` exits 0 when a run failed: only
`finished:completed` counts.
"""

import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import tomli_w

from fedsim.core.errors import ConfigError, RunStopped
from fedsim.deploy import texts
from fedsim.deploy.layout import SUPERLINK, Deployment
from fedsim.deploy.progress import Nodes

COMPLETED = "finished:completed"
LOOK = 0.5  # seconds between two looks at the run folder
LOOKS = 20  # at a run whose log has ended


@dataclass(frozen=True)
class Flower:
    """Flower's command line with the connection of one deployment.

    Attributes:
        name: Of the connection.
        home: Folder of Flower's config.
    """

    name: str
    home: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start one of its commands."""
        program = Path(sys.executable).with_name("flwr")
        command = [str(program) if program.exists() else "flwr", *arguments]
        environment = {
            **os.environ,
            "FLWR_HOME": str(self.home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "NO_COLOR": "1",
        }
        return subprocess.Popen(
            command,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def ask(self, *arguments: str) -> dict[str, Any]:
        """Return the JSON that one of its commands answers.

        Raises:
            RunStopped: It fails; its reason is on one line.
        """
        output, errors = self.start(*arguments, "--format", "json").communicate()
        try:
            answer = json.loads(output[output.index("{") :])
        except ValueError:
            answer = {}
        if answer.get("success"):
            return answer
        reason = str(answer.get("error-message") or errors or output)
        raise RunStopped(f"flwr {arguments[0]}: {' '.join(reason.split()) or 'no answer'}")


@contextmanager
def flower(deployment: Deployment, folder: Path) -> Iterator[Flower]:
    """Yield Flower's command line for a deployment, with a config of its own for the while."""
    with tempfile.TemporaryDirectory(prefix="fedsim-") as home:
        config = texts.connection(deployment, folder.absolute() / "ca.crt")
        Path(home, "config.toml").write_text(config, encoding="utf-8")
        yield Flower(deployment.name, Path(home))


def await_superlink(port: int, patience: float = 30.0) -> None:
    """Wait until the SuperLink answers on this machine: it may just have been started.

    Raises:
        RunStopped: It does not.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            socket.create_connection(("localhost", port), timeout=LOOK).close()
        except OSError:
            if time.monotonic() > deadline:
                raise RunStopped(
                    f"SuperLink: must answer on localhost:{port}, got nobody in {patience:g} s; "
                    f"start {SUPERLINK}/start.sh"
                ) from None
            time.sleep(LOOK)
        else:
            return


def new_folder(folder: Path, *, remote: bool = False) -> Path:
    """Return an absolute path under the SuperLink's runs/ that does not exist yet.

    On another machine, where nobody can look, it is named after the moment.
    """
    runs = folder.absolute() / SUPERLINK / "runs"
    if remote:
        return runs / f"run-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    return next(path for i in range(1, 10**6) if not (path := runs / f"run{i}").exists())


def start(
    flwr: Flower,
    out: Path,
    *,
    app: Path,
    config: Path | None = None,
    settings: Iterable[str] = (),
    resume: bool = False,
) -> str:
    """Start a run and return its id.

    Args:
        flwr: From `flower`.
        out: The run folder on the SuperLink's machine, absolute.
        app: Folder of the app: the deployment's thin one, or fedsim's own repository.
        config: TOML file on the SuperLink's machine; the defaults without.
        settings: `key=value`, on top of it.
        resume: Go on with the run in `out`.

    Raises:
        ConfigError: A setting cannot be handed on.
        RunStopped: The SuperLink cannot be reached, or does not take the run.
    """
    listed = list(settings)
    if wrong := [text for text in listed if ";" in text]:
        raise ConfigError(f"--set: must not hold a semicolon, got '{wrong[0]}'")
    run_config: dict[str, Any] = {"out": str(out), "resume": resume}
    if not resume:
        run_config |= {"config": str(config.absolute()) if config else "", "set": "; ".join(listed)}
    file = flwr.home / "run.toml"
    file.write_text(tomli_w.dumps(run_config), encoding="utf-8")
    answer = flwr.ask("run", str(app), flwr.name, "--run-config", str(file))
    return str(answer["run-id"])


def follow(
    flwr: Flower,
    run: str,
    out: Path,
    *,
    on_round: Callable[[int], None] = lambda _: None,
    on_news: Callable[[str], None] = lambda _: None,
) -> None:
    """Wait for the end of a run.

    Args:
        flwr: From `flower`.
        run: Its id.
        out: Its folder; where it lies on this machine its rounds are told as they are finished.
        on_round: Called with every finished round, from 0.
        on_news: Called with sentences on the nodes, from the log of the run.

    Raises:
        RunStopped: Flower says that it failed or was stopped, or the SuperLink is gone.
    """
    last, nodes = -1, Nodes()
    with flwr.start("log", run, flwr.name, "--stream") as stream, _lines(stream) as lines:
        while stream.poll() is None or not lines.empty():
            for sentence in _heard(lines, nodes):
                on_news(sentence)
            last = _report(out, last, on_round)
    _report(out, last, on_round)
    it = flwr.ask("ls", flwr.name, "--run-id", run)["runs"][0]
    for _ in range(LOOKS):  # the log may end a moment before the run
        if str(it["status"]).startswith("finished"):
            break
        time.sleep(LOOK)
        it = flwr.ask("ls", flwr.name, "--run-id", run)["runs"][0]
    if it["status"] != COMPLETED:
        reason = str(it.get("status-details") or "N/A").replace("N/A", "no reason given")
        raise RunStopped(f"run {run}: Flower says {it['status']} ({reason})")


@contextmanager
def _lines(process: subprocess.Popen[str]) -> Iterator[queue.SimpleQueue[str]]:
    """Yield the lines that a process prints, on both its streams, as they come."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read(stream: IO[str]) -> None:
        for line in stream:
            lines.put(line)

    streams = [stream for stream in (process.stdout, process.stderr) if stream]
    threads = [threading.Thread(target=read, args=(it,), daemon=True) for it in streams]
    for thread in threads:
        thread.start()
    yield lines
    for thread in threads:
        thread.join()


def _heard(lines: queue.SimpleQueue[str], nodes: Nodes) -> list[str]:
    """Wait a moment for lines of the log; return what they, or their absence, tell of nodes."""
    sentences: list[str] = []
    with suppress(queue.Empty):
        sentences += nodes.hear(lines.get(timeout=LOOK))
        while True:
            sentences += nodes.hear(lines.get_nowait())
    still = nodes.still()
    return [*sentences, still] if still else sentences


def fetch(out: Path, target: Path | None, *, ssh: str | None = None) -> Path:
    """Copy a run folder to this machine and return where it is.

    Args:
        out: Where it lies on the SuperLink's machine.
        target: A new folder; None to leave it where it is.
        ssh: `USER@HOST` of the SuperLink's machine, where that is another one.

    Raises:
        RunStopped: It cannot be copied.
    """
    if target is None:
        return out
    if ssh is not None:
        copied = subprocess.run(
            ["scp", "-q", "-r", f"{ssh}:{out}", str(target)],
            capture_output=True,
            text=True,
            check=False,
        )
        if copied.returncode:
            reason = " ".join(copied.stderr.split())
            raise RunStopped(f"scp: {ssh}:{out} cannot be copied ({reason})")
        return target
    try:
        shutil.copytree(out, target)
    except OSError as error:
        raise RunStopped(f"{target}: the run folder cannot be copied ({error})") from None
    return target


def check_target(target: Path | None, ssh: str | None) -> None:
    """Refuse a target that cannot be, before the run and not after it.

    Raises:
        ConfigError: There is something at `target`, or none is given with `ssh`.
    """
    if target is None and ssh is not None:
        raise ConfigError("--out: must be given with --ssh, got none")
    if target is not None and target.exists():
        raise ConfigError(f"--out: must be a new folder, got {target}")


def _report(out: Path, last: int, on_round: Callable[[int], None]) -> int:
    """Call `on_round` with the rounds finished since; return the last."""
    for number in finished(out):
        if number > last:
            last = number
            on_round(number)
    return last


def finished(out: Path) -> list[int]:
    """Return the finished rounds of a run folder, none where it is not on this machine."""
    return sorted(int(path.name) for path in (out / "state").glob("[0-9]*") if path.name.isdigit())
