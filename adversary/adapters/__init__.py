"""Attacks of other programs on fedsim's recordings; these programs are imported in use.

In: a view, as for every attack. Out: a guess. `breaching:…` needs the package breaching, and
`leakpro:…` LeakPro; an attack whose package is absent is refused.
"""

import importlib

from adversary.adapters.package import is_installed
from adversary.attack import Attack
from fedsim.core.errors import ConfigError, nearest
from fedsim.core.records import Records

MODULES = ("breaching", "leakpro")  # each called like its package
ADAPTERS = Records[Attack]("adversary.adapters", MODULES, "ATTACK")
"""By the name in a config."""


def check_adapter(key: str, name: str) -> None:
    """Refuse an attack of another program that does not exist, or whose package is absent.

    Args:
        key: The setting that names it.
        name: Of any attack.

    Raises:
        ConfigError: As above.
    """
    package = name.partition(":")[0]
    if ":" not in name or package not in MODULES:
        return
    if name not in ADAPTERS:
        raise ConfigError(f"{key}: must be a known name, got '{name}'; {nearest(name, ADAPTERS)}")
    if not is_installed(package):
        install = importlib.import_module(f"adversary.adapters.{package}").INSTALL
        raise ConfigError(
            f"{key}: '{name}' needs {package}, which must be installed ({install}), got no such "
            "package"
        )
