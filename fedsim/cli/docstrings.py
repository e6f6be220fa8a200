"""What docstrings say, as parts: the summary, marked paragraphs, the meaning of each argument."""

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any

# What starts a paragraph of a module.
MARK = re.compile(r"^(?:\*([^*]+)\*|(Idea|What else it uses)):\s*")
ARGUMENT = re.compile(r"^(\w+(?:, \w+)*): ")
AS_FOR = re.compile(r"^As for `(\w+)`\.")
SECTIONS = ("Args:", "Raises:", "Returns:", "Yields:", "Parameters")


def function_of(part: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of a part whose record fixes some of its options."""
    while isinstance(part, partial):
        part = part.func
    return part


def title(text: str | None) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return _joined((text or "").strip().partition("\n\n")[0])


def source(text: str | None) -> str:
    """Return what stands between the title and the first marked paragraph: the paper."""
    body = inspect.cleandoc(text or "").partition("\n\n")[2]
    lines = []
    for line in body.splitlines():
        if MARK.match(line):
            break
        lines.append(line)
    return _joined("\n".join(lines))


def marked(text: str | None) -> dict[str, str]:
    """Return the marked paragraphs of a module's docstring, such as *Exact when*, by mark."""
    paragraphs: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in inspect.cleandoc(text or "").splitlines():
        if mark := MARK.match(line):
            lines = paragraphs.setdefault(mark[1] or mark[2], [])
        lines.append(MARK.sub("", line))
    return {name: _joined("\n".join(lines)) for name, lines in paragraphs.items()}


def details(function: Callable[..., Any]) -> str:
    """Return a function's docstring without its title and its sections."""
    body = inspect.cleandoc(function.__doc__ or "").partition("\n\n")[2]
    lines = []
    for line in body.splitlines():
        if line in SECTIONS:
            break
        lines.append(line)
    return _joined("\n".join(lines))


def arguments(function: Callable[..., Any]) -> dict[str, str]:
    """Return what a docstring says of each argument; for `As for` another function, what its says.

    Such a text is of a function in the same module.
    """
    meanings: dict[str, str] = {}
    for name, text in _arguments(function).items():
        other = function.__globals__.get(as_for[1]) if (as_for := AS_FOR.match(text)) else None
        meanings[name] = _arguments(other).get(name, text) if inspect.isfunction(other) else text
    return meanings


def _arguments(function: Callable[..., Any]) -> dict[str, str]:
    text = inspect.cleandoc(function.__doc__ or "")
    _, _, section = text.partition("\nArgs:\n")
    meanings: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        if names := ARGUMENT.match(line[4:]):
            lines = []
            meanings |= dict.fromkeys(names[1].split(", "), lines)
        lines.append(ARGUMENT.sub("", line[4:]))
    return {name: _joined("\n".join(lines)) for name, lines in meanings.items()}


def _joined(text: str) -> str:
    return " ".join(text.split())
