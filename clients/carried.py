"""What clients carry so that the ε of their federation can be audited: random canaries.

A canary is public; only its fair coin is secret. The client draws the coin once for the whole run
and keeps it with its ground truth. If an ε hides a whole client, the client uploads a random
direction instead of its update, forwards or backwards by its coin. If an ε hides single examples,
random records stand beside the client's examples, each in its data or not by its coin. A record
keeps its place either way, so that no rate and no number of examples reveals the coin.

In every second round the direction is reversed: noise that is used again then cancels.
(`adversary/auditing/canaries.py` crafts worst-case canaries for one mechanism; no client carries
those.)
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int, Num
from torch import Generator, Tensor

from defenses import links
from defenses.defense import Batches, Defense
from defenses.promise import Promise, Relation
from fedsim.config import Config
from fedsim.config.audit import Audit
from fedsim.core.form import Form
from fedsim.core.params import add, random_direction
from fedsim.core.rng import generator
from fedsim.core.sgd import shuffled
from fedsim.core.types import LocalTraining, Params
from fedsim.core.vocabulary import BOS, EOS

UPDATE = Relation.REPLACE_CLIENT
RECORD = Relation.ADD_OR_REMOVE_EXAMPLE
LIT = 0.1  # share of the values of an image that are 1
REACH = 2.0  # a canary's norm in units of the bound on it, so that a missing clip shows


def promise_of(defense: Defense) -> Promise | None:
    """Return the promise that canaries are compared with; None if there is none about them."""
    promises = (defense.promise.about(relation) for relation in (UPDATE, RECORD))
    return next((promise for promise in promises if promise is not None), None)


def relation_of(audit: Audit, defense: Defense, client: str) -> Relation | None:
    """Return what a client carries in a run: `UPDATE`, `RECORD`, or None."""
    if not client.isdigit() or int(client) >= audit.clients:
        return None
    promise = promise_of(defense)
    return None if promise is None else promise.relation


def num_records(audit: Audit, defense: Defense, client: str) -> int:
    """Return how many canary records stand beside a client's examples, in its data or not."""
    return audit.records if relation_of(audit, defense, client) is RECORD else 0


def num_coins(audit: Audit, defense: Defense, client: str) -> int:
    """Return how many coins a client keeps."""
    return num_records(audit, defense, client) or 1


def tossed(count: int, coins: Generator) -> Bool[Tensor, " m"]:
    """Return fair coins."""
    return torch.rand(count, generator=coins) < 0.5


def reach(chained: Sequence[Defense]) -> float:
    """Return the norm of update canaries: beyond what the links before the noise let through.

    Infinite where they bound nothing.
    """
    bound = math.inf
    for link in chained:
        if link.noise and math.isfinite(bound):
            break
        bound = link.bound(bound)
    return REACH * bound


def direction(like: Params, seed: int, client: str) -> dict[str, Tensor]:
    """Return a client's public direction: random, of norm 1 over all tensors together."""
    return random_direction(like, generator(seed, "canary", client))


def turn(round_: int) -> int:
    """Return which way round directions are taken in a round: 1, and −1 in every second."""
    return 1 if round_ % 2 else -1


def records(
    form: Form, count: int, seed: int, client: str
) -> tuple[Num[Tensor, "m *shape"], Int[Tensor, "m *target"]]:
    """Return a client's public canary records: normal noise, for images sparse, and random labels.

    Of two images a tenth of whose values are 1 hardly any is 1 in both, so that their gradients
    point apart; those of grey noise are all alike. Texts are tokens drawn evenly.
    """
    stream, shape = generator(seed, "canary", client), form.shape
    if form.vocabulary is not None:
        ids = torch.randint(EOS + 1, form.vocabulary, (count, shape[0] + 1), generator=stream)
        ids[:, 0] = BOS
        if form.per_token:
            return ids[:, :-1], ids[:, 1:]
        inputs = ids[:, :-1]
    elif len(shape) == 3:
        inputs = (torch.rand(count, *shape, generator=stream) < LIT).float()
    else:
        inputs = torch.randn(count, *shape, generator=stream)
    return inputs, torch.randint(form.num_classes, (count,), generator=stream)


def without_absent(batches: Batches | None, present: Bool[Tensor, " n"]) -> Batches:
    """Return batches drawn over every place, from which absent records are taken out."""

    def drawn(count: int, local: LocalTraining, coins: Generator) -> list[Tensor]:
        steps = (batches or shuffled)(count, local, coins)
        return [batch[present[batch]] for batch in steps]

    return drawn


def uploaded(
    sent: Params, names: Sequence[str], config: Config, *, client: str, round_: int, coin: bool
) -> dict[str, Tensor]:
    """Return what a client puts through its defenses in place of a trained state.

    Args:
        sent: The state the server sent, buffers included, in the client's own types.
        names: Its trainable parameters.
        config: The run's, with the client's defenses.
        client: Whose direction.
        round_: The round.
        coin: Forwards, or backwards.
    """
    moved = {name: sent[name] for name in names}
    scale = reach(links(config.defense)) * turn(round_) * (1 if coin else -1)
    canary = {n: scale * v for n, v in direction(moved, config.seed, client).items()}
    weights = config.local_training().upload == "weights"
    return {**sent, **(add(moved, canary) if weights else canary)}
