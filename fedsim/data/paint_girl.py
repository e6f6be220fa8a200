"""The lines of a play, by speaker."""

from pathlib import Path

from fedsim.core.catalog import Entry
from fedsim.data.text_files import read_texts
from fedsim.data.types import Task, Texts


def paint_girl(
    root: Path,
    *,
    length: int = 32,
    vocabulary: int = 1024,
    tokeniser: str = "bpe",
    task: Task = "next",
) -> Texts:
    """Lines of "The 'Mind the Paint' Girl", a play; column `user`, 18 speakers.

    Args:
        root: The folder of `paint_girl.tsv`.
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
        root / "paint_girl.tsv",
        ("split", "user", "text"),
        length=length,
        vocabulary=vocabulary,
        tokeniser=tokeniser,
        task=task,
    )


DATASET = Entry("paint-girl", paint_girl, paper="Pinero, 1912")
