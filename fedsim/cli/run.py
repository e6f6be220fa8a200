"""`fedsim run`: train a federation and attack it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsim.cli.answering import Answering
from fedsim.cli.console import Interrupted, attack_line, out, print_line, print_next, quoted, say
from fedsim.cli.options import Allow, ConfigFile, Json, Set, Strict
from fedsim.cli.rounds import Rounds
from fedsim.cli.tables import audit_line
from fedsim.cli.unanswered import print_unanswered
from fedsim.core.errors import ConfigError, FedsimError

if TYPE_CHECKING:
    from fedsim.api import Run
    from fedsim.config import Config
    from fedsim.run.outcomes import Answers

Seeds = Annotated[
    int | None,
    typer.Option(
        min=2, help="Repeat the setting with so many seeds, from its own on: runs OUT/seed-0, …."
    ),
]


def run(
    config: ConfigFile = None,
    *,
    set_: Set = None,
    out_: Annotated[
        Path | None,
        typer.Option("--out", help="New run folder (a new one under runs/ if omitted)."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="Where clients run: inline, batched or ray (engine.name if omitted)."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a stopped run (the newest without --out).")
    ] = False,
    seeds: Seeds = None,
    allow: Allow = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Train a federation, attack every round, and draw what leaked."""
    _check_together(config, set_, engine, seeds, allow, resume=resume)
    from fedsim import config as configs

    settings = [*(set_ or []), *([f"engine.name={engine}"] if engine else [])]
    resolved = configs.read(config, settings)  # a mistake is named before torch is imported
    say("Loading …", quiet=as_json)
    if seeds:
        from fedsim.cli.seeds import repeat

        repeat(config, settings, seeds, out_, strict=strict, as_json=as_json)
        return
    from fedsim import api
    from fedsim.run import outcomes

    if resume:
        target = out_ or api.newest_unfinished()
        resolved = _trusted_config(target, allow or ())
    else:
        target = out_ or api.new_folder(resolved)
    finished = _execute(resolved, target, allow or (), resume=resume, quiet=as_json)
    answers = api.answers(finished.ledger())
    if as_json:
        out.print_json(data=_summary(finished) | {"unanswered": outcomes.as_json(answers)})
    else:
        _print_end(finished, answers)
    if strict:
        outcomes.check_answered(answers)


def _check_together(
    config: Path | None,
    settings: Sequence[str] | None,
    engine: str | None,
    seeds: int | None,
    allow: Sequence[str] | None,
    *,
    resume: bool,
) -> None:
    """Refuse options that do not go with each other.

    Raises:
        ConfigError: There are such options.
    """
    if resume and (config or settings or engine):
        raise ConfigError("--resume: uses the run's own config, got a config or settings")
    if allow and not resume:
        raise ConfigError(f"--allow: must go with --resume, got {allow[0]} for a new run")
    if resume and seeds:
        raise ConfigError(
            f"--seeds: the same command with --out goes on with all runs, got --resume and {seeds}"
        )


def _trusted_config(run: Path, allow: Sequence[str]) -> "Config":
    """Return the config of a run that goes on.

    Raises:
        BadRecording: It is damaged, or names what this user has not allowed.
    """
    from fedsim.run.run_folder import RunFolder

    folder = RunFolder(run)
    folder.check_trusted(allow)
    return folder.config


def _print_end(finished: "Run", answers: "Sequence[Answers]") -> None:
    """Print what the last audit says, what was not answered, and where to go on."""
    from fedsim import api

    out.print()
    if line := audit_line(api.last_audit(finished.ledger())):
        print_line("Audit", line)
        out.print()
    print_unanswered(answers)
    print_line("Report", finished.report)
    attacks = (part.name for part in finished.config().attack)
    print_next(attack_line(finished.path, attacks))


def _execute(
    config: "Config", target: Path, allow: Sequence[str], *, resume: bool, quiet: bool
) -> "Run":
    """Run or resume, with a line per round; a failure says how to continue."""
    from fedsim import api
    from fedsim.core.progress import listening

    with Rounds(config, target, out, quiet=quiet) as progress, listening(Answering(progress.step)):
        shown: Any = {
            "on_round": progress.show,
            "on_plan": progress.warn,
            "on_client": progress.client,
        }
        try:
            if resume:
                return api.resume(target, allow=allow, **shown)
            return api.run(config, target, **shown)
        except KeyboardInterrupt:
            hint = f"; {_hint(target)}" if _begun(target) else ""
            raise Interrupted(f"stopped{hint}") from None
        except FedsimError as error:
            if not progress.started or isinstance(error, ConfigError) or not _begun(target):
                raise
            raise type(error)(f"{error}\n{_hint(target)}") from error


def _begun(target: Path) -> bool:
    """Return whether there is something to go on with; a first round that fails leaves nothing."""
    return (target / "config.toml").exists()


def _hint(target: Path) -> str:
    return f"continue with: fedsim run --resume --out {quoted(target)}"


def _summary(finished: "Run") -> dict[str, Any]:
    """Return what `--json` prints."""
    from fedsim import api
    from fedsim.core.tables import frame

    metrics = frame(finished.metrics())
    accuracy = metrics.loc[metrics["metric"] == "accuracy", "value"]
    return {
        "run": str(finished.path),
        "report": str(finished.report),
        "accuracy": accuracy.iloc[-1] if len(accuracy) else None,
        "attacks": api.means(finished.ledger()),
        "audit": api.last_audit(finished.ledger()),
    }
