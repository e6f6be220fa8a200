"""Attacks of other programs on fedsim's recordings; these programs are imported in use.

In: a view, as for every attack. Out: a guess. `breaching:…` needs the package breaching, and
`leakpro:…` LeakPro; an attack whose package is absent is refused.
"""

from adversary.adapters import breaching, leakpro
from adversary.adapters.package import is_installed
from adversary.attack import Attack
from fedsim.core.errors import ConfigError, nearest

ADAPTERS: dict[str, Attack] = {
    attack.name: attack for attack in (*breaching.ATTACKS, *leakpro.ATTACKS)
}
"""By the name in a config."""
INSTALL = {breaching.PACKAGE: breaching.INSTALL, leakpro.PACKAGE: leakpro.INSTALL}


def check_adapter(key: str, name: str) -> None:
    """Refuse an attack of another program that does not exist, or whose package is absent.

    Args:
        key: The setting that names it.
        name: Of any attack.

    Raises:
        ConfigError: As above.
    """
    package = name.partition(":")[0]
    if ":" not in name or package not in INSTALL:
        return
    if name not in ADAPTERS:
        raise ConfigError(f"{key}: must be a known name, got '{name}'; {nearest(name, ADAPTERS)}")
    if not is_installed(package):
        raise ConfigError(
            f"{key}: '{name}' needs {package}, which must be installed ({INSTALL[package]}), got "
            "no such package"
        )
