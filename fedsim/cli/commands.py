"""Commands as typer makes them, with help pages that say all there is to say."""

import inspect
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import click
from typer.core import TyperCommand
from typer.models import ArgumentInfo


class Command(TyperCommand):
    r"""A command whose help explains its arguments, and shows brackets as brackets.

    With click 8.5, typer loses the help of arguments, and both list them. Where rich is installed,
    typer writes `\[required]` for rich to read, also on pages that rich does not print.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        meanings = _meanings(self.callback)
        for parameter in self.params:
            if parameter.param_type_name == "argument" and parameter.name in meanings:
                setattr(parameter, "help", meanings[parameter.name])  # noqa: B010

    def get_short_help_str(self, limit: int = 45) -> str:  # noqa: ARG002
        """Return the first sentence of the help, whole."""
        return super().get_short_help_str(limit=10**6)

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write nothing: arguments stand beside the options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write arguments and options."""
        begun = len(formatter.buffer)
        super().format_options(ctx, formatter)
        formatter.buffer[begun:] = [text.replace("\\[", "[") for text in formatter.buffer[begun:]]


def _meanings(function: Any) -> dict[str, str]:
    """Return the help of each argument of a command's function."""
    hints = get_type_hints(inspect.unwrap(function), include_extras=True) if function else {}
    return {
        name: info.help
        for name, hint in hints.items()
        if get_origin(hint) is Annotated
        for info in get_args(hint)
        if isinstance(info, ArgumentInfo) and info.help
    }
