"""ZLG and ZLG+: zero-shot label restoration from the mean probabilities and the mean feature sum.

J. Geng, Y. Mou, F. Li, Q. Li, O. Beyan, S. Decker, C. Rong, "Towards General Deep Leakage in
Federated Learning", 2021, arXiv 2110.09074. ZLG+ is the name that later comparisons give to it
with auxiliary data.

Idea: row i of the head's weight gradient sums to g_i = Σ_s (p_si − [y_s = i])·O_s, where O_s is the
sum of an example's features. With one Ō for all examples, n_i = N·p̄_i − g_i/Ō. Any inputs may show
the mean probabilities p̄ and Ō of a model: noise (ZLG), or auxiliary data (ZLG+).

*Server must know*: the weights sent and the update, the number of examples, and for uploaded
weights the learning rate, batch size and epochs; ZLG+ auxiliary inputs (no labels).
*Exact when*: all examples have the same feature sum, not 0, the model's predictions are the same
for all inputs (an untrained head), and all steps were taken at the weights sent.
*Differs from the paper*: 500 noise images, uniform in [0, 1] as pixels are, measured once per
global model; p̄ and Ō of several local steps are the means of the start and the end model; negative
counts become 0 and the rest is scaled and rounded to N; where Ō is 0, the gradient is passed over.
Label smoothing, not treated there, is taken out.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.labels.counts import round_counts, round_rows
from adversary.labels.head import auxiliary_forward, noise_forward, noise_inputs, read_head
from adversary.labels.heads import read_heads
from adversary.labels.reading import end_forward
from adversary.workspace import Workspace, workspace
from fedsim.core.types import Auxiliary, Observation, View

Statistics = tuple[Float[Tensor, " classes"], float]
"""(p̄, Ō): mean probabilities, and mean feature sum."""


def zlg(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Int[Tensor, " classes"]:
    """Return label counts, with the model's statistics on noise.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture and the number of classes.
        generator: Not used: the noise is the same for all clients of a round.

    Raises:
        ValueError: The model has no linear head, or gradient or uploaded model are not finite.
    """
    return _between(view.latest, workspace(view, auxiliary), noise=True)


def zlg_plus(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> Int[Tensor, " classes"]:
    """Return label counts, with the model's statistics on auxiliary data.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With inputs; their labels are not read.
        generator: Not used: the answer is deterministic.

    Raises:
        ValueError: The model has no linear head, or gradient or uploaded model are not finite.
    """
    return _between(view.latest, workspace(view, auxiliary), noise=False)


def _between(observation: Observation, work: Workspace, *, noise: bool) -> Int[Tensor, " classes"]:
    return restore(observation, work, *_middle(observation, *ends(observation, work, noise=noise)))


def _middle(
    observation: Observation,  # noqa: ARG001
    start: Statistics,
    end: Statistics,
) -> Statistics:
    """Return p̄, and 1/Ō, of the middle between two models."""
    (p, o), (p_end, o_end) = start, end
    return (p + p_end) / 2, inverse((o + o_end) / 2)


def zlg_all(views: Sequence[View], auxiliary: Auxiliary) -> Int[Tensor, "n classes"]:
    """Return ZLG's answer to each view; arguments as for `zlg`.

    Raises:
        ValueError: It may have none to one of them.
    """
    return restore_all(views, auxiliary, noise=True, between=_middle)


def zlg_plus_all(views: Sequence[View], auxiliary: Auxiliary) -> Int[Tensor, "n classes"]:
    """Return ZLG+'s answer to each view; arguments as for `zlg_plus`.

    Raises:
        ValueError: It may have none to one of them.
    """
    return restore_all(views, auxiliary, noise=False, between=_middle)


def ends(
    observation: Observation, work: Workspace, *, noise: bool
) -> tuple[Statistics, Statistics]:
    """Return the statistics of the model sent, and of the trained one if it took several steps."""
    start = work.part(noise_forward if noise else auxiliary_forward)
    inputs = work.lasting(noise_inputs) if noise else work.auxiliary.inputs
    end = end_forward(observation, work, inputs) or start
    first, last = ((x.probabilities.mean(dim=0), float(x.sums.mean())) for x in (start, end))
    return first, last


def inverse(o: float) -> float:
    """Return 1/Ō; 0 where Ō is, which passes the gradient over."""
    return 1 / o if o else 0.0


def restore(
    observation: Observation, work: Workspace, p: Float[Tensor, " classes"], per_o: float
) -> Int[Tensor, " classes"]:
    """Return n_i = N·p̄_i − g_i/Ō as whole numbers."""
    head = read_head(observation, work)
    # Smoothing ε puts the share ε/C of every label on class i, and 1 − ε on its own.
    spread = observation.local.label_smoothing / work.auxiliary.num_classes
    return round_counts(head.total * (p - spread) - head.row_sums * per_o, head.total)


def restore_all(
    views: Sequence[View],
    auxiliary: Auxiliary,
    *,
    noise: bool,
    between: Callable[[Observation, Statistics, Statistics], Statistics],
) -> Int[Tensor, "n classes"]:
    """Return what `restore` returns of each view.

    Args:
        views: Of one round.
        auxiliary: As for the attack.
        noise: Whether statistics are on noise.
        between: (observation, statistics of the model sent, of the trained one) → p̄ and 1/Ō.
    """
    heads = read_heads(views, auxiliary)
    latest = [(view.latest, workspace(view, auxiliary)) for view in views]
    values = [between(each, *ends(each, work, noise=noise)) for each, work in latest]
    p = torch.stack([p for p, _ in values])
    per_o = torch.tensor([per_o for _, per_o in values], dtype=torch.float64).unsqueeze(1)
    spread = views[0].latest.local.label_smoothing / auxiliary.num_classes
    total = heads.total.unsqueeze(1)
    return round_rows(total * (p - spread) - heads.row_sums * per_o, heads.total)


ATTACKS = (
    Attack(
        name="zlg",
        family="label",
        infer=zlg,
        infer_all=zlg_all,
        reads="head",
        summary="counts from mean probabilities on noise",
    ),
    Attack(
        name="zlg-plus",
        family="label",
        infer=zlg_plus,
        infer_all=zlg_plus_all,
        needs=("inputs",),
        reads="head",
        summary="ZLG+, mean probabilities on auxiliary data",
    ),
)
