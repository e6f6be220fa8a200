"""fedsim: a federated-learning simulator with a built-in adversary.

Nothing heavy is imported here, so that `fedsim --help` answers at once; the functions for a
notebook are in `fedsim.api`.
"""

__version__ = "0.2.0"  # the same as in pyproject.toml, which Flower reads as text
