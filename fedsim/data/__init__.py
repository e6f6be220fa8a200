"""The data room: data sets by name, and what of them each party holds.

In: the config's `data` and `auxiliary`. Out: a `Dataset`, and its rows for every client and the
adversary (`Federated`).
"""

from fedsim.data.load import DATASETS, Federated, alone, federate, load
from fedsim.data.types import Attribute, Dataset

__all__ = ["DATASETS", "Attribute", "Dataset", "Federated", "alone", "federate", "load"]
