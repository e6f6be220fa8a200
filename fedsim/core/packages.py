"""fedsim's five packages, and files of other apps that stand before them on the path."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("fedsim", "strategies", "clients", "adversary", "defenses")


def shadowed() -> str | None:
    """Return in one sentence which package of fedsim's is hidden by another, or None.

    Nothing is imported.
    """
    for name in PACKAGES[1:]:
        try:
            spec = find_spec(name)
        except ValueError:  # somebody put a module without a spec in its place
            continue
        if spec is None or spec.origin is None:
            continue
        path = Path(spec.origin).resolve()
        if path.parent.parent != _home():
            return sentence(name, path)
    return None


def shadowing(folder: Path) -> Iterator[str]:
    """Return a sentence for each file in a folder that would hide a package of fedsim's."""
    for name in PACKAGES if folder.resolve() != _home() else ():
        for path in (folder / f"{name}.py", folder / name / "__init__.py"):
            if path.is_file():
                yield sentence(name, path)


def sentence(name: str, path: Path) -> str:
    """Return the sentence about one file."""
    return f"{name}: must be fedsim's own package, got {path}; rename that module"


def _home() -> Path:
    """Return the folder that holds fedsim's packages."""
    return Path(__file__).resolve().parents[2]
