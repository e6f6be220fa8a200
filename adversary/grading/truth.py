"""Ground truth, as the clients of a simulation wrote it beside the run; attacks never read it."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from fedsim.core.accepts import Rule
from fedsim.core.errors import BadRecording
from fedsim.core.files import TensorFile
from fedsim.core.ground_truth import Truth
from fedsim.core.groups import Group, GroupFile, groups_in
from fedsim.core.truths import own_path, shared_path

LABELS = Rule("recording", "labels of the truth", "must be numbers below the number of classes")
INDICES = Rule(
    "recording", "indices of the truth", "must be rows of the training set, no more than labels"
)
COINS = Rule("recording", "coins of the truth", "must be one list of zeros and ones")
OWNER = Rule("recording", "metadata of the truth", "must name no other round or client")
CHECKS = (LABELS, INDICES, COINS, OWNER)
LONGEST = 200  # bytes of a client's name that a file may have
MOST_CLASSES = 10**6  # where the number of classes is not at hand
MOST_ROWS = 2**40
_FORM, _OWNER = {"labels", "indices"}, {"round", "client"}


def read_truth(
    folder: Path, round_: int, client: str, *, classes: int = MOST_CLASSES, rows: int = MOST_ROWS
) -> Truth | None:
    """Return a client's truth of one round, or None where its operator keeps it.

    Args:
        folder: Of the truth.
        round_: Which round.
        client: Whose.
        classes: Number of classes.
        rows: Of the training set.

    Raises:
        BadRecording: The file is damaged, another's, or holds no labels of these classes.
    """
    tensors = _file(folder, round_, client)
    if tensors is None:
        return None
    if "labels" not in tensors:
        raise BadRecording(f"{tensors.path}: must hold labels, got none")
    labels = tensors["labels"]
    if not _are_whole(labels, classes):
        raise BadRecording(
            f"{tensors.path}: {LABELS.field} {LABELS.rule}, {classes}, got {_described(labels)}"
        )
    # Another app's clients need not have rows of a training set that the grader has too.
    indices = tensors["indices"] if "indices" in tensors else torch.zeros(0, dtype=torch.int64)
    if not _are_whole(indices, rows) or len(indices) > len(labels):
        raise BadRecording(
            f"{tensors.path}: {INDICES.field} {INDICES.rule}, got {_described(indices)} "
            f"with {len(labels)} labels"
        )
    return Truth(labels=labels.long(), indices=indices.long())


def read_truths(
    folder: Path,
    round_: int,
    clients: Sequence[str],
    *,
    classes: int = MOST_CLASSES,
    rows: int = MOST_ROWS,
) -> dict[str, Truth | None]:
    """Return what `read_truth` returns for each of some clients; arguments as there.

    Those whose truth stands in the one file of a simulation are checked together.

    Raises:
        BadRecording: As `read_truth`.
    """
    shared = shared_path(folder, round_)
    others = groups_in(shared) if shared.exists() else {}
    parts: dict[str, tuple[Tensor, Tensor]] = {}
    for client in clients:
        group = others.get(client)
        if group is not None and set(group.names) >= _FORM and not _OWNER & group.facts.keys():
            parts[client] = group["labels"], group["indices"]
    about = dict(others.metadata) if isinstance(others, GroupFile) else {}
    columns = list(zip(*parts.values(), strict=True))
    if about != {"round": str(round_)} or not all(map(_are_plain, columns, (classes, rows))):
        parts = {}
    truths = {client: Truth(labels=labels, indices=of) for client, (labels, of) in parts.items()}
    limits = {"classes": classes, "rows": rows}
    alike = {client for client, it in truths.items() if len(it.indices) <= len(it.labels)}
    return {
        client: truths[client] if client in alike else read_truth(folder, round_, client, **limits)
        for client in clients
    }


def _are_plain(columns: Sequence[Tensor], below: int) -> bool:
    """Return whether all are lists of whole numbers of 64 bits from 0 to below a limit."""
    if any(it.dtype != torch.int64 or it.ndim != 1 for it in columns):
        return False
    return _are_whole(torch.cat(list(columns)), below)


def read_coins(folder: Path, round_: int, client: str) -> Bool[Tensor, " m"] | None:
    """Return the coins of the canaries that a client carried in a round; None where it tells none.

    Raises:
        BadRecording: The file is damaged.
    """
    tensors = _file(folder, round_, client)
    if tensors is None or "coins" not in tensors:
        return None
    coins = tensors["coins"]
    if not _are_whole(coins, 2):
        raise BadRecording(f"{tensors.path}: {COINS.field} {COINS.rule}, got {_described(coins)}")
    return coins.bool()


def _file(folder: Path, round_: int, client: str) -> TensorFile | Group | None:
    """Return a client's truth, or None: in a file of its own, or with others of a simulation.

    A client whose name no file can have, such as a path's, has no file of its own.

    Raises:
        BadRecording: It is another round's or client's.
    """
    shared = shared_path(folder, round_)
    others = groups_in(shared) if shared.exists() else {}
    if client in others:
        file = others[client]
    elif _is_file_name(client) and (path := own_path(folder, round_, client)).exists():
        file = TensorFile(path)
    else:
        return None
    for key, value in (("round", str(round_)), ("client", client)):
        if (got := file.metadata.get(key, value)) != value:
            raise BadRecording(f"{file.path}: {OWNER.field} {OWNER.rule}, got {key} {got}")
    return file


def _is_file_name(client: str) -> bool:
    return Path(client).name == client and 0 < len(client.encode("utf-8", "replace")) <= LONGEST


def _are_whole(values: Tensor, below: int) -> bool:
    """Return whether values are a list of whole numbers from 0 to below a limit."""
    if values.ndim != 1 or values.is_floating_point() or values.is_complex():
        return False
    return not len(values) or (int(values.min()) >= 0 and int(values.max()) < below)


def _described(values: Tensor) -> str:
    """Return shape, type and range of values."""
    text = f"shape {tuple(values.shape)} of {values.dtype}"
    if values.ndim != 1 or values.is_complex() or not len(values):
        return text
    return f"{text} from {values.min().item():g} to {values.max().item():g}"


def joined(truths: Sequence[Truth]) -> Truth:
    """Return what was used in all of them: over rounds, or over the clients of a cohort."""
    if len(truths) == 1:
        return Truth(labels=truths[0].labels, indices=truths[0].indices)
    return Truth(
        labels=torch.cat([truth.labels for truth in truths]),
        indices=torch.cat([truth.indices for truth in truths]),
    )
