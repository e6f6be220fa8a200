"""Where ground truth lies: in a file of each client's own, or of all clients of a simulation."""

from collections.abc import Mapping
from pathlib import Path

from fedsim.core.files import TensorFile, save_tensors
from fedsim.core.group_writer import Facts, save_groups
from fedsim.core.groups import groups_in
from fedsim.core.types import Params

SHARED = "clients.safetensors"


def own_path(folder: Path, round_: int, client: str) -> Path:
    """Return the file of a client that writes its own truth, on its own machine."""
    return Path(folder, f"{round_:04d}", f"{client}.safetensors")


def shared_path(folder: Path, round_: int) -> Path:
    """Return the file of a simulation's clients."""
    return Path(folder, f"{round_:04d}", SHARED)


def facts_of(folder: Path, round_: int) -> dict[str, Mapping[str, str]]:
    """Return what is said beside each client's truth of a round.

    Raises:
        BadRecording: A file is damaged.
    """
    shared = shared_path(folder, round_)
    others = groups_in(shared) if shared.exists() else {}
    facts: dict[str, Mapping[str, str]] = {client: it.facts for client, it in others.items()}
    for path in shared.parent.glob("[!.]*.safetensors"):
        if path != shared:
            facts[path.stem] = TensorFile(path).metadata
    return facts


def save_own(folder: Path, round_: int, client: str, truth: Params, facts: Facts) -> Path:
    """Write a client's truth into a file of its own, and return the file."""
    path = own_path(folder, round_, client)
    save_tensors(path, truth, {"round": round_, "client": client, **facts})
    return path


def save_shared(folder: Path, round_: int, truths: Mapping[str, tuple[Params, Facts]]) -> None:
    """Write the truths of a simulation's clients, beside those that are there of the round."""
    path = shared_path(folder, round_)
    before = groups_in(path) if path.exists() else {}
    kept = {client: (dict(group), group.facts) for client, group in before.items()}
    save_groups(path, {**kept, **truths}, {"round": round_})
