"""What attacks answered in a round, in one file, by `attack/client`."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fedsim.core.errors import BadRecording
from fedsim.core.files import TensorFile, save_tensors

UNCERTAINTY = "uncertainty"  # behind an answer's name: of each entry, as the attack says it
UNDETERMINED = "undetermined"  # behind an answer's name: shares of entries that no gradient holds


def read_guesses(path: Path, round_: int) -> Mapping[str, Tensor]:
    """Return every answer of a round, and what stands behind their names.

    Raises:
        BadRecording: The file is missing, damaged, or another round's.
    """
    file = TensorFile(path)
    if (got := file.metadata.get("round")) != str(round_):
        raise BadRecording(f"{path}: must be of round {round_}, got {got}")
    return file


def write_guesses(path: Path, round_: int, guesses: Mapping[str, Tensor]) -> None:
    """Write the answers of a round."""
    save_tensors(path, guesses, {"round": round_})


def add_guesses(path: Path, round_: int, guesses: Mapping[str, Tensor]) -> None:
    """Add answers to those of a round; one that is renewed loses what stood behind its name."""
    before = dict(read_guesses(path, round_)) if path.exists() else {}
    for name in guesses:
        before.pop(f"{name}/{UNDETERMINED}", None)
        before.pop(f"{name}/{UNCERTAINTY}", None)
    write_guesses(path, round_, {**before, **guesses})
