"""Ground truth, as the clients of a simulation wrote it beside the run; attacks never read it."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from fedsim.core.errors import BadRecording
from fedsim.core.files import TensorFile
from fedsim.core.types import Truth


def read_truth(folder: Path, round_: int, client: str) -> Truth | None:
    """Return a client's truth of one round, or None where its operator keeps it.

    Raises:
        BadRecording: The file is damaged, or holds no labels.
    """
    path = Path(folder, f"{round_:04d}", f"{client}.safetensors")
    if not path.exists():
        return None
    tensors = TensorFile(path)
    if "labels" not in tensors:
        raise BadRecording(f"{path}: must hold labels, got none")
    labels = tensors["labels"]
    if labels.ndim != 1 or labels.is_floating_point() or (len(labels) and int(labels.min()) < 0):
        raise BadRecording(
            f"{path}: labels must be whole numbers from 0, one a use, "
            f"got shape {tuple(labels.shape)} of {labels.dtype}"
        )
    # Another app's clients need not have rows of a training set that the grader has too.
    indices = tensors["indices"] if "indices" in tensors else torch.zeros(0, dtype=torch.int64)
    return Truth(labels=labels.long(), indices=indices)


def read_coins(folder: Path, round_: int, client: str) -> Bool[Tensor, " m"] | None:
    """Return the coins of the canaries that a client carried in a round; None where it tells none.

    Raises:
        BadRecording: The file is damaged.
    """
    path = Path(folder, f"{round_:04d}", f"{client}.safetensors")
    if not path.exists():
        return None
    tensors = TensorFile(path)
    return tensors["coins"].bool() if "coins" in tensors else None


def joined(truths: Sequence[Truth]) -> Truth:
    """Return what was used in all of them: over rounds, or over the clients of a cohort."""
    return Truth(
        labels=torch.cat([truth.labels for truth in truths]),
        indices=torch.cat([truth.indices for truth in truths]),
    )
