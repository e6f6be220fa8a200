"""From what uploads look like to a guess of who is who."""

import hashlib
from collections.abc import Callable, Hashable

import torch
from jaxtyping import Float
from torch import Tensor

from adversary.carried import Carried, digest
from adversary.linkage.guess import packed
from adversary.linkage.sequences import sequences
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, View

DIGESTS = 2048  # of uploads, while a round is attacked

Describe = Callable[[View, Auxiliary], Tensor]
"""(view of one round, auxiliary) → a row of features per upload of its cohort."""
Compare = Callable[[Tensor], Tensor]
"""Features of n uploads → the score of every pair, shape (n, n), float64."""


def linked(
    view: View,
    auxiliary: Auxiliary,
    *,
    describe: Describe,
    compare: Compare,
    over_rounds: bool = False,
) -> Float[Tensor, "rows uploads"]:
    """Return a guess, as `adversary.linkage.guess` packs it.

    Args:
        view: Rounds without names.
        auxiliary: Of `describe`.
        describe: What is seen of an upload; computed once for a round.
        compare: How alike two are.
        over_rounds: Score an upload with an earlier one by its mean score with all earlier uploads
            of the same sequence.

    Raises:
        NotApplicable: There is no earlier round.
        ValueError: As `describe`.
    """
    if len(view.cohorts) < 2:
        raise NotApplicable("rounds: must be two or more, got 1")
    places = range(len(view.cohorts))
    rounds = [_described(view.until(place), auxiliary, describe) for place in places]
    sizes = [len(rows) for rows in rounds]
    scores = compare(torch.cat(rounds))
    earlier = len(scores) - sizes[-1]
    chains, means = sequences(scores, sizes)
    pairs = means[:, chains[:earlier]] if over_rounds else scores[earlier:, :earlier]
    return packed(pairs, chains)


def _described(view: View, auxiliary: Auxiliary, describe: Describe) -> Tensor:
    """Return the features of a round, kept for the rounds after it."""
    kept = view.memory.run.get(Carried, None, Carried)
    about = _described, describe, auxiliary
    name = view.cohort_names[-1] if view.cohort_names else _name(view)
    rounds, rows = kept.longest(about, [name], 1)
    if not rounds:
        rows = describe(view, auxiliary)
        kept.replace(None, (about, name), rows)
    return rows


def _name(view: View) -> Hashable:
    """Return a hash of a round's uploads, by reading them."""
    hashed = hashlib.blake2b(digest_size=16)
    for observation in view.cohort:
        delta = observation.update.delta
        compute = lambda delta=delta: digest(delta)
        hashed.update(view.memory.get(_name, observation, compute, keep=DIGESTS))
    return view.latest.update.round, hashed.digest()
