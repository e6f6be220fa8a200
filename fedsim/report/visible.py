"""Texts that a page shows as they are."""

import unicodedata


def visible(text: str) -> str:
    """Return a text in which characters that are not seen stand as code points.

    Controls, line ends, and marks that change the direction of writing could make a page show
    another text than the one recovered.
    """
    return "".join(f"⟨U+{ord(c):04X}⟩" if _hidden(c) else c for c in text)


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
