"""The Flower ServerApp: a run between processes, as its run config names it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedsim import config as configs
from fedsim.config import Config
from fedsim.core.errors import ConfigError
from fedsim.deploy import progress
from fedsim.federation.progress import Round
from fedsim.federation.rounds import federate
from fedsim.run.marks import failing
from fedsim.run.prepare import Plan, prepare, with_versions
from fedsim.run.run_folder import REPORT, RunFolder
from fedsim.track.installed import check_installed
from fedsim.track.tracked import tracked
from strategies import OrderedGrid

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run under Flower: settings from the run config, nodes put in the order of clients.

    Raises:
        ConfigError: The settings are wrong, or a run with stateful defenses is to be resumed:
            what clients remember is with Flower's nodes.
        RunStopped: The run ended early.
    """
    from fedsim.report.run import write_report

    folder, plan = _opened(context.run_config)
    torch.set_num_threads(plan.config.engine.threads)
    logger = logging.getLogger("flwr")
    say = lambda facts: logger.info("%s", progress.line(facts))
    ordered = OrderedGrid(grid, plan.config.federation.clients, on_fact=say)
    track = plan.config.track
    with folder.locked(), failing(folder.path), tracked(track, folder) as track_round:

        def show(finished: Round) -> None:
            track_round(finished.number)
            logger.info("%s", finished)
            if finished.number:  # round 0 is the untrained model
                say({"attacked": finished.number, "seconds": finished.attack_seconds})

        federate(
            plan,
            ordered,
            folder,
            client_of=ordered.client_of,
            start=folder.restore(),
            on_round=show,
        )
        write_report([folder], folder.path / REPORT)


def _opened(settings: Mapping[str, Any]) -> tuple[RunFolder, Plan]:
    """Return the run folder that Flower's run config names, new or to be resumed, and its plan.

    Raises:
        ConfigError: The settings are wrong, or a run with stateful defenses is to be resumed.
    """
    out = Path(str(settings.get("out", "")))
    if not out.is_absolute():
        raise ConfigError(f"out: must be an absolute path, got '{out}'")
    if settings.get("resume"):
        folder = RunFolder(out)
        folder.check_trusted()
        _check_engine(folder.config)
        check_installed(folder.config.track)
        plan = prepare(folder.config)
        if plan.defense.init(plan.model.state_dict()):
            raise ConfigError("resume: must be a run without stateful defenses under flwr run")
        return folder, plan
    path = Path(str(settings["config"])) if settings.get("config") else None
    changes = [text for text in str(settings.get("set", "")).split(";") if text.strip()]
    config = configs.read(path, changes)
    _check_engine(config)
    check_installed(config.track)
    plan = prepare(with_versions(config))
    return RunFolder.create(out, plan.config, plan.federated.tokeniser), plan


def _check_engine(config: Config) -> None:
    """Refuse to let Flower's nodes train what a config says is trained together.

    Raises:
        ConfigError: It says so.
    """
    if config.engine.name == "ray" and (config.engine.batch or 1) > 1:
        raise ConfigError(
            "engine.batch: must be left out where Flower runs the clients, got "
            f"{config.engine.batch}"
        )
    if config.engine.name == "batched":
        raise ConfigError(
            "engine.name: must be 'inline' or 'ray' where Flower runs the clients, got 'batched'"
        )
