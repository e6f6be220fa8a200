"""Which layers of a token model an update shows inputs of."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adversary.text.sites import Site, inputs_at, is_causal, sites_of
from adversary.workspace import Workspace, evaluating
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Params

PROBED = 4  # tokens of the text that layers are traced with


@dataclass(frozen=True)
class Layers:
    """The linear maps of a model, by what they take.

    Attributes:
        first: Those whose input at a position depends on the token and the position alone.
        causal: Those whose input depends on earlier tokens too, and on no later ones.
        length: The most tokens of a text.
    """

    first: Sequence[Site]
    causal: Sequence[Site]
    length: int

    def first_in(self, update: Params) -> Site:
        """Return the first layer's maps that an update holds.

        Raises:
            NotApplicable: It holds none.
        """
        held = [site for site in self.first if site.within(update)]
        if not held:
            raise NotApplicable(
                "model: must train linear maps of embedded tokens, got none in the update"
            )
        return held[0]


def layers_of(work: Workspace) -> Layers:
    """Return the layers of the model sent, found by calling it: a part of the workspace.

    Raises:
        NotApplicable: The model takes no token ids, or has no such layer.
    """
    auxiliary = work.auxiliary
    if auxiliary.vocabulary is None or auxiliary.input_shape is None:
        raise NotApplicable("inputs: must be token ids, got numbers")
    size, length = len(auxiliary.vocabulary), auxiliary.input_shape[0]
    if size < PROBED + 4 or length < 2:
        raise NotApplicable(f"model: must take texts of several tokens, got {length} of {size}")
    ids = torch.arange(size - PROBED, size)[None, :length]
    with evaluating(work, work.sent) as model:
        sites = sites_of(model, ids)
        first = [it for it in sites if _is_first(model, it, ids, size - PROBED - 1)]
        causal = [it for it in sites if is_causal(model, it, ids, size - PROBED - 1)]
    if not first:
        raise NotApplicable("model: must have linear maps that share an embedded input, got none")
    return Layers(first, causal, length)


def _is_first(model: nn.Module, site: Site, ids: Tensor, other: int) -> bool:
    """Return whether a site's input at a position depends on no other position's token."""
    reference = inputs_at(model, site, ids)
    edge = 1e-6 * float(reference.abs().max())
    for place in range(ids.shape[1]):
        changed = ids.clone()
        changed[:, place] = other
        moved = (inputs_at(model, site, changed) - reference).abs()
        moved[:, place] = 0
        if float(moved.max()) > edge:
            return False
    return True
