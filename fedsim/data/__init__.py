"""The data room: data sets by name, and which rows of them each party holds.

In: the config's `data` and `auxiliary`. Out: a `Dataset`, and its rows for every client and the
adversary (`Federated`). `registry.py` lists the modules; each set's own file holds its record.
"""

from fedsim.data.federated import Federated, alone, federate
from fedsim.data.load import load
from fedsim.data.registry import DATASETS
from fedsim.data.types import Attribute, Dataset, Number, Texts

__all__ = [
    "DATASETS",
    "Attribute",
    "Dataset",
    "Federated",
    "Number",
    "Texts",
    "alone",
    "federate",
    "load",
]
