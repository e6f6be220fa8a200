"""A Flower app's source code, read without running it: what it calls, and which classes it has."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FILES = 500  # of an app, at most
BYTES = 2**20  # of a file; a larger one is left out


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call in the source.

    Attributes:
        name: What is called, by where it was imported from: `flwr.serverapp.strategy.FedAvg`.
        path: The file, from the app's folder.
        line: Its first line.
        target: The variable that it is assigned to; None without.
        values: Keyword → constant or source text.
        arguments: The positional ones, as source text.
        owner: What stands before the last dot, as source text; empty without.
    """

    name: str
    path: str
    line: int
    target: str | None
    values: Mapping[str, object]
    arguments: tuple[str, ...]
    owner: str = ""

    @property
    def last(self) -> str:
        """The name without where it is from."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class Class:
    """One class in the source: its full name and those of its bases."""

    name: str
    bases: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """What an app's files say.

    Attributes:
        files: Those that were read, from the app's folder.
        unread: Those that were not, and why.
        imports: Top-level packages that are imported.
        calls: In the files' order.
        classes: By their full names.
    """

    files: tuple[str, ...]
    unread: tuple[str, ...]
    imports: frozenset[str]
    calls: tuple[Call, ...]
    classes: Mapping[str, Class]

    def called(self, *prefixes: str) -> list[Call]:
        """Return the calls of what begins with a prefix."""
        return [call for call in self.calls if call.name.startswith(prefixes)]

    def descends(self, name: str, prefixes: tuple[str, ...]) -> bool:
        """Return whether a class is, or descends from, one whose name begins with a prefix."""
        return any(it.startswith(prefixes) for it in self.ancestors(name))

    def ancestors(self, name: str) -> set[str]:
        """Return a class's name and those of all that it descends from."""
        names, left = set(), [name]
        while left:
            name = left.pop()
            if name not in names and name in self.classes:
                left += self.classes[name].bases
            names.add(name)
        return names


def read_code(folder: Path, modules: Sequence[str]) -> Code:
    """Read the files of the top-level packages that modules are in.

    Args:
        folder: Of the app.
        modules: As `package.module`.
    """
    paths = sorted(set(_files(folder, modules)))
    files: list[str] = []
    imports: set[str] = set()
    calls: list[Call] = []
    classes: dict[str, Class] = {}
    unread = [str(path.relative_to(folder)) for path in paths[FILES:]]
    for path in paths[:FILES]:
        place = str(path.relative_to(folder))
        try:
            if not path.is_file():  # a pipe would never end
                raise ValueError("no regular file")
            if path.stat().st_size > BYTES:
                raise ValueError(f"larger than {BYTES} bytes")
            file = _File(place, ast.parse(path.read_bytes()))
            file_calls, file_classes = list(file.calls()), {it.name: it for it in file.classes()}
        except (OSError, SyntaxError, ValueError, RecursionError) as error:
            unread.append(f"{place} ({error})")
            continue
        files.append(place)
        imports |= file.imports
        calls += file_calls
        classes |= file_classes
    return Code(
        files=tuple(files),
        unread=tuple(unread),
        imports=frozenset(imports),
        calls=tuple(calls),
        classes=classes,
    )


def _files(folder: Path, modules: Sequence[str]) -> Iterator[Path]:
    for module in modules:
        package = folder / module.partition(".")[0]
        yield from package.rglob("*.py") if package.is_dir() else folder.glob("*.py")


class _File:
    """One parsed file, and what its names mean."""

    def __init__(self, path: str, tree: ast.Module) -> None:
        self.path, self.tree = path, tree
        self.module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self.package = (
            self.module if path.endswith("__init__.py") else self.module.rpartition(".")[0]
        )
        self.names: dict[str, str] = {}
        self.imports: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self._import(node)
            elif isinstance(node, ast.ImportFrom):
                self._import_from(node)

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            top = alias.name.partition(".")[0]
            self.imports.add(top)
            self.names[alias.asname or top] = alias.name if alias.asname else top

    def _import_from(self, node: ast.ImportFrom) -> None:
        origin = node.module or ""
        if node.level:
            parts = self.package.split(".")
            origin = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [origin])])
        else:
            self.imports.add(origin.partition(".")[0])
        for alias in node.names:
            self.names[alias.asname or alias.name] = f"{origin}.{alias.name}"

    def name_of(self, node: ast.expr) -> str:
        """Return where a name or an attribute is from; "" for anything else."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, f"{self.module}.{node.id}")
        if isinstance(node, ast.Attribute):
            owner = self.name_of(node.value)
            return f"{owner}.{node.attr}" if owner else node.attr
        return ""

    def classes(self) -> Iterator[Class]:
        """Return the classes of the file."""
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef):
                yield Class(f"{self.module}.{node.name}", tuple(map(self.name_of, node.bases)))

    def calls(self) -> Iterator[Call]:
        """Return the calls of the file."""
        targets = {
            id(node.value): node.targets[0].id
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and (name := self.name_of(node.func)):
                yield Call(
                    name=name,
                    path=self.path,
                    line=node.lineno,
                    target=targets.get(id(node)),
                    values={it.arg: _value(it.value) for it in node.keywords if it.arg},
                    arguments=tuple(map(ast.unparse, node.args)),
                    owner=ast.unparse(node.func.value)
                    if isinstance(node.func, ast.Attribute)
                    else "",
                )


def _value(node: ast.expr) -> object:
    return node.value if isinstance(node, ast.Constant) else ast.unparse(node)
