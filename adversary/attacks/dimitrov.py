"""Label restoration for FedAvg, by interpolation between the start and the end model.

D. I. Dimitrov, M. Balunović, N. Konstantinov, M. Vechev, "Data Leakage in Federated Averaging",
TMLR 2022; after its official code, github eth-sri/fedavg_leakage, `restore_labels`.

Idea: the counts of Geng et al., n_i = N·p̄_i − g_i/Ō, hold for one model, and a client's T local
steps pass through T of them. Step j sees statistics p̄ and Ō that lie j/T of the way from those of
the model sent to those of the model uploaded; the T counts that follow are averaged.

*Server must know*: the weights sent and the update, the number of examples, learning rate, batch
size and epochs; auxiliary inputs are used where there are any.
*Exact when*: as Geng et al. (one feature sum, predictions equal for all inputs), and both move on a
straight line during local training.
*Differs from the paper*: the statistics come from auxiliary data where there are any, else from
uniform noise (there always from 3,000 normal-noise images); they are linear in j, as in the code,
so that T steps cost two model evaluations. Counts are rounded once, to N over all epochs, not
to those of one epoch. A gradient is one step at the model sent.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.attacks.geng import Statistics, ends, restore, restore_all
from adversary.labels.reading import steps_per_client
from adversary.workspace import workspace
from fedsim.core.types import Auxiliary, Observation, View


def dimitrov(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Int[Tensor, " classes"]:
    """Return label counts, averaged over all local steps.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture and the number of classes; inputs are used, labels are not.
        generator: Not used: the answer is deterministic.

    Raises:
        ValueError: The model has no linear head, or gradient or uploaded model are not finite.
    """
    latest, work = view.latest, workspace(view, auxiliary)
    statistics = ends(latest, work, noise=auxiliary.inputs is None)
    return restore(latest, work, *_averaged(latest, *statistics))


def dimitrov_all(views: Sequence[View], auxiliary: Auxiliary) -> Int[Tensor, "n classes"]:
    """Return the attack's answer to each view; arguments as for `dimitrov`.

    Raises:
        ValueError: It may have none to one of them.
    """
    return restore_all(views, auxiliary, noise=auxiliary.inputs is None, between=_averaged)


def _averaged(latest: Observation, start: Statistics, end: Statistics) -> Statistics:
    """Return p̄, and 1/Ō, averaged over local steps."""
    (p, o), (p_end, o_end) = start, end
    steps = steps_per_client(latest)
    way = torch.arange(steps, dtype=torch.float64) / steps
    sums = o + way * (o_end - o)
    per_o = torch.where(sums == 0, 0.0, 1 / sums)
    return p + way.mean() * (p_end - p), float(per_o.mean())


ATTACKS = (
    Attack(
        name="dimitrov",
        family="label",
        infer=dimitrov,
        infer_all=dimitrov_all,
        reads="head",
        summary="ZLG, interpolated over several local steps",
    ),
)
