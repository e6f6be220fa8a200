"""Private parts of another library that one feature needs: named in one place, looked up in use."""

import importlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from fedsim.core.errors import FedsimError


class MissingPiece(FedsimError):
    """The installed version of a library has no longer what a feature needs."""

    code = 2


@dataclass(frozen=True)
class Pieces:
    """What a feature takes from the private parts of a library.

    A private part may go with any release. Nothing is imported before it is asked for, so that
    only this feature is off then.

    Attributes:
        library: Name of the distribution.
        feature: What cannot be done without them, as the message names it.
        paths: Short name → `package.module:attribute`.
    """

    library: str
    feature: str
    paths: Mapping[str, str]

    def get(self, name: str) -> Any:
        """Return one piece.

        Raises:
            MissingPiece: The installed version has none.
        """
        module, _, attribute = self.paths[name].partition(":")
        try:
            return attrgetter(attribute)(importlib.import_module(module))
        except (ImportError, AttributeError):
            raise MissingPiece(self.without(self.paths[name])) from None

    def module(self, name: str) -> Any:
        """Return the module of one piece, to put another in its place there.

        Raises:
            MissingPiece: There is no such piece to replace.
        """
        self.get(name)
        return importlib.import_module(self.paths[name].partition(":")[0])

    def check(self) -> None:
        """Look every piece up.

        Raises:
            MissingPiece: The installed version lacks one.
        """
        for name in self.paths:
            self.get(name)

    def without(self, piece: str) -> str:
        """Return the one sentence about a missing piece."""
        version = importlib.metadata.version(self.library)
        return f"{self.library}: must have {piece} for {self.feature}, got {version} without it"
