"""Whether somebody else's package is there."""

import importlib.util

from fedsim.core.errors import NotApplicable


def is_installed(package: str) -> bool:
    """Return whether a package can be imported; it is not imported."""
    return importlib.util.find_spec(package) is not None


def check_installed(package: str, install: str) -> None:
    """Refuse what needs a package that is not there.

    Raises:
        NotApplicable: It is not installed.
    """
    if not is_installed(package):
        raise NotApplicable(f"{package}: must be installed ({install}), got no such package")
