"""Byte-pair encoding: the merges that texts suggest, and their use."""

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

Pair = tuple[int, int]
FEWEST = 2  # how often a pair must stand in the texts to be merged

# Letters, digits and other signs apart, each with the space before it; joined, they are the text.
_PARTS = re.compile(r" ?[^\W\d_]+| ?\d+| ?(?:[^\w\s]|_)+|\s+(?!\S)|\s+")


def parts_of(text: str) -> list[str]:
    """Return the parts of a text within which bytes are merged; joined, they are the text."""
    return _PARTS.findall(text)


def learn(texts: Iterable[str], first: int, size: int) -> list[Pair]:
    """Return the pairs to merge, most frequent first; of two as frequent the one of smaller ids.

    Source: Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units",
    ACL 2016, algorithm 1; over bytes as in Radford et al. 2019.

    Args:
        texts: What merges are learned from.
        first: The id of byte 0; those of merged pairs follow on byte 255's.
        size: The most merges. There are fewer where no pair stands twice in the texts.
    """
    counts = Counter(part for text in texts for part in parts_of(text))
    words = [[first + byte for byte in part.encode()] for part in counts]
    table, merges = _Pairs(words, list(counts.values())), []
    while len(merges) < size and (best := table.most_frequent()) is not None:
        merges.append(best)
        table.merge(best, first + 255 + len(merges))
    return merges


class _Pairs:
    """How often each pair stands in words, and where.

    Args:
        words: Their ids; they are merged in place.
        times: How often each word stands in the texts.
    """

    def __init__(self, words: list[list[int]], times: list[int]) -> None:
        self.words, self.times = words, times
        self.counts: Counter[Pair] = Counter()
        self.places: defaultdict[Pair, set[int]] = defaultdict(set)
        for place in range(len(words)):
            self._count(place, times[place])
        self.queue = [(-count, pair) for pair, count in self.counts.items()]
        heapq.heapify(self.queue)

    def most_frequent(self) -> Pair | None:
        """Return the pair to merge next, or None where none is frequent enough."""
        while self.queue:
            count, pair = heapq.heappop(self.queue)
            if -count == self.counts[pair]:  # else a merge changed it, and it is queued again
                return pair if -count >= FEWEST else None
        return None

    def merge(self, best: Pair, new: int) -> None:
        """Make one new id of a pair in all words."""
        touched: set[Pair] = set()
        for place in self.places.pop(best):
            touched |= self._count(place, -self.times[place])
            self.words[place] = merged(self.words[place], best, new)
            touched |= self._count(place, self.times[place])
        for pair in touched:
            if self.counts[pair] > 0:
                heapq.heappush(self.queue, (-self.counts[pair], pair))

    def _count(self, place: int, times: int) -> set[Pair]:
        """Count the pairs of a word so many times more, and return them."""
        pairs = list(pairwise(self.words[place]))
        for pair in pairs:
            self.counts[pair] += times
            self.places[pair].add(place)
        return set(pairs)


def merged(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    """Return ids in which each occurrence of a pair, from the left, is one new id."""
    out: list[int] = []
    place = 0
    while place < len(ids):
        if place + 1 < len(ids) and (ids[place], ids[place + 1]) == pair:
            out.append(new)
            place += 2
        else:
            out.append(ids[place])
            place += 1
    return out


def encoded(part: str, first: int, ranks: Mapping[Pair, int]) -> list[int]:
    """Return the ids of a part of a text.

    Args:
        part: One of `parts_of`.
        first: The id of byte 0.
        ranks: Pair → its place among the merges.
    """
    ids = [first + byte for byte in part.encode()]
    while len(ids) > 1:
        pair = min(pairwise(ids), key=lambda it: ranks.get(it, len(ranks)))
        if pair not in ranks:
            break
        ids = merged(ids, pair, first + 256 + ranks[pair])
    return ids
