"""`fedsim check`: a gate for continuous integration."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.console import out, print_line
from fedsim.cli.options import Json
from fedsim.core.errors import ConfigError

if TYPE_CHECKING:
    from fedsim.check.gate import Gate
    from fedsim.config import Rule

STYLES = {"pass": "green", "fail": "red", "open": "red"}


def check(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Run folder, or a folder of fedsim audit or fedsim game."
        ),
    ],
    *,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if",
            metavar="RULE",
            help="What must not be, such as 'label.skill > 0.3'; repeat for more. Added to the "
            "run's check.fail_if.",
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option("--confidence", help="Confidence of the margins of error (0.95 if omitted)."),
    ] = None,
    margin: Annotated[
        str | None,
        typer.Option(
            "--margin",
            metavar="ignore|lenient|strict",
            help="What a margin decides: nothing; a rule fails only if the whole margin violates "
            "it; or it passes only if no part does (ignore if omitted).",
        ),
    ] = None,
    junit: Annotated[
        Path | None,
        typer.Option("--junit", metavar="FILE", help="Write the verdicts as JUnit XML."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Hold a run against rules. The exit code is 3 if one is violated or cannot be decided."""
    from fedsim import api
    from fedsim.check.output import as_json as in_json
    from fedsim.check.output import write_junit

    rules = [_parsed(text) for text in fail_if or ()]
    gate = api.check(run, rules, confidence=confidence, margin=margin)
    if junit:
        write_junit(gate, junit)
    if as_json:
        out.print_json(data=in_json(gate), allow_nan=False)
    else:
        _print_verdicts(gate)
    gate.check()


def _print_verdicts(gate: "Gate") -> None:
    for verdict in gate.verdicts:
        text = f"{verdict.rule.text}: {verdict.sentence}"
        print_line(verdict.word.capitalize(), text, STYLES[verdict.word])
        for note in verdict.notes:
            print_line("", note, "dim")


def _parsed(text: str) -> "Rule":
    from fedsim.config import parse_rule

    try:
        return parse_rule(text)
    except ValueError as error:
        raise ConfigError(f"--fail-if: {error}") from None
