"""Options that travel together: a command takes them as one value, its help page one by one."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any


def with_options(group: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of a dataclass.

    Args:
        group: The dataclass. A field's annotation is its option's; its default is the option's. The
            command has one keyword-only parameter that is annotated with it; the options take its
            place.

    Returns:
        A decorator of commands.
    """

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        names = [field.name for field in fields(group)]
        options = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=field.type,
            )
            for field in fields(group)
        ]
        before = list(signature.parameters.values())
        [place] = [i for i, parameter in enumerate(before) if parameter.annotation is group]
        parameters = [*before[:place], *options, *before[place + 1 :]]

        @functools.wraps(command)
        def call(*arguments: Any, **given: Any) -> None:
            values = group(**{name: given.pop(name) for name in names})
            command(*arguments, **given, **{before[place].name: values})

        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {each.name: each.annotation for each in parameters}
        return call

    return decorated
