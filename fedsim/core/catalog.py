"""Named parts: the built-in ones, those of installed packages, and `package.module:function`.

Attacks, defenses, strategies, data sets and models are all chosen by name in a config. This is
the one place where entry points are read and where a part's options are checked.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from fedsim.core.errors import ConfigError, nearest

Part = TypeVar("Part")


def with_extensions(builtin: Mapping[str, Part], kind: str) -> dict[str, Part]:
    """Return the built-in parts and those that packages offer as `fedsim.<kind>` entry points.

    Raises:
        ConfigError: An entry point cannot be imported.
    """
    points = entry_points(group=f"fedsim.{kind}")
    extensions = {
        point.name: _imported(f"entry point {point.name}", point.value) for point in points
    }
    return {**extensions, **builtin}


def find(key: str, name: str, parts: Mapping[str, Part]) -> Part:
    """Return the part called `name`, or import the user's own `package.module:attribute`.

    Raises:
        ConfigError: There is none; the sentence names the nearest.
    """
    if ":" in name:
        return _imported(key, name)
    if name not in parts:
        raise ConfigError(f"{key}: must be a known name, got '{name}'; {nearest(name, parts)}")
    return parts[name]


def options_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return a part's options: its keyword-only parameters.

    Raises:
        ConfigError: It is no function.
    """
    try:
        parameters = inspect.signature(function, eval_str=True).parameters
    except (TypeError, ValueError):
        raise ConfigError(f"name: must be a function or a class, got {function!r}") from None
    return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def check_options(
    key: str, function: Callable[..., Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return `options` in the types that `function` declares for them.

    Raises:
        ConfigError: An option is unknown or has the wrong type.
    """
    from pydantic import TypeAdapter, ValidationError

    known = options_of(function)
    checked = {}
    for name, value in options.items():
        if name not in known:
            hint = nearest(name, known) if known else "there are no options"
            raise ConfigError(f"{key}.{name}: must be a known key; {hint}")
        try:
            checked[name] = TypeAdapter(known[name].annotation).validate_python(value)
        except ValidationError as error:
            rule = error.errors()[0]["msg"]
            raise ConfigError(f"{key}.{name}: {lower_first(rule)}, got {value!r}") from None
    return checked


def call(key: str, function: Callable[..., Part], options: Mapping[str, Any]) -> Part:
    """Call `function` with checked options; its own range errors become one sentence.

    Raises:
        ConfigError: An option is unknown, has the wrong type, or is out of range.
    """
    checked = check_options(key, function, options)
    try:
        return function(**checked)
    except ValueError as error:
        raise ConfigError(f"{key}.{error}") from None
    except TypeError as error:  # an option without a default
        raise ConfigError(f"{key}: {error}") from None


def _imported(key: str, path: str) -> Any:
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a user's module may raise anything
        raise ConfigError(
            f"{key}: must be an importable package.module:function, got '{path}' ({error})"
        ) from None


def lower_first(text: str) -> str:
    """Return `text` with a small first letter, to stand inside a sentence."""
    return text[:1].lower() + text[1:]
