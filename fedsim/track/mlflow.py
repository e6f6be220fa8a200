"""MLflow: a run on a server, or in `mlflow.db` beside the run folder."""

# The package is an extra.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
import itertools
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsim.track.job import Job, Status

ROUND = "round"  # the metric that is written last of each round
MOST = 100  # parameters in a request
LONGEST = 500  # characters of a parameter
STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


class MLflow:
    """Metrics by round, the config as parameters and as a file, the report as an artifact."""

    def __init__(self, job: Job) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        beside = Path(job.folder).parents[1]
        uri = job.uri or os.environ.get("MLFLOW_TRACKING_URI")
        artifacts = None if uri else str(beside / "mlartifacts")
        self._client = MlflowClient(uri or f"sqlite:///{beside / 'mlflow.db'}")
        if job.id is None:
            experiment = self._experiment(job.project, artifacts)
            self.id = self._client.create_run(experiment, run_name=job.run).info.run_id
            self._describe(job)
        else:
            self.id = job.id
            self._client.update_run(self.id, status="RUNNING")
        rounds = self._client.get_metric_history(self.id, ROUND)
        self.last = max((metric.step for metric in rounds), default=-1)

    def write(self, round_: int, values: Mapping[str, float]) -> None:
        """Keep a round's metrics, in one request."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        rows = {**{_name(name): value for name, value in values.items()}, ROUND: float(round_)}
        metrics = [Metric(name, value, now, round_) for name, value in rows.items()]
        self._client.log_batch(self.id, metrics=metrics)

    def finish(self, report: str | None, status: Status) -> None:
        """Keep the report, and end the run."""
        if report:
            self._client.log_artifact(self.id, report)
        self._client.set_terminated(self.id, STATUS[status])

    def _experiment(self, name: str, artifacts: str | None) -> str:
        """Return the experiment of a name; another process may make it at the same moment."""
        from mlflow.exceptions import MlflowException

        for last in (False, True):
            if experiment := self._client.get_experiment_by_name(name):
                return experiment.experiment_id
            try:
                return self._client.create_experiment(name, artifact_location=artifacts)
            except MlflowException:
                if last:
                    raise
        raise AssertionError

    def _describe(self, job: Job) -> None:
        from mlflow.entities import Param

        params: list[Any] = [
            Param(_name(key), str(value)[:LONGEST]) for key, value in job.config.items()
        ]
        for start in itertools.islice(itertools.count(0, MOST), -(-len(params) // MOST)):
            self._client.log_batch(self.id, params=params[start : start + MOST])
        self._client.log_text(self.id, job.toml, "config.toml")


def _name(text: str) -> str:
    """Return a name of the characters that MLflow takes."""
    return re.sub(r"[^\w\-. /]", "_", text)
