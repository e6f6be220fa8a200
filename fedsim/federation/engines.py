"""Engines: where clients run. All stand behind one Grid; `inline` and `ray` give the same bits."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from fedsim.config import Engine
from fedsim.core.machine import check_cores, freed_memory_kept
from fedsim.federation.grid import Execute
from fedsim.federation.inline import inline


@dataclass(frozen=True)
class Started:
    """An engine that was started.

    Attributes:
        execute: Runs clients.
        alone: Why clients of the latest round did not train together, with how many.
    """

    execute: Execute
    alone: Callable[[], Mapping[str, int]] = dict


@contextmanager
def start(engine: Engine) -> Iterator[Started]:
    """Start the engine that a config names, and stop what was started.

    Raises:
        ConfigError: There are more workers or attackers than this machine has cores.
        RunStopped: Ray cannot start or be reached.
    """
    if engine.address is None:
        check_cores("engine.attackers", engine.attackers)
    if engine.name == "inline":
        with freed_memory_kept():
            yield Started(inline)
    elif engine.name == "batched":
        from fedsim.federation.batched import Batched

        assert engine.batch is not None
        batched = Batched(engine.batch)
        with freed_memory_kept():
            yield Started(batched, lambda: dict(batched.alone))
    else:
        from fedsim.federation.ray import ray_actors

        alone = Counter[str]()
        with ray_actors(engine, alone) as execute:
            yield Started(execute, lambda: dict(alone))
