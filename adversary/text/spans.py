"""Spans of layers' inputs, read off gradients in float64; their rank in closed form.

I. Petrov et al., "DAGER: exact gradient inversion for large language models", NeurIPS 2024. What
the rank of a batch is, where positions are learned, is our own count (`bipartite_rank`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

EDGE = 3e-8  # of the largest singular value: below lies float32 rounding of a gradient


@dataclass(frozen=True)
class Span:
    """The row space of a matrix.

    Attributes:
        basis: Right singular vectors, orthonormal rows, the strongest first.
        singular: Singular values.
    """

    basis: Float[Tensor, "rank width"]
    singular: Float[Tensor, " rank"]

    def cut(self, rank: int) -> "Span":
        """Return the span of the strongest directions."""
        return Span(self.basis[:rank], self.singular[:rank])


def span_of(rows: Float[Tensor, "rows width"]) -> Span:
    """Return the row space of a matrix, with all of its directions."""
    _, singular, basis = torch.linalg.svd(rows.double(), full_matrices=False)
    return Span(basis, singular)


def above_rounding(span: Span) -> int:
    """Return how many singular values are above float32 rounding of a gradient."""
    if not len(span.singular) or not float(span.singular[0]) > 0:
        return 0
    return int((span.singular > EDGE * span.singular[0]).sum())


def widest_gap(span: Span) -> tuple[int, float]:
    """Return the rank after which singular values fall most, and by which factor.

    What is below float32 rounding of the first counts as that rounding. A span without a gap has
    all of its directions, and a factor of 1.
    """
    if not above_rounding(span):
        return 0, 1.0
    relative = torch.cat([span.singular / span.singular[0], span.singular.new_zeros(1)])
    falls = relative[:-1].clamp_min(EDGE) / relative[1:].clamp_min(EDGE)
    place = int(falls.argmax())
    return place + 1, float(falls[place])


def residuals(
    vectors: Float[Tensor, "*n width"], basis: Float[Tensor, "rank width"]
) -> Float[Tensor, "*n"]:
    """Return ‖z − UᵀUz‖ / ‖z‖ for vectors z and orthonormal rows U; 1 where z is 0."""
    vectors = vectors.double()
    rest = vectors - (vectors @ basis.T) @ basis
    lengths = vectors.norm(dim=-1)
    return torch.where(lengths > 0, rest.norm(dim=-1) / lengths.clamp_min(1e-300), 1.0)


def bipartite_rank(pairs: Iterable[tuple[int, int]]) -> int:
    """Return the rank of the vectors E_v + P_i of (token, position) pairs, scaled in any way.

    #tokens + #positions − #components of the graph whose edges are the pairs. With LayerNorm and
    its bias at 0 it is the rank of a layer's inputs, at most the width less one.
    """
    return sum(len(tokens) + len(positions) - 1 for tokens, positions in components(pairs))


def components(pairs: Iterable[tuple[int, int]]) -> list[tuple[set[int], set[int]]]:
    """Return the tokens and the positions of each component of the graph of pairs.

    The span holds each token of a component at each of its positions, also where it did not stand.
    """
    graph: list[tuple[set[int], set[int]]] = []
    for token, position in pairs:
        joined, rest = ({token}, {position}), []
        for tokens, positions in graph:
            if token in tokens or position in positions:
                joined = (joined[0] | tokens, joined[1] | positions)
            else:
                rest.append((tokens, positions))
        graph = [*rest, joined]
    return graph
