"""Positions: one text in order, from the gradients of the token and the position embedding.

J. Lu, X. S. Zhang, T. Zhao, X. He, J. Cheng, "APRIL: Finding the Achilles' heel on privacy for
vision transformers", CVPR 2022, reads one image from its position embedding; the form for text is
fedsim's own.

Idea: of one text, the gradient of a token's row is the sum of those of the positions where it
stands. With no more positions than dimensions that is a linear system with one solution: the text.
Who knows the defense learns from rehearsed clients how rows of tokens and positions then match, and
takes the text that this and the model sent make likeliest (`adversary.text.ordered`).
*Server must know*: the model, and how special tokens are coded.
*Exact when*: the client has one text, positions are learned, and the head is not tied to the
embedding; over any number of local steps of SGD, with momentum or FedProx. A remark says where the
solution is not of whole numbers: the answer is then the likeliest token at each position.
*Differs from the paper*: it solves for ids instead of inputs, and needs no attention layer.
"""

import warnings

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.text.ordered import POSITION_TABLE, better_order
from adversary.text.positions import Order, order
from adversary.text.reading import TOKEN_TABLE, moved_rows
from adversary.text.tables import find_tables, table
from adversary.workspace import Workspace, undefended, workspace
from fedsim.core.errors import NotApplicable, Remark
from fedsim.core.types import Auxiliary, Observation, View

CERTAIN = 0.05  # largest distance to whole numbers, and part that is not explained


def positions(
    view: View,
    auxiliary: Auxiliary,
    generator: Generator,  # noqa: ARG001
) -> list[Tensor]:
    """Return one text: the token at each position.

    Args:
        view: One client's observations; the latest is attacked.
        auxiliary: With the vocabulary; the model's current weights mean nothing.
        generator: Not used.

    Returns:
        A list of one tensor of ids; empty where no row moved.

    Raises:
        ValueError: The client told of several texts, or a table is missing, frozen or tied.
    """
    latest, work = view.latest, workspace(view, auxiliary)
    count = latest.update.num_examples
    if count is not None and count != 1:
        raise NotApplicable(f"num_examples: must be 1 text to read its order, got {count}")
    if auxiliary.defense is not None:
        better = better_order(latest, work, _ids)
        if better is not None:
            return [better]
        work = work.derived(undefended)
    solved = _solved(latest, work)
    if solved is None:
        return []
    if max(solved.distance, solved.residual) > CERTAIN:
        warnings.warn(
            f"positions: not certified: entries are up to {solved.distance:.2g} from whole numbers"
            f" and {solved.residual:.2g} of the rows is not explained",
            Remark,
            stacklevel=2,
        )
    return [solved.ids]


def _ids(latest: Observation, work: Workspace) -> Int[Tensor, " length"]:
    """Return the text of who knows of no defense."""
    solved = _solved(latest, work)
    return torch.zeros(0, dtype=torch.int64) if solved is None else solved.ids


def _solved(latest: Observation, work: Workspace) -> Order | None:
    """Return the order; None where no row moved."""
    rows, tables = moved_rows(latest, work), find_tables(work)
    delta = latest.update.delta
    places = table(delta, tables.positions, POSITION_TABLE)
    used = rows.rows_of(places, table(latest.sent, tables.positions, POSITION_TABLE))
    ids = rows.rows.nonzero().squeeze(1)
    if not len(ids) or not used.any():
        return None
    return order(ids, table(delta, tables.tokens, TOKEN_TABLE)[ids], places[used])


ATTACK = Attack(
    name="positions",
    family="text",
    on_device=True,
    infer=positions,
    needs=("vocabulary",),
    summary="one text in order, in closed form, from the embeddings' gradients",
    rehearses=True,
)
