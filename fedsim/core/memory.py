"""Results that are computed once and shared, in an object that somebody owns and passes on."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Self, TypeVar

Result = TypeVar("Result")


class Memory:
    """Results, by what made them and of what; the last few of each kind. No failure is kept.

    Used as a context, it forgets everything at the end.

    Attributes:
        run: One that lives longer: a round's knows its run's. Itself where there is no other.
    """

    def __init__(self, run: "Memory | None" = None) -> None:
        self.run = self if run is None else run
        self._results: dict[object, OrderedDict[Hashable, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._results.clear()

    def get(
        self, kind: object, key: Hashable, compute: Callable[[], Result], *, keep: int = 32
    ) -> Result:
        """Return a result, computed where it is not there.

        Args:
            kind: What computes it.
            key: Of what. Objects without a value of their own (`eq=False`) stand for themselves,
                and are kept alive.
            compute: Gives the result.
            keep: How many results of this kind stay; the one that was not used for longest goes.
        """
        results = self._results.setdefault(kind, OrderedDict())
        if key not in results:
            results[key] = compute()
            if len(results) > keep:
                results.popitem(last=False)
        results.move_to_end(key)
        return results[key]
