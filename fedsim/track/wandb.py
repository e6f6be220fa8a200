"""Weights & Biases: a run in the run folder, or on its server where the config says `online`."""

# The package is an extra.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsim.track.job import Job, Status

# Nothing of the machine, the code or the environment is kept; no link is made in the run folder.
QUIET: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "symlink": False,
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}


class WandB:
    """Metrics by round as steps, the config, the report as an artifact."""

    def __init__(self, job: Job) -> None:
        if not job.online:
            os.environ["WANDB_ERROR_REPORTING"] = "false"
            os.environ["WANDB_DATA_DIR"] = str(Path(job.folder) / "wandb" / "data")
        import wandb

        settings = {name: it for name, it in QUIET.items() if name in wandb.Settings.model_fields}
        self.id, self._wandb = job.id or secrets.token_hex(8), wandb
        self._run = wandb.init(
            project=job.project,
            name=job.run,
            id=self.id,
            resume="allow" if job.id and job.online else None,
            config=dict(job.config),
            dir=job.folder,
            mode="online" if job.online else "offline",
            settings=wandb.Settings(**settings),
        )
        self.last = max(job.last, self._run.step - 1 if self._run.resumed else -1)

    def write(self, round_: int, values: Mapping[str, float]) -> None:
        """Keep a round's metrics."""
        self._run.log(dict(values), step=round_, commit=True)

    def finish(self, report: str | None, status: Status) -> None:
        """Keep the report, and end the run."""
        if report:
            artifact = self._wandb.Artifact(f"report-{self.id}", type="report")
            artifact.add_file(report, name="report.html")
            self._run.log_artifact(artifact)
        self._run.finish(exit_code=0 if status == "finished" else 1)
