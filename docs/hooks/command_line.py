"""Every command with its arguments and options, from typer."""

from typing import Any

import typer
from texts import code, table

from fedsim.cli.main import app


def page() -> str:
    """Return a section for each command."""
    root: Any = typer.main.get_command(app)
    return "\n\n".join(block for command in root.commands.values() for block in blocks(command))


def blocks(command: Any, parent: str = "fedsim") -> list[str]:
    """Return a command's section, those of its own commands after it."""
    name = f"{parent} {command.name}"
    inner = getattr(command, "commands", {}).values()
    parameters = [part for part in command.params if part.name != "help"]
    arguments = [part for part in parameters if part.param_type_name == "argument"]
    usage = " ".join([name, *(argument(part) for part in arguments), *["COMMAND"] * bool(inner)])
    usage += " [OPTIONS]" * (not inner)
    texts = [f"## `{name}`", command.help or "", f"```text\n{usage}\n```"]
    rows = [row(part) for part in parameters if part not in arguments or part.help]
    texts += [table(("argument or option", "value", "default", "meaning"), rows)] if rows else []
    return texts + [block for part in inner for block in blocks(part, name)]


def argument(part: Any) -> str:
    """Return an argument as the usage line writes it."""
    shown = shown_name(part)
    shown += "…" * (part.nargs != 1 and not shown.endswith("…"))
    return shown if part.required else f"[{shown}]"


def shown_name(part: Any) -> str:
    """Return an argument's name, without the brackets of an optional one."""
    return (part.metavar or part.name.rstrip("_").upper()).strip("[]")


def row(part: Any) -> tuple[str, str, str, str]:
    """Return the cells of one argument or option."""
    if part.param_type_name == "argument":
        name, value = code(shown_name(part)), ""
    else:
        name = ", ".join(code(flag) for flag in part.opts)
        value = "" if part.is_flag else part.metavar or part.type.name.upper()
    shown = part.default not in (None, False, []) and not callable(part.default)
    default = code(part.default) if shown else ""
    help_ = getattr(part, "help", "") or ""
    return name, value, default if not part.required else "must be given", help_
