"""Tokenisers: what turns texts into token ids, learned from public texts alone."""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fedsim.core.errors import ConfigError
from fedsim.core.files import write_whole
from fedsim.core.paths import user_path
from fedsim.core.vocabulary import Vocabulary
from fedsim.data import bpe

KINDS = ("bpe", "bytes", "words")
BYTES = tuple(bytes([byte]) for byte in range(256))
SPECIAL = (b"", b"", b"")  # pad, begin, end
FIRST = len(SPECIAL)  # the id of byte 0, or of the unknown word
UNKNOWN = " \N{REPLACEMENT CHARACTER}".encode()
FILE = "tokeniser.json"  # in a run folder

_WORDS, _SIGN = re.compile(r"\w+|[^\w\s]"), re.compile(r"[^\w\s]")
LONGEST = 4096  # bytes of a token; merges of a file could double it without end


@dataclass(frozen=True)
class Tokeniser:
    """What turns texts into token ids.

    Attributes:
        kind: One of `KINDS`.
        vocabulary: What each id stands for.
        merges: Of `bpe`: the pairs of ids that are merged, in order.
    """

    kind: str
    vocabulary: Vocabulary
    merges: tuple[bpe.Pair, ...] = ()

    @cached_property
    def _parts(self) -> dict[str, list[int]]:
        """The ids of parts of texts that were encoded already."""
        return {}

    @cached_property
    def _ranks(self) -> Mapping[bpe.Pair, int]:
        return {pair: rank for rank, pair in enumerate(self.merges)}

    @cached_property
    def _words(self) -> Mapping[bytes, int]:
        return {piece: i for i, piece in enumerate(self.vocabulary.pieces)}

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens but that of unknown words."""
        if self.kind == "bytes":
            return [FIRST + byte for byte in text.encode()]
        if self.kind == "words":
            return [self._words.get(word, FIRST) for word in _words_of(text)]
        ids: list[int] = []
        for part in bpe.parts_of(text):
            if part not in self._parts:
                self._parts[part] = bpe.encoded(part, FIRST, self._ranks)
            ids += self._parts[part]
        return ids


def learn(kind: str, texts: Sequence[str], size: int) -> Tokeniser:
    """Return the tokeniser that texts suggest.

    Args:
        kind: One of `KINDS`.
        texts: Public ones; `bytes` needs none.
        size: The most token ids. There are fewer where the texts suggest no more.

    Raises:
        ConfigError: There is no text to learn from, or there are too few ids.
    """
    if kind == "bytes":
        return Tokeniser("bytes", Vocabulary((*SPECIAL, *BYTES)))
    if not texts:
        raise ConfigError(
            f"data.tokeniser: must be 'bytes' or a file where there are no auxiliary texts, "
            f"got '{kind}'; texts of clients would give their words away"
        )
    least = FIRST + (257 if kind == "bpe" else 2)
    if size < least:
        raise ConfigError(f"data.vocabulary: must be at least {least} with '{kind}', got {size}")
    if kind == "words":
        counts = Counter(word for text in texts for word in _words_of(text))
        frequent = sorted(counts, key=lambda word: (-counts[word], word))[: size - FIRST - 1]
        return Tokeniser(kind, Vocabulary((*SPECIAL, UNKNOWN, *frequent), unknown=FIRST))
    merges = bpe.learn(texts, FIRST, size - FIRST - 256)
    return Tokeniser(kind, Vocabulary(_pieces(merges)), tuple(merges))


def tokeniser_of(name: str, texts: Sequence[str], size: int) -> Tokeniser:
    """Return the tokeniser that a config names: one of a kind that is learned, or of a file.

    Args:
        name: One of `KINDS`, or the path of a run's `tokeniser.json`.
        texts: What it is learned from.
        size: The most token ids; a file has its own.

    Raises:
        ConfigError: It is neither, or cannot be learned.
    """
    if name in KINDS:
        return learn(name, texts, size)
    path = user_path("data.tokeniser", name)
    if not path.is_file():
        raise ConfigError(
            f"data.tokeniser: must be {', '.join(KINDS)} or a run's {FILE}, got '{name}'"
        )
    return read(path)


def write(tokeniser: Tokeniser, path: Path) -> None:
    """Write a tokeniser as JSON: its kind, its merges, and its words."""
    content: dict[str, Any] = {"kind": tokeniser.kind}
    if tokeniser.kind == "bpe":
        content["merges"] = [list(pair) for pair in tokeniser.merges]
    if tokeniser.kind == "words":
        pieces = tokeniser.vocabulary.pieces[FIRST + 1 :]
        content["words"] = [piece.decode() for piece in pieces]
    text = json.dumps(content, ensure_ascii=False)
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def read(path: Path) -> Tokeniser:
    """Return the tokeniser of a file.

    Raises:
        ConfigError: It holds none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return _READERS[content["kind"]](content)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"data.tokeniser: must be a {FILE} of a run, got {path} ({type(error).__name__}: "
            f"{error})"
        ) from None


def _of_merges(content: Mapping[str, Any]) -> Tokeniser:
    merges = [(int(left), int(right)) for left, right in content["merges"]]
    for place, pair in enumerate(merges):
        if not all(FIRST <= each < FIRST + 256 + place for each in pair):
            raise ValueError(f"merge {place} is of ids that do not exist")
    if len(set(merges)) < len(merges):
        raise ValueError("a merge stands twice")
    return Tokeniser("bpe", Vocabulary(_pieces(merges)), tuple(merges))


def _of_words(content: Mapping[str, Any]) -> Tokeniser:
    words = tuple(str(word).encode() for word in content["words"])
    if len(set(words)) < len(words) or b"" in words or UNKNOWN in words:
        raise ValueError("a word stands twice, or is none")
    return Tokeniser("words", Vocabulary((*SPECIAL, UNKNOWN, *words), unknown=FIRST))


_READERS: dict[str, Callable[[Mapping[str, Any]], Tokeniser]] = {
    "bytes": lambda _: learn("bytes", (), 0),
    "bpe": _of_merges,
    "words": _of_words,
}


def _pieces(merges: Sequence[bpe.Pair]) -> tuple[bytes, ...]:
    pieces = [*SPECIAL, *BYTES]
    for left, right in merges:
        pieces.append(pieces[left] + pieces[right])
        if len(pieces[-1]) > LONGEST:
            raise ValueError(f"a token has more than {LONGEST} bytes")
    return tuple(pieces)


def _words_of(text: str) -> list[bytes]:
    """Return the words of a text in lower case, each with a space before it, and its signs."""
    return [
        (part if _SIGN.match(part) else f" {part}").encode()
        for part in _WORDS.findall(text.lower())
    ]
