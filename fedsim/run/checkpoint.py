"""A finished round, as a run goes on after it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedsim.core.errors import BadRecording
from fedsim.core.files import TensorFile, save_tensors
from fedsim.core.types import Params

ARITHMETIC = "engine"  # in a checkpoint: which engines give its bits, where not all do
PARAMS, STRATEGY, CLIENTS = "params.safetensors", "strategy.safetensors", "clients"


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


def write_checkpoint(folder: Path, checkpoint: Checkpoint, arithmetic: str) -> None:
    """Write a checkpoint.

    Args:
        folder: New folder.
        checkpoint: The round.
        arithmetic: Which engines give its bits; empty where all do.

    Raises:
        OSError: The disk is full.
    """
    tensors, description = checkpoint.strategy
    metadata = {ARITHMETIC: arithmetic} if arithmetic else {}
    save_tensors(folder / PARAMS, checkpoint.params, metadata)
    save_tensors(folder / STRATEGY, tensors, {"state": json.dumps(description)})
    for client, state in checkpoint.clients.items():
        save_tensors(client_file(folder, client), state, {})


def read_checkpoint(
    folder: Path, round_: int, clients: Mapping[str, Path], arithmetic: str
) -> Checkpoint:
    """Return the checkpoint of a finished round.

    Args:
        folder: Of the round.
        round_: Which.
        clients: The newest file of each client that remembers something.
        arithmetic: Of the engine that goes on.

    Raises:
        BadRecording: A file is missing or damaged, or the engine gives other bits than the one of
            the finished rounds.
    """
    strategy = TensorFile(folder / STRATEGY)
    states = {client: dict(TensorFile(path)) for client, path in clients.items()}
    try:
        description = json.loads(strategy.metadata["state"])
    except (KeyError, ValueError, RecursionError):
        raise BadRecording(f"{strategy.path}: must hold a strategy's state") from None
    params = TensorFile(folder / PARAMS)
    before, same = params.metadata.get(ARITHMETIC, ""), "'inline' or 'ray'"
    if arithmetic != before:
        raise BadRecording(
            f"{folder.parent.parent}: must go on in the engine of its finished rounds, "
            f"{before or same}, got {arithmetic or same}"
        )
    return Checkpoint(round_, dict(params), (dict(strategy), description), states)


def client_file(folder: Path, client: str) -> Path:
    """Return the file of what a client remembers, in the folder of a round."""
    return folder / CLIENTS / f"{client}.safetensors"
