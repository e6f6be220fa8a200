"""The section of the config that `fedsim check` reads."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from fedsim.config.fields import Section
from fedsim.config.rules import Rule, parse_rule

Confidence = Annotated[float, Field(gt=0, lt=1, strict=True)]
Margin = Literal["ignore", "lenient", "strict"]


def _as_list(value: object) -> object:
    """Let one rule stand for a list of it."""
    return [value] if isinstance(value, str) else value


def _parsed(texts: tuple[str, ...]) -> tuple[str, ...]:
    try:
        for text in texts:
            parse_rule(text)
    except ValueError as error:
        raise ValueError(f"rule: {error}") from None
    return texts


class Check(Section):
    """What must not be in a run, for `fedsim check`: leakage as a regression test."""

    fail_if: Annotated[
        tuple[str, ...],
        BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
        AfterValidator(_parsed),
    ] = ()
    """Rules, each of the form `family[.attack].metric OP limit`, such as `label.skill > 0.3`."""
    confidence: Confidence = 0.95
    """Confidence of the margins of error."""
    margin: Margin = "ignore"
    """What a margin of error decides: ignore (nothing; the mean is compared), lenient (a rule is
    violated only if the whole margin violates it), strict (it is kept only if no part does)."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules."""
        return tuple(map(parse_rule, self.fail_if))
