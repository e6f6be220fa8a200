"""How Ray's actors share the GPUs of a cluster.

In: what each machine has, how many actors there are to be. Out: how many there can be, and which
part of a GPU each takes. Ray shows an actor the GPU that it takes from alone: torch's first is it.
"""

from collections.abc import Mapping, Sequence

from fedsim.core.errors import RunStopped

STEPS = 10_000  # of a resource, as Ray counts


def gpu_places(
    nodes: Sequence[Mapping[str, float]], count: int, workers: int | None
) -> tuple[int, float]:
    """Return how many actors there are, and which part of a GPU each of them takes.

    The largest part with which all find a core and a GPU of one machine. Where Ray knows of no GPU
    none is asked for, and actors see what the machine shows them.

    Args:
        nodes: Resources of each machine.
        count: Actors that there are to be.
        workers: As the config says it; None for as many as there is room for.

    Raises:
        RunStopped: Machines with a GPU have fewer cores than `workers`.
    """
    able = [(int(it.get("CPU", 0)), int(it["GPU"])) for it in nodes if it.get("GPU", 0) >= 1]
    if not able:
        return count, 0.0
    cores = sum(cpus for cpus, _ in able)
    if workers is not None and workers > cores:
        raise RunStopped(
            f"engine.workers: must be at most the {cores} cores of machines with a GPU, "
            f"got {workers}"
        )
    count, sharing = min(count, cores), 1
    while sum(min(cpus, gpus * sharing) for cpus, gpus in able) < count:
        sharing += 1
    return count, STEPS // sharing / STEPS
