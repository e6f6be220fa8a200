"""fedsim: a federated-learning simulator with a built-in adversary.

Nothing heavy is imported here, so that `fedsim --help` answers at once; the functions for a
notebook are in `fedsim.api`.
"""

__version__ = "0.2.0"  # the same as in pyproject.toml, which Flower reads as text

from fedsim.core.packages import shadowed as _shadowed

if _sentence := _shadowed():
    raise ImportError(_sentence)
