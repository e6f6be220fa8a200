"""The records of a room's files by name; a file is imported when its record is needed."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, TypeVar

Part = TypeVar("Part")


class Records(Mapping[str, Part]):
    """The records in a package's modules by name, in the order of the list.

    A name is looked up in the modules whose names it begins with, then in all: `eb-gls-rounds`
    imports `eb_gls_rounds` alone, and a walk over the names imports every module.

    Args:
        package: The package of the modules.
        modules: Names of modules in it, each with one record or several.
        attribute: The record's name in the module, as `ATTACK`; a module with several has a tuple
            of them under the plural, `ATTACKS`.

    Raises:
        ValueError: Two records have the same name; at the first walk over the names.
    """

    def __init__(self, package: str, modules: Sequence[str], attribute: str) -> None:
        self._package, self._modules, self._attribute = package, tuple(modules), attribute

    def __getitem__(self, name: str) -> Part:
        text = name.replace("-", "_")
        likely = [module for module in self._modules if text.startswith(module)]
        for module in sorted(likely, key=len, reverse=True):
            for record in self._records_of(module):
                if record.name == name:
                    return record
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @cached_property
    def _all(self) -> dict[str, Part]:
        records: dict[str, Part] = {}
        for record in chain.from_iterable(map(self._records_of, self._modules)):
            if record.name in records:
                raise ValueError(f"{self._package}: names must differ, got '{record.name}' twice")
            records[record.name] = record
        return records

    def _records_of(self, module: str) -> tuple[Any, ...]:
        names = vars(importlib.import_module(f"{self._package}.{module}"))
        if self._attribute in names:
            return (names[self._attribute],)
        return names[f"{self._attribute}S"]


class Joined(Mapping[str, Part]):
    """Several mappings as one; of a name that two have, the first one's part."""

    def __init__(self, *mappings: Mapping[str, Part]) -> None:
        self._mappings = mappings

    def __getitem__(self, name: str) -> Part:
        for mapping in self._mappings:
            if name in mapping:
                return mapping[name]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(chain.from_iterable(self._mappings)))

    def __len__(self) -> int:
        return len(set(self))
