"""The process of one tracker: `python -m fedsim.track.child NAME`.

Lines of JSON come in: the job, then rounds, then the end. A line goes out for each that is done.
What the tracker itself prints goes to standard error. Of fedsim, only this package is imported.
"""

import importlib
import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from fedsim.track.job import Job, Tracking

CLASSES = {"tensorboard": "TensorBoard", "mlflow": "MLflow", "wandb": "WandB"}


def main() -> None:
    """Track one run until its lines end; the last line out says what went wrong, if it did."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run says when it ends
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    try:
        serve(sys.argv[1], sys.stdin, answers)
    except BaseException as error:
        text = " ".join(str(error).split()) or type(error).__name__
        answers.write(json.dumps({"error": text[:300]}) + "\n")
        raise


def serve(name: str, lines: Iterable[str], answers: TextIO) -> None:
    """Do what the lines say."""
    lines = iter(lines)
    job = Job(**json.loads(next(lines)))
    memory = Path(job.folder) / f"{name}.json"
    module = importlib.import_module(f"fedsim.track.{name}")
    tracking: Tracking = getattr(module, CLASSES[name])(job)
    remember(memory, id=tracking.id, last=tracking.last)
    end: dict[str, Any] = {"report": None, "status": "stopped"}  # as when the run is killed
    for line in lines:
        order = json.loads(line)
        if "status" in order:
            end = order
            break
        if order["round"] > tracking.last:
            tracking.write(order["round"], order["values"])
            tracking.last = order["round"]
            remember(memory, id=tracking.id, last=tracking.last)
        answers.write(json.dumps({"done": order["round"]}) + "\n")
    tracking.finish(end["report"], end["status"])
    answers.write(json.dumps({"done": "end"}) + "\n")


def remember(path: Path, **values: Any) -> None:
    """Write what a resumed run must know, whole or not at all."""
    if not path.parent.is_dir():  # the run failed in its first round and took its folder with it
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(values), encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    main()
