"""Ground truth, as the clients of a simulation wrote it beside the run; attacks never read it."""

from pathlib import Path

from fedsim.errors import BadRecording
from fedsim.files import TensorFile
from fedsim.types import Truth


def read_truth(folder: Path, round_: int, client: str) -> Truth | None:
    """Return a client's truth of one round, or None where its operator keeps it.

    Raises:
        BadRecording: The file is damaged.
    """
    path = Path(folder, f"{round_:04d}", f"{client}.safetensors")
    if not path.exists():
        return None
    tensors = TensorFile(path)
    try:
        return Truth(labels=tensors["labels"], indices=tensors["indices"])
    except KeyError as missing:
        raise BadRecording(f"{path}: must hold labels and indices, got no {missing}") from None
