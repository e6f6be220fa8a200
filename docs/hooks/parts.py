"""What there is to choose from, as `fedsim list` says it, and the audit methods."""

import sys

from texts import code, docstring, table

from adversary.auditing import METHODS
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


def audit_methods() -> str:
    """Return a table of the audit methods, from their records and modules."""
    rows = []
    for method in METHODS.values():
        places = ["`fedsim audit`"] * method.of_runs
        places += ["updates in a run"] * bool(method.of_updates)
        places += ["records in a run"] * bool(method.of_records)
        functions = (method.of_updates, method.of_records, method.of_features, method.of_sampled)
        function = next(filter(None, functions), None) or next(iter(method.tests.values()))
        title = (sys.modules[function.__module__].__doc__ or "").strip().splitlines()[0]
        rows.append((code(method.name), method.guarantee, ", ".join(places), docstring(title)))
    return table(("method", "guarantee", "audits", "what it is"), rows)
