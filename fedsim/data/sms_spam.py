"""SMS Spam: short messages of everyday life, and spam."""

from pathlib import Path

from fedsim.core.catalog import Entry
from fedsim.data.text_files import read_texts
from fedsim.data.types import Task, Texts


def sms_spam(
    root: Path,
    *,
    length: int = 32,
    vocabulary: int = 1024,
    tokeniser: str = "bpe",
    task: Task = "next",
) -> Texts:
    """5,160 distinct short messages, spam or not.

    Args:
        root: The folder of `sms_spam.tsv`.
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
        root / "sms_spam.tsv",
        ("split", "label", "text"),
        length=length,
        vocabulary=vocabulary,
        tokeniser=tokeniser,
        task=task,
    )


DATASET = Entry("sms-spam", sms_spam, paper="Almeida, Hidalgo, Yamakami, DocEng 2011")
