"""What a wrong word on the command line may have meant: an option, a setting, a command."""

import shlex
import sys
from typing import Any

import click

from fedsim.core.errors import closest, nearest


def sentence(error: click.ClickException) -> str:
    """Return what is wrong with a command line as `thing: rule, got value; hint`."""
    if isinstance(error, click.NoSuchOption):
        return _no_option(error)
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return _missing(error.param)
    context: Any = getattr(error, "ctx", None)
    commands = getattr(context.command, "commands", {}) if context else {}
    if error.message.startswith("No such command") and commands:
        name = error.message.split("'")[1]
        hint = nearest(name, commands)
        return f"command: must be one of {context.command_path}, got '{name}'; {hint}"
    return error.format_message()


def _missing(parameter: click.Parameter) -> str:
    """Return the sentence of an option or argument that was left out, with what it stands for."""
    names = [name for name in parameter.opts if name.startswith("-")]
    name = names[0] if names else parameter.human_readable_name
    meaning = (getattr(parameter, "help", None) or "").rstrip(".")
    return f"{name}: must be given{f' ({meaning})' if meaning else ''}, got none"


def _no_option(error: click.NoSuchOption) -> str:
    """Return the sentence of an unknown option: a setting by that name comes first."""
    from fedsim import config as configs

    name, context = error.option_name, error.ctx
    where = context.command_path if context else "fedsim"
    parameters: list[Any] = context.command.params if context else []
    flags = [flag for it in parameters for flag in it.opts if flag.startswith("--")]
    begin = f"{name}: must be an option of {where}"
    takes_settings = "--set" in flags or context is None or context.parent is None
    if takes_settings and (keys := configs.named(name.lstrip("-"))):
        texts = (f"--set {shlex.quote(f'{key.path}={_value(name, key.type)}')}" for key in keys[:3])
        return f"{begin}; did you mean {' or '.join(texts)}?"
    close = closest(name.lstrip("-"), (flag[2:] for flag in flags))
    if close:
        return f"{begin}; did you mean '--{close}'?"
    return f"{begin}; one of {', '.join(sorted(flags))}"


def _value(option: str, placeholder: str) -> str:
    """Return what was given for an option, as the command line has it."""
    for place, word in enumerate(sys.argv):
        given, equals, value = word.partition("=")
        if given == option and equals:
            return value
        if word == option and place + 1 < len(sys.argv) and not sys.argv[place + 1].startswith("-"):
            return sys.argv[place + 1]
    return placeholder.upper()
