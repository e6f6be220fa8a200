"""What is computed once per global model and used for every client of the round."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Identity:
    """Stands for one object, whatever it holds; keeps it alive, so that no other takes its id."""

    it: Any

    def __hash__(self) -> int:
        return id(self.it)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.it is other.it


def once(size: int = 4) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Remember a function's last `size` results, by the identity of its positional arguments.

    Nothing that was passed to such a function may be changed afterwards. Keyword arguments are
    compared by value.
    """

    def wrap(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @lru_cache(maxsize=size)
        def remembered(*keys: Identity, **options: Any) -> Result:
            return function(*(key.it for key in keys), **options)  # type: ignore[arg-type]

        @wraps(function)
        def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            return remembered(*map(Identity, args), **kwargs)

        return call

    return wrap
