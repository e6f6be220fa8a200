"""Named parts: the built-in ones, those of installed packages, and `package.module:function`.

A config chooses attacks, defenses, games, strategies, data sets and models by name. Each part has
a file with its record, and each room lists the names of these files. `fedsim.core.records` reads
them; this module adds the entry points of packages, and it checks the options of a part.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from fedsim.core.boundary import boundary, is_sentence, raised
from fedsim.core.errors import ConfigError, FedsimError, nearest
from fedsim.core.records import Joined

Part = TypeVar("Part")
_imports: ContextVar[bool] = ContextVar("imports", default=True)
_searched: list[str] = []  # the folder of the user's own modules


@dataclass(frozen=True)
class Entry:
    """A function that a config chooses by name: what makes a defense, a data set or a model.

    Attributes:
        name: As in the config.
        make: The function; its options are keyword-only arguments.
        paper: Authors and year of its source; empty without.
    """

    name: str
    make: Callable[..., Any]
    paper: str = ""

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        text = (self.make.__doc__ or "").strip()
        return text.splitlines()[0] if text else ""


def find_entry(key: str, name: str, builtin: Mapping[str, Entry], kind: str) -> Entry:
    """Return the entry called `name`; a function that a user or a package brings becomes one.

    Raises:
        ConfigError: As `find`, or its entry point cannot be imported.
    """
    return _as_entry(name, find(key, name, with_extensions(builtin, kind)))


def entries(builtin: Mapping[str, Entry], kind: str) -> dict[str, Entry]:
    """Return the built-in entries and those that packages offer.

    Raises:
        ConfigError: An entry point cannot be imported.
    """
    return {name: _as_entry(name, part) for name, part in with_extensions(builtin, kind).items()}


def _as_entry(name: str, part: Any) -> Entry:
    return part if isinstance(part, Entry) else Entry(name, part)


def with_extensions(builtin: Mapping[str, Part], kind: str) -> Mapping[str, Part]:
    """Return the built-in parts and those that packages offer as `fedsim.<kind>` entry points.

    A built-in part keeps its name. An entry point is imported when its part is needed, so that a
    package that cannot be imported stops no run without it.
    """
    return Joined(builtin, _Extensions(offered(f"fedsim.{kind}", tuple(sys.path))))


class _Extensions(Mapping[str, Any]):
    """What entry points name, by name.

    Raises:
        ConfigError: An entry point cannot be imported; when its part is needed.
    """

    def __init__(self, points: Iterable[EntryPoint]) -> None:
        self._paths = {point.name: point.value for point in points}

    def __getitem__(self, name: str) -> Any:
        return _imported(f"entry point {name}", self._paths[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


@lru_cache
def offered(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:  # noqa: ARG001
    """Return the entry points of a group; the files of all packages are read once per `path`."""
    return tuple(entry_points(group=group))


@contextmanager
def nothing_imported() -> Iterator[None]:
    """Let `find` refuse every `package.module:attribute` inside the block."""
    token = _imports.set(False)
    try:
        yield
    finally:
        _imports.reset(token)


def search_in(folder: Path) -> None:
    """Let the user's own modules lie in a folder, too.

    It is on no path before one is named: a file there that is called like a library is not imported
    in its place, and what calls itself an installed package there offers no parts.
    """
    _searched[:] = [str(folder)]


@contextmanager
def _searched_first() -> Iterator[None]:
    """Search the user's folder first inside the block, and last from then on."""
    sys.path[:0] = _searched
    try:
        yield
    finally:
        for folder in _searched:
            sys.path.remove(folder)
        sys.path += [folder for folder in _searched if folder not in sys.path]


def find(key: str, name: str, parts: Mapping[str, Part]) -> Part:
    """Return the part called `name`, or import the user's own `package.module:attribute`.

    Raises:
        ConfigError: There is none; the sentence names the nearest. Or nothing is to be imported.
    """
    if name in parts:
        return parts[name]
    if ":" in name and not _imports.get():
        raise ConfigError(f"{key}: must be fedsim's own here, got '{name}'")
    if ":" in name:
        with _searched_first():
            return _imported(key, name)
    raise ConfigError(f"{key}: must be a known name, got '{name}'; {nearest(name, parts)}")


def options_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return a part's options: its keyword-only parameters.

    Raises:
        ConfigError: It is no function.
    """
    try:
        parameters = inspect.signature(function, eval_str=True).parameters
    except Exception:  # a user's object may have a signature of its own
        raise ConfigError(f"name: must be a function or a class, got {function!r}") from None
    return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def check_options(
    key: str,
    function: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    beside: Iterable[str] = (),
) -> dict[str, Any]:
    """Return `options` in the types that `function` declares for them.

    Args:
        key: Of the table that holds them.
        function: Their part's.
        options: By name.
        beside: Keys of the same table that are no options: one may have been meant.

    Raises:
        ConfigError: An option is unknown or has the wrong type.
    """
    declared = options_of(function)
    checked = {}
    for name, value in options.items():
        if name not in declared:
            keys = {*declared, *beside}
            hint = nearest(name, keys) if keys else "there are no options"
            raise ConfigError(f"{key}.{name}: must be a known key; {hint}")
        checked[name] = _converted(f"{key}.{name}", declared[name].annotation, value)
    return checked


def _converted(key: str, annotation: Any, value: Any) -> Any:
    """Return an option in its declared type; as it is where the type is none or not known.

    Raises:
        ConfigError: It has another type. A number stays the same number.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        adapter = TypeAdapter(annotation)
    except Exception:  # of a user's function: no annotation, or a type that checks nothing
        return value
    try:
        converted = adapter.validate_python(value)
    except ValidationError as error:
        rule = error.errors()[0]["msg"]
        raise ConfigError(f"{key}: {lower_first(rule)}, got {value!r}") from None
    number = isinstance(converted, int | float)
    if number and (converted != value or isinstance(converted, bool) != isinstance(value, bool)):
        raise ConfigError(f"{key}: must be a {type(converted).__name__}, got {value!r}")
    return converted


def call(key: str, function: Callable[..., Part], options: Mapping[str, Any]) -> Part:
    """Call `function` with checked options; whatever it raises becomes one sentence.

    Raises:
        ConfigError: An option is unknown, has the wrong type, or is out of range.
    """
    checked = check_options(key, function, options)
    try:
        inspect.signature(function).bind(**checked)
    except TypeError as error:  # an option without a default
        raise ConfigError(f"{key}: {error}") from None
    with boundary(key, "must be built from its options"):
        try:
            return function(**checked)
        except ValueError as error:
            if not is_sentence(error):
                raise
            raise ConfigError(f"{key}.{error}") from None


def _imported(key: str, path: str) -> Any:
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (FedsimError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a user's module may raise anything, and end the process
        raise ConfigError(
            f"{key}: must be an importable package.module:function, got '{path}' ({raised(error)})"
        ) from error


def lower_first(text: str) -> str:
    """Return `text` with a small first letter, to stand inside a sentence."""
    return text[:1].lower() + text[1:]
