"""What there is to choose from, as `fedsim list` says it."""

from texts import code, table

from fedsim.cli.listing import describe

KINDS = ("datasets", "models", "strategies", "engines", "games")


def table_of(kind: str) -> str:
    """Return a table of one kind of parts."""
    rows = [(code(name), *split(line)) for name, line in describe(kind).items()]
    header = ("name", "what it is", "options")
    if not any(row[2] for row in rows):
        header, rows = header[:2], [row[:2] for row in rows]
    return table(header, rows)


def split(line: str) -> tuple[str, str]:
    """Return a line of `fedsim list` without its options, and these."""
    text, _, options = line.partition("  [")
    return text, ", ".join(code(name) for name in options.rstrip("]").split(", ") if name)
