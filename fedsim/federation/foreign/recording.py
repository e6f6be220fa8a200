"""Recordings of somebody else's Flower app: what its user says, and the plan of their attacks."""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import torch

import defenses
from adversary.grading import selection
from adversary.labels.head import NeedsModel, find_head
from adversary.workspace import workspace
from fedsim.config import Config, Part, Source
from fedsim.core.errors import ConfigError
from fedsim.core.params import mismatch
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, View
from fedsim.data import Federated
from fedsim.federation.foreign.app import App
from fedsim.federation.foreign.config import config_of, last_round, recorded_arrays
from fedsim.federation.foreign.evidence import VIEWS, check_head
from fedsim.federation.foreign.parts import examples_of, load_sent, model_of, nothing
from fedsim.run.kept_config import write_config
from fedsim.run.prepare import Plan
from fedsim.run.run_folder import RunFolder
from strategies import STRATEGIES
from strategies.tape import recorded_rounds
from strategies.tape_views import views


def is_foreign(path: Path) -> bool:
    """Return whether a folder holds rounds that no run of fedsim's own has left.

    Raises:
        BadRecording: Its config is damaged.
    """
    if not (path / "config.toml").exists():
        return bool(recorded_rounds(path))
    return RunFolder(path).config.foreign is not None


def tell(
    path: Path, app: App, attacks: Sequence[Part], *, allow: Iterable[str] = ()
) -> tuple[RunFolder, Plan]:
    """Check what is told of a recording against it, write it down beside it, and plan the attacks.

    What was told before need not be told again. Nothing is written where something is wrong.

    Args:
        path: The folder of the tape.
        app: What is told.
        attacks: Names and options.
        allow: Modules and paths that an earlier config may use, if this user did not write it.

    Raises:
        ConfigError: Something is not told, wrong, or does not fit the recording.
        BadRecording: A file of the recording is damaged, or its config names what is not allowed.
    """
    given = {*(part.name for part in attacks), *map(str, app.settings.values())}
    config = config_of(path, app, allow, given)
    plan = prepare(config.model_copy(update={"attack": tuple(attacks)}))
    load_sent(plan.model, recorded_arrays(path))
    latest = lambda: views(path, last_round(path), plan.local, sources=plan.sources)
    if config.foreign and config.foreign.head_only:
        _check_heads_suffice(plan, next(latest()))
    else:
        _check_fits_some(plan, path, latest())
    _check_head(plan, path, next(latest()))
    if config.foreign and config.foreign.truth and not Path(config.foreign.truth).is_dir():
        raise ConfigError(f"--truth: must be a folder, got {config.foreign.truth}")
    names = {part.name for part in attacks}
    parts = (*(part for part in config.attack if part.name not in names), *attacks)
    write_config(path, config.model_copy(update={"attack": parts}))
    return RunFolder(path), plan


def _check_fits_some(plan: Plan, path: Path, latest: Iterable[View]) -> None:
    """Refuse a model that no client was sent; some may have been sent parts of it."""
    like, first = plan.model.state_dict(), ""
    for view in latest:
        reason = mismatch(view.latest.sent, like)
        if reason is None:
            return
        first = first or reason
    raise ConfigError(f"--model: must be the model of {path}, got another: {first}")


def _check_head(plan: Plan, path: Path, view: View) -> None:
    """Refuse a head against which the uploads speak; a model without one has none to check."""
    foreign = plan.config.foreign
    assert foreign is not None
    try:
        head = find_head(workspace(view, plan.auxiliary)).weight
    except ValueError:
        return
    source = foreign.arrays.get(head, Source(name=head))
    stored = views(path, view.latest.update.round, plan.local)  # by the names on tape
    having = (each.latest for each in stored)
    alike = [*islice((it for it in having if source.name in it.update.delta), VIEWS)]
    option = "--head-weight" if foreign.head_only else "--arrays"
    check_head(alike, source.name, source.axes[0] if source.axes else 0, option=option)


def prepare(config: Config) -> Plan:
    """Build the model, the adversary's examples and the attacks on another app's recording.

    Raises:
        ConfigError: A name, an option or the data are not what they must be.
    """
    assert config.foreign is not None
    model = model_of(config)
    dataset = examples_of(config) or nothing(config.foreign)
    has_examples = len(dataset.labels) > 0
    auxiliary = Auxiliary(
        model=model,
        num_classes=config.foreign.num_classes,
        inputs=dataset.inputs if has_examples else None,
        labels=dataset.y if has_examples else None,
        input_shape=config.foreign.input_shape,
        schema=dataset.schema,
        vocabulary=dataset.vocabulary,
        per_token=dataset.targets is not None,
    )
    attacks = selection.build(config.attack, auxiliary)
    federated = Federated(dataset, (), torch.arange(len(dataset.labels)))
    strategy, defense = STRATEGIES["fedavg"](), defenses.build(())  # of no use here
    return Plan(
        config=config,
        federated=federated,
        model=model,
        strategy=strategy,
        defense=defense,
        auxiliary=auxiliary,
        attacks=attacks,
    )


def _check_heads_suffice(plan: Plan, view: View) -> None:
    """Check that no attack needs more of the model than its head.

    Raises:
        ConfigError: One does.
    """
    for attack in plan.attacks:
        reason = "which guesses no labels" if attack.family != "label" else ""
        try:
            if not reason:
                attack.infer(view, plan.auxiliary, generator(0, "infer", attack.title))
        except NeedsModel:
            reason = "which runs the model"
        except Exception:  # this update defeats it; its rows say why
            continue
        if reason:
            raise ConfigError(
                f"--model: must be given for {attack.name}, {reason}, got the head alone"
            )
