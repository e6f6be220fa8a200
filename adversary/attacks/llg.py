"""LLG, LLG* and LLG+: label leakage from gradients.

A. Wainakh, F. Ventola, T. Müßig, J. Keim, C. Garcia Cordero, E. Zimmer, T. Grube, K. Kersting,
M. Mühlhäuser, "User-Level Label Leakage from Gradients in Federated Learning", PoPETs 2022(2);
after its official code, github tklab-tud/LLG, `Predictor.py`.

Idea: with non-negative features h the row sum g_i of the head's weight gradient can be negative
only if class i is in the batch (property 1), and g_i ≈ n_i·m + s_i with an impact m < 0 of one
label and an offset s_i ≥ 0 from the other classes (property 2). Classes with g_i < 0 get one label
each; the rest go one by one to the lowest g_i − s_i, each label raising its class by |m|.
LLG takes m from the negative g_i and s = 0; LLG* measures both on the model with dummy inputs,
LLG+ with auxiliary data.

*Server must know*: the update, the number of examples, and for uploaded weights the learning
rate, batch size and epochs; LLG* and LLG+ the weights sent, LLG+ labelled auxiliary data.
*Exact when*: there is one label, or all labels are of one class and the untrained model's
predictions are uniform (LLG); approximately for untrained models with non-negative features. LLG's
m shrinks to nothing as a batch becomes balanced, and with signed features (tanh) property 1 does
not hold.
*Differs from the paper and its code*: the loop is a closed form (`waterfill`); the most negative
classes come first where there are more of them than labels, so that the counts always add up (the
code's LLG and LLG* may name more); where m is not negative, the labels are spread evenly. m and s
are expectations over all auxiliary examples of a class, measured once per global model, not ten
random batches per victim; over T local steps s is T times that of one step and m, the impact of
one label, stays (the code divides m by T and leaves s, which is right for no T > 1).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.labels.counts import waterfill
from adversary.labels.head import (
    Forward,
    auxiliary_forward,
    forward,
    input_shape,
    noise_forward,
    read_head,
)
from adversary.labels.heads import HeadGradients, one_head, read_heads
from adversary.workspace import Workspace, workspace
from fedsim.core.types import Auxiliary, View

Scale = Literal["paper", "exact"]
Dummy = Literal["zeros", "ones", "noise"]


def llg(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
    *,
    scale: Scale = "paper",
) -> Int[Tensor, " classes"]:
    """Return label counts that add up to the number of labels used, from the update alone.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture and the number of classes.
        generator: Not used: the answer is deterministic.
        scale: Correction of the impact for the correct class's own probability: the paper's
            (1 + 1/C), or C/(C − 1), which is exact for a single-class batch of an untrained
            model. They differ by a factor 1 − 1/C²: 1 % at ten classes, 25 % at two.

    Raises:
        ValueError: The model has no linear head, or its gradient is not finite.
    """
    return _from_update(one_head(read_head(view.latest, workspace(view, auxiliary))), scale)[0]


def llg_all(
    views: Sequence[View], auxiliary: Auxiliary, *, scale: Scale = "paper"
) -> Int[Tensor, "n classes"]:
    """Return LLG's answer to each view; arguments as for `llg`.

    Raises:
        ValueError: It may have none to one of them.
    """
    return _from_update(read_heads(views, auxiliary), scale)


def _from_update(heads: HeadGradients, scale: Scale) -> Int[Tensor, "n classes"]:
    g = heads.row_sums
    return _extract(g, torch.zeros_like(g), impact(g, heads.total, scale), heads.total)


def llg_star(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
    *,
    scale: Scale = "paper",
    dummy: Dummy = "zeros",
) -> Int[Tensor, " classes"]:
    """Return label counts, with impact and offset measured on dummy inputs.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: The architecture and the number of classes.
        generator: Not used: the answer is deterministic.
        scale: As for `llg`.
        dummy: The inputs: all zeros, all ones (the paper's choice for CIFAR-100), or 500 images
            of uniform noise. Each is labelled with every class in turn.

    Raises:
        ValueError: The model has no linear head, or its gradient is not finite.
    """
    work = workspace(view, auxiliary)
    head = one_head(read_head(view.latest, work))
    return _measured(head, [work.part(_dummy_impact, dummy)], scale)[0]


def llg_star_all(
    views: Sequence[View], auxiliary: Auxiliary, *, scale: Scale = "paper", dummy: Dummy = "zeros"
) -> Int[Tensor, "n classes"]:
    """Return LLG*'s answer to each view; arguments as for `llg_star`.

    Raises:
        ValueError: It may have none to one of them.
    """
    heads = read_heads(views, auxiliary)
    parts = [workspace(view, auxiliary).part(_dummy_impact, dummy) for view in views]
    return _measured(heads, parts, scale)


def llg_plus(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
    *,
    scale: Scale = "paper",
) -> Int[Tensor, " classes"]:
    """Return label counts, with impact and offset measured on auxiliary data.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With inputs and labels.
        generator: Not used: the answer is deterministic.
        scale: As for `llg`.

    Raises:
        ValueError: The model has no linear head, or its gradient is not finite.
    """
    work = workspace(view, auxiliary)
    head = one_head(read_head(view.latest, work))
    return _measured(head, [work.part(_auxiliary_impact)], scale)[0]


def llg_plus_all(
    views: Sequence[View], auxiliary: Auxiliary, *, scale: Scale = "paper"
) -> Int[Tensor, "n classes"]:
    """Return LLG+'s answer to each view; arguments as for `llg_plus`.

    Raises:
        ValueError: It may have none to one of them.
    """
    heads = read_heads(views, auxiliary)
    parts = [workspace(view, auxiliary).part(_auxiliary_impact) for view in views]
    return _measured(heads, parts, scale)


def _measured(
    heads: HeadGradients, parts: Sequence[tuple[float, Tensor]], scale: Scale
) -> Int[Tensor, "n classes"]:
    """Return counts by the impact and the offset that belong to each head."""
    s = torch.stack([offset for _, offset in parts])
    m = torch.tensor([m for m, _ in parts], dtype=torch.float64)
    offsets = heads.total.unsqueeze(1) * s
    return _extract(heads.row_sums, offsets, m * correction(s.shape[1], scale), heads.total)


def impact(
    g: Float[Tensor, "n classes"], total: Int[Tensor, " n"], scale: Scale = "paper"
) -> Float[Tensor, " n"]:
    """Return LLG's m ≤ 0, how far one label moves its class: the negative sums per label."""
    return correction(g.shape[1], scale) * g.clamp(max=0).sum(dim=1) / total


def correction(classes: int, scale: Scale) -> float:
    """Return the factor on the impact: the paper's approximation, or the exact one."""
    return 1 + 1 / classes if scale == "paper" else classes / (classes - 1)


def _auxiliary_impact(work: Workspace) -> tuple[float, Tensor]:
    """Return the impact of one label and the offset by one label."""
    assert work.auxiliary.labels is not None
    return impact_and_offset(work.part(auxiliary_forward), work.auxiliary.labels)


def _dummy_impact(work: Workspace, dummy: Dummy) -> tuple[float, Tensor]:
    classes = work.auxiliary.num_classes
    if dummy == "noise" or work.auxiliary.vocabulary is not None:  # no text is all zeros or ones
        outputs = work.part(noise_forward)
    else:
        fill = torch.zeros if dummy == "zeros" else torch.ones
        outputs = forward(work, work.sent, fill(1, *input_shape(work.auxiliary)))
    # Every dummy once under every label.
    count = len(outputs.logits)
    repeated = Forward(
        outputs.features.repeat_interleave(classes, 0),
        outputs.logits.repeat_interleave(classes, 0),
    )
    return impact_and_offset(repeated, torch.arange(classes).repeat(count))


def impact_and_offset(
    outputs: Forward, labels: Int[Tensor, " n"]
) -> tuple[float, Float[Tensor, " classes"]]:
    """Return m, what one label adds to its own class's row sum, and s, what it adds to others'.

    Both are means over batches of one class: the (c, j) entry of `sums` is what an example of
    class c adds to g_j. Classes without an example are left out.
    """
    classes = outputs.logits.shape[1]
    sums = outputs.probabilities * outputs.sums.unsqueeze(1)
    sums[torch.arange(len(labels)), labels] -= outputs.sums
    per_class = torch.zeros(classes, classes, dtype=torch.float64).index_add_(0, labels, sums)
    counts = torch.bincount(labels, minlength=classes)
    per_class = per_class / counts.clamp(min=1).unsqueeze(1)
    covered = counts > 0
    impacts = per_class.diagonal()
    others = covered.sum() - covered.long()
    offset = (per_class.sum(dim=0) - impacts * covered) / others.clamp(min=1)
    return float(impacts[covered].mean()), offset


def _extract(
    g: Float[Tensor, "n classes"],
    s: Float[Tensor, "n classes"],
    m: Float[Tensor, " n"],
    total: Int[Tensor, " n"],
) -> Int[Tensor, "n classes"]:
    """Give one label to each class with negative g, and the rest by water-filling."""
    negative = g < 0
    num_negative = negative.sum(dim=1)
    first = torch.arange(g.shape[1]) < total.unsqueeze(1)
    lowest = torch.zeros_like(negative).scatter(1, g.sort(dim=1, stable=True).indices, first)
    present = torch.where((num_negative > total).unsqueeze(1), lowest, negative).long()
    left = (total - num_negative).clamp(min=0)
    return present + waterfill(g - s - m.float().unsqueeze(1) * present, -m, left)


ATTACKS = (
    Attack(
        name="llg",
        family="label",
        infer=llg,
        infer_all=llg_all,
        reads="head",
        summary="counts from the head gradient's row sums",
    ),
    Attack(
        name="llg-star",
        family="label",
        infer=llg_star,
        infer_all=llg_star_all,
        reads="head",
        summary="LLG*, calibrated on dummy inputs",
    ),
    Attack(
        name="llg-plus",
        family="label",
        infer=llg_plus,
        infer_all=llg_plus_all,
        needs=("inputs", "labels"),
        reads="head",
        summary="LLG+, calibrated on auxiliary data",
    ),
)
