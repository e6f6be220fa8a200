"""Lists of numbers and texts in a sentence."""

from collections.abc import Sequence


def spans(numbers: Sequence[int]) -> str:
    """Return numbers in words, neighbours joined: `1–3, 5 and 9`."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    texts = [f"{part[0]}–{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts]
    return listed(texts)


def listed(texts: Sequence[str]) -> str:
    """Return texts as a list in a sentence."""
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))
