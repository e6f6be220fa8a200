"""What is recoverable from an update, in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from adversary.inversion.chain import passes, trains_weight
from adversary.inversion.identifiability import System
from adversary.inversion.jacobian import Spectrum

COARSE = 1e-5  # of the largest singular value: an edge above is that of float32


@dataclass(frozen=True)
class Verdict:
    """A verdict that promises nothing.

    Attributes:
        kind: "layer by layer", "jointly", "hidden" or "open".
        text: What is recoverable, in words.
        reasons: A sentence each.
    """

    kind: str
    text: str
    reasons: Sequence[str]


def judge(
    systems: Sequence[System],
    spectrum: Spectrum | None,
    *,
    stop: str | None,
    open_layer: str | None,
    chained: bool,
    unseen: Sequence[str],
    failure: str | None = None,
    first_rank: int | None = None,
) -> Verdict:
    """Return what is recoverable.

    Args:
        systems: One per convolution and linear layer.
        spectrum: Singular values of J; None if no direction was looked at.
        stop: Why a recursion cannot walk back through the model; None if it can.
        open_layer: The layer from whose gradient alone the input can be read, if any.
        chained: Whether the model is a chain of layers.
        unseen: What of an upload J does not show.
        failure: Why there is no J, if it cannot be computed.
        first_rank: Of J at the initial weights.
    """
    if open_layer is not None:
        reason = f"the input is the gradient of {open_layer}.weight over that of {open_layer}.bias"
        return Verdict("layer by layer", "recoverable layer by layer", [reason])
    lacking = [it for it in systems if it.deficiency] if chained else []
    reasons = [f"recursion stops at {stop}"] if stop else []
    reasons += [_lacks(it) for it in lacking]
    if not lacking and stop is None:
        return Verdict("layer by layer", "recoverable layer by layer", reasons)
    if spectrum is None:
        reasons += [f"not looked at: J, which cannot be computed ({failure})"] if failure else []
        return Verdict("open", "not layer by layer; joint recovery not tested", reasons)
    if first_rank is not None and first_rank < spectrum.rank:
        reasons += [
            f"at the initial weights {first_rank} of {spectrum.probed} directions change the "
            f"gradient, at others {spectrum.rank}"
        ]
    return _jointly(spectrum, reasons, unseen)


def _jointly(spectrum: Spectrum, reasons: Sequence[str], unseen: Sequence[str]) -> Verdict:
    """Return the verdict of J alone; "hidden" is what changes no trained parameter's gradient."""
    size, lost = spectrum.unknowns, spectrum.probed - spectrum.rank
    at_least = f"at least {spectrum.rank} of {size} directions recoverable jointly"
    if spectrum.underived is not None:
        what = at_least if lost else "not layer by layer; joint recovery not decided"
        return Verdict("open", what, [*reasons, f"not looked at: {spectrum.underived}"])
    if not lost and spectrum.probed == size:
        return Verdict("jointly", "recoverable jointly", reasons)
    if not lost:
        rest = f"{spectrum.probed} random directions all show; testing all {size} takes longer"
        return Verdict("open", at_least, [*reasons, rest])
    sentences = [f"not looked at: {it}" for it in unseen]
    if spectrum.hidden is None:
        sentences.insert(0, _undecided(spectrum, lost))
    if sentences:
        return Verdict("open", at_least, [*reasons, *sentences])
    # A random subspace of more dimensions meets all of J's rank.
    return Verdict("hidden", f"{size - spectrum.rank} of {size} directions hidden", reasons)


def _undecided(spectrum: Spectrum, lost: int) -> str:
    """Return why directions that J lacks may yet be in the gradient."""
    weak = (
        f"{lost} directions change the gradient by less than {spectrum.edge:.0e} of the strongest"
    )
    if spectrum.edge > COARSE:
        return f"{weak}; J of so many parameters is in float32: no direction is called hidden"
    return f"{weak}; a model of this size is not tested more finely"


def open_layer_of(model: nn.Module) -> str | None:
    """Return the first layer, where the input can be read from its gradient alone."""
    named = [(name, it) for name, it in model.named_modules() if not list(it.children())]
    for name, module in named:
        if isinstance(module, nn.Linear) and module.bias is not None:
            return name if trains_weight(module) else None
        if not isinstance(module, nn.Flatten) and not passes(module):
            return None
    return None


def _lacks(it: System) -> str:
    dead = f", {it.dead} of them under no window" if it.dead else ""
    note = f" ({it.note})" if it.note else ""
    return f"{it.name} alone leaves {it.deficiency} of {it.unknowns} numbers open{dead}{note}"
