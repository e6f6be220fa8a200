"""A tracker in a process of its own. The run waits for it for a limited time, at its end alone."""

import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import fedsim
from fedsim.core.errors import plain
from fedsim.track.job import Job, Status

COMMAND = (sys.executable, "-P", "-m", "fedsim.track.child")
LOGGER = logging.getLogger(__name__)


class Process:
    """One tracker's process, fed by a thread.

    Whatever goes wrong with it becomes one warning.

    Args:
        name: Of the tracker.
        job: The run.
    """

    def __init__(self, name: str, job: Job) -> None:
        self.name = name
        self.done: object = job.last
        self._log = Path(job.folder) / f"{name}.log"
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._warned, self._failed = threading.Lock(), False
        self._process: subprocess.Popen[str] | None = None
        root = str(Path(fedsim.__file__).parents[1])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [*COMMAND, name],
                    env=os.environ | {"PYTHONPATH": path},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    encoding="utf-8",
                    start_new_session=True,  # Ctrl-C is for the run, which ends its trackers
                )
        except OSError as error:
            self._warn(str(error))
            return
        self._threads = [
            threading.Thread(target=self._feed, args=(self._process.stdin,), daemon=True),
            threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self._send(asdict(job))

    def write(self, round_: int, values: Mapping[str, float]) -> None:
        """Give it the metrics of a round, and go on."""
        self._send({"round": round_, "values": dict(values)})

    def finish(self, report: Path | None, status: Status) -> None:
        """Give it the report, and say that this is all."""
        self._send({"report": str(report.absolute()) if report else None, "status": status})
        self._lines.put(None)

    def wait(self, patience: float) -> None:
        """Wait until it has ended, for at most `patience` seconds; then it is killed."""
        if self._process is None:
            return
        try:
            self._process.wait(patience)
            self._threads[1].join(patience)
            if self.done != "end":
                self._warn(f"its process ended with {self._process.returncode}")
        except subprocess.TimeoutExpired:
            self._warn(f"it must end within {patience:g} s after the run, got no answer")
        finally:
            self._process.kill()
            self._process.wait()

    def _send(self, order: Mapping[str, Any]) -> None:
        if not self._failed:
            self._lines.put(json.dumps(order) + "\n")

    def _feed(self, stream: IO[str]) -> None:
        with suppress(OSError, ValueError), stream:  # it is gone
            while (line := self._lines.get()) is not None:
                stream.write(line)
                stream.flush()

    def _listen(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                try:
                    answer = json.loads(line)
                except ValueError:
                    continue
                if "error" in answer:
                    self._warn(answer["error"])
                self.done = answer.get("done", self.done)
        if self.done != "end":
            self._warn("its process ended")

    def _warn(self, reason: str) -> None:
        """Say once that the run goes on without it."""
        with self._warned:
            if self._failed:
                return
            self._failed = True
        self._lines.put(None)
        LOGGER.warning(
            "tracker %s: the run goes on without it, got %s; more in %s",
            self.name, plain(reason), self._log,
        )  # fmt: skip
