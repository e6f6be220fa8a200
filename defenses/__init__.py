"""The defense room: what a client does to its update before upload, or while it trains.

In: an update, or a batch and the model. Out: what is uploaded instead, and what that promises.
`registry.py` lists the modules; each defense's own file holds its record `DEFENSE`.
"""

from defenses.chain import chain
from defenses.clip import clip
from defenses.defense import Defense, Marked, defend
from defenses.dp_sgd import dp_sgd
from defenses.fit import check_fit
from defenses.freeze import freeze
from defenses.gaussian import gaussian
from defenses.laplace import laplace
from defenses.mixup import mixup
from defenses.perturb import perturb
from defenses.promise import Promise
from defenses.prune import prune
from defenses.quantise import quantise
from defenses.registry import DEFENSES, build, links
from defenses.sign import sign
from defenses.soteria import soteria
from defenses.sparsify import sparsify
from defenses.vib import vib

__all__ = [
    "DEFENSES",
    "Defense",
    "Marked",
    "Promise",
    "build",
    "chain",
    "check_fit",
    "clip",
    "defend",
    "dp_sgd",
    "freeze",
    "gaussian",
    "laplace",
    "links",
    "mixup",
    "perturb",
    "prune",
    "quantise",
    "sign",
    "soteria",
    "sparsify",
    "vib",
]
