"""Banking77: what customers ask a bank."""

from pathlib import Path

from fedsim.core.catalog import Entry
from fedsim.data.text_files import read_texts
from fedsim.data.types import Task, Texts


def banking77(
    root: Path,
    *,
    length: int = 32,
    vocabulary: int = 1024,
    tokeniser: str = "bpe",
    task: Task = "label",
) -> Texts:
    """13,071 distinct questions to a bank, 77 intents.

    Args:
        root: The folder of `banking77.tsv`.
        length: The most tokens of an input; longer texts are cut.
        vocabulary: The most token ids.
        tokeniser: "bpe" (byte pairs), "bytes", "words", or the `tokeniser.json` of a run. It is
            learned from the adversary's share alone.
        task: What is learned: the "next" token, or the "label".

    Raises:
        OSError: The file is missing.
        ValueError: It is another file.
    """
    return read_texts(
        root / "banking77.tsv",
        ("split", "label", "text"),
        length=length,
        vocabulary=vocabulary,
        tokeniser=tokeniser,
        task=task,
    )


DATASET = Entry("banking77", banking77, paper="Casanueva et al., 2020")
