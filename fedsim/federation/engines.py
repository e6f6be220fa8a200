"""Engines: where clients run. Both stand behind one Grid, and give the same bits."""

from collections.abc import Iterator
from contextlib import contextmanager

from fedsim.config import Engine
from fedsim.core.machine import check_cores
from fedsim.federation.grid import Execute
from fedsim.federation.inline import inline


@contextmanager
def start(engine: Engine) -> Iterator[Execute]:
    """Start the engine that a config names, and stop what was started.

    Raises:
        ConfigError: There are more workers or attackers than this machine has cores.
        RunStopped: Ray cannot start or be reached.
    """
    if engine.address is None:
        check_cores("engine.attackers", engine.attackers)
    if engine.name == "inline":
        yield inline
    else:
        from fedsim.federation.ray import ray_actors

        with ray_actors(engine) as execute:
            yield execute
