"""The tokens of a text: which bytes each id stands for."""

from collections.abc import Iterable
from dataclasses import dataclass

from fedsim.core.form import PAD

BOS, EOS = 1, 2


@dataclass(frozen=True)
class Vocabulary:
    """Which bytes each token id stands for; the special tokens stand for none.

    Attributes:
        pieces: Id → bytes. A piece may be a part of a letter.
        pad: Fills up a text on its right.
        bos: Stands before each text.
        eos: Stands after each text.
        unknown: Stands for a word that is not in the vocabulary; None where every text has a code.
    """

    pieces: tuple[bytes, ...]
    pad: int = PAD
    bos: int = BOS
    eos: int = EOS
    unknown: int | None = None

    @property
    def special(self) -> tuple[int, ...]:
        """The ids that stand for no word: pad, begin and end."""
        return self.pad, self.bos, self.eos

    def __len__(self) -> int:
        """Return the number of ids, the special ones included."""
        return len(self.pieces)

    def text(self, ids: Iterable[int]) -> str:
        """Return what ids say: invalid UTF-8 becomes U+FFFD, ids that are none are left out."""
        joined = b"".join(self.pieces[i] for i in map(int, ids) if 0 <= i < len(self.pieces))
        return joined.decode("utf-8", "replace")
