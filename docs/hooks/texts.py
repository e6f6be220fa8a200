"""Small pieces of Markdown."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells may hold line breaks and bars."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def cell(text: str) -> str:
    """Return text that stands in one cell."""
    return " ".join(text.split()).replace("|", "\\|")


def code(text: object) -> str:
    """Return text in the type of code; nothing for nothing."""
    return f"`{text}`" if str(text) else ""


def docstring(text: str) -> str:
    """Return a docstring's paragraphs, with stars that are no emphasis kept as stars."""
    blocks = text.split("`")
    return "`".join(
        block if inside % 2 else block.replace("*", "\\*") for inside, block in enumerate(blocks)
    )
