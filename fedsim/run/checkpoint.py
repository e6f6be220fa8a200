"""A finished round, as a run goes on after it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedsim.core.types import Params


@dataclass(frozen=True)
class Checkpoint:
    """All that the next round depends on.

    Attributes:
        round: The last finished round; 0 before the first.
        params: The global state to send next.
        strategy: The strategy's own memory: tensors, and where they belong.
        clients: What each client remembers, by name.
    """

    round: int
    params: Params
    strategy: tuple[Params, Mapping[str, Any]] = field(default=({}, {}))
    clients: Mapping[str, Params] = field(default_factory=dict)
