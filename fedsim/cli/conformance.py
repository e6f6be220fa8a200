"""`fedsim conformance`: the contract of attacks, run on anybody's attack."""

import tomllib
from contextlib import nullcontext
from typing import Annotated, Any

import typer

from fedsim.cli.console import err, out
from fedsim.cli.options import Json
from fedsim.core.errors import ConfigError

STYLES = {"pass": "green", "fail": "red", "skipped": "dim"}


def conformance(
    attack: Annotated[str, typer.Argument(help="package.module:attack, or a name.")],
    *,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", metavar="KEY=VALUE", help="Option of the attack; repeat for more."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Test whether an attack keeps the contract of attacks. The exit code is 3 if it does not.

    It must be better than the blind guess on a plain gradient, have no
    advantage on noise, give one answer for one seed, leave its view alone,
    answer in its family's form, and refuse what it cannot read.
    """
    options = dict(_parsed(text) for text in option or ())
    from fedsim.conformance.suite import Outcome, attack_of, check_all, conform

    def show(outcome: Outcome) -> None:
        if not as_json:
            reason = f": {outcome.reason}" if outcome.reason else ""
            text = f"{outcome.state.capitalize():<8} {outcome.name}{reason}"
            out.print(text, style=STYLES[outcome.state], soft_wrap=True)

    with err.status("testing") if err.is_terminal else nullcontext():
        outcomes = conform(attack_of(attack, options), show)
    if as_json:
        out.print_json(data={"attack": attack, "properties": [vars(each) for each in outcomes]})
    check_all(attack, outcomes)


def _parsed(text: str) -> tuple[str, Any]:
    from fedsim.config.values import parse_value

    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--option: must be KEY=VALUE, got {text!r}")
    try:
        return key.strip(), parse_value(f"--option {key.strip()}", value)
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
