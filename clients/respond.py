"""What a client does with a train message: train, defend, upload. Flower is not in it.

A `Task` holds all that the answer depends on, and a `Response` all that comes of it: nothing is
read from disk, written, or remembered in between. The Flower shell around it is
`fedsim.federation.client_app`.
"""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Int
from torch import Tensor

from clients import carried
from clients.fidelity import fidelity
from clients.operator import Refused
from clients.task import Examples, Ready, Response, Task
from clients.train import train
from defenses import Defense, defend
from defenses.promise import Relation
from fedsim.core.blocks import Block
from fedsim.core.errors import one_line
from fedsim.core.form import IGNORED
from fedsim.core.params import cast_like, mismatch, subtract
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import LocalTraining, Params
from fedsim.models import changed

COINS = "coins"  # of a client's canaries, in its ground truth
NO_COINS = torch.zeros(0, dtype=torch.bool)


def respond(task: Task) -> Response:
    """Train on a client's examples, and defend what is uploaded.

    Equal tasks give equal responses, but for the coins of an operator who sets no seed.

    Raises:
        Refused: The weights sent are not of the run's model. Or the operator does not let the run
            have an upload: a privacy budget is spent, or the client has no data in this run.
    """
    ready = begin(task)
    if ready.relation is carried.UPDATE:
        trained, used = _canary_update(task, ready.coins), ready.examples.labels.new_zeros(0)
    else:
        trained, used = _trained(task, ready.examples, ready.local, task.site.defense)
        _check_still(task, trained)
    return finish(ready, trained, used)


def begin(task: Task, *, fits: bool = False) -> Ready:
    """Accept a task.

    Args:
        task: The task.
        fits: Whether the weights sent are those of a task of this site that was accepted.

    Raises:
        Refused: As `respond`.
    """
    if not fits and (reason := mismatch(task.sent, task.site.state)):
        raise Refused(f"weights sent: must be of the run's model, got {reason}")
    local = task.site.local(task.proximal_mu)
    relation, coins = _canary(task)
    examples = _examples(task, relation, coins)
    return Ready(
        task=task,
        local=local,
        relation=relation,
        coins=coins,
        examples=examples,
        memory=_spent(task, local, examples.count),
    )


def finish(
    ready: Ready, trained: Params, used: Int[Tensor, " uses"], truth: Params | None = None
) -> Response:
    """Defend what is uploaded.

    Args:
        ready: The task.
        trained: The state after training; of a gradient upload, with the gradient in it.
        used: Place of every example used, one entry per use.
        truth: What `truths_of` gives for it, if that was called.

    Raises:
        ValueError: The update is not finite, or a defense gives something else than an update.
    """
    task, local, relation = ready.task, ready.local, ready.relation
    config, coins, examples = task.site.config, ready.coins, ready.examples
    upload, memory, update = _defended(task, trained, ready.memory)
    cost: dict[str, float] = {}
    if not task.with_truth:
        truth = {}
    else:
        truth = _truth(task, examples, used) if truth is None else truth
        if relation:
            truth = {**truth, COINS: coins.to(torch.uint8)}
        if config.defense and relation is not carried.UPDATE:
            cost = _cost(task, examples, local, trained, update)
    return Response(
        upload=upload,
        num_examples=_num_examples(task, local, examples.count, used.shape[0], relation),
        memory=memory,
        coins=coins if relation else None,
        truth=truth,
        fidelity=cost,
    )


def _canary(task: Task) -> tuple[Relation | None, Tensor]:
    """Return what this client carries in an audited run, and its coins: the same in every round."""
    config, defense, operator = task.site.config, task.site.defense, task.operator
    relation = None
    if operator.consents:
        relation = carried.relation_of(config.audit, defense, task.client)
    if relation is None:
        return None, NO_COINS
    if task.coins is not None:
        return relation, task.coins.bool()
    count = carried.num_coins(config.audit, defense, task.client)
    return relation, carried.tossed(count, operator.coins(config.seed, "canary coin", task.client))


def _examples(task: Task, relation: Relation | None, coins: Tensor) -> Examples:
    """Return what the client trains on."""
    dataset, rows = task.site.federated.dataset, task.site.rows(task.client)
    canaries, batches = None, task.site.defense.batches
    if relation is carried.RECORD:
        form, seed = dataset.form, task.site.config.seed
        canaries = carried.records(form, len(coins), seed, task.client)
        batches = carried.without_absent(batches, torch.cat([coins.new_ones(len(rows)), coins]))
    return Examples(dataset=dataset, rows=rows, canaries=canaries, batches=batches)


def _spent(task: Task, local: LocalTraining, num_examples: int) -> dict[str, Tensor]:
    """Return what the client's defenses remember, this round counted.

    Raises:
        Refused: A privacy budget is spent.
    """
    defense, memory = task.site.defense, task.memory
    if memory is None:
        memory = defense.init({name: task.sent[name] for name in task.site.trainable})
    try:
        return defense.spend(memory, local, num_examples)
    except ValueError as error:
        raise Refused(one_line(error)) from None


def _canary_update(task: Task, coins: Tensor) -> dict[str, Tensor]:
    """Return the canary that goes through the defenses in place of a trained state."""
    return carried.uploaded(
        cast_like(task.sent, task.site.model.state_dict()),
        task.site.trainable,
        task.site.config,
        client=task.client,
        round_=task.round,
        coin=bool(coins),
    )


def _trained(
    task: Task, examples: Examples, local: LocalTraining, defense: Defense | None
) -> tuple[dict[str, Tensor], Tensor]:
    """Train with a defense, or without defense and canaries.

    Returns:
        What to defend and upload, and the place of every example used, one entry per use.
    """
    seed, names = task.site.config.seed, task.stream
    order = generator(seed, *names)
    if defense and (defense.gradient is not None or defense.batches is not None):
        # These coins hide what the order of the batches does not.
        order = task.operator.coins(seed, *names)
    count = examples.count if defense else len(examples.rows)
    still = task.site.reused is not None
    draws = nullcontext() if still else global_stream(seed, *names, "dropout")
    with draws:
        return train(
            task.site.working_model(),
            task.sent,
            examples.inputs[:count],
            examples.labels[:count],
            local,
            generator=order,
            gradient=defense and defense.gradient,
            batches=examples.batches if defense else None,
        )


def _check_still(task: Task, trained: Params) -> None:
    """Refuse to upload state that moved where an ε is claimed and the plan expects none to move.

    Raises:
        Refused: Some did.
    """
    state = cast_like(task.sent, trained)
    expected = {*task.site.trainable, *task.site.moved}
    others = [name for name in trained if name not in expected]
    if task.site.defense.promise.formal and (moved := changed(state, trained, others)):
        raise Refused(
            "upload: must hold no state that training moved by itself under a defense that claims "
            f"an ε, got {moved[0]}"
        )


def _defended(
    task: Task, trained: Params, memory: dict[str, Tensor]
) -> tuple[Params, dict[str, Tensor], dict[str, Tensor]]:
    """Return the upload, what the defenses remember after it, and the defended update in it."""
    config = task.site.config
    if not config.defense:
        return trained, {}, {}
    return defend(
        task.site.defense,
        trained,
        task.sent,
        task.site.trainable,
        memory,
        generator=task.operator.coins(config.seed, "defense", task.client, task.round),
        upload=task.site.local(0.0).upload,
    )


def _truth(task: Task, examples: Examples, used: Tensor) -> dict[str, Tensor]:
    """Return the labels (of a language model, the target tokens) and rows used.

    Rows of a folder of the client's own mean nothing here.
    """
    places = used.new_zeros(0) if task.site.own_data else used
    if examples.canaries is not None:
        places = places[places < len(examples.rows)]
    rows, labels = examples.rows[places], examples.labels[used]
    return {"labels": labels if labels.ndim == 1 else labels[labels != IGNORED], "indices": rows}


def truths_of(clients: Sequence[Ready], used: Sequence[Int[Tensor, " _"]]) -> list[Params]:
    """Return the ground truth of clients of one site; rows of a block where their sizes are equal.

    Args:
        clients: Their tasks, without canaries.
        used: For each the place of every example used.
    """
    site = clients[0].task.site
    sizes = {places.shape[0] for places in used}
    if site.own_data or site.federated.dataset.y.ndim > 1 or len(sizes) > 1:
        pairs = zip(clients, used, strict=True)
        return [_truth(client.task, client.examples, places) for client, places in pairs]
    rows = [client.examples.rows for client in clients]
    begins = torch.tensor([0, *map(len, rows[:-1])]).cumsum(0)
    indices = torch.cat(rows)[torch.stack(list(used)) + begins.unsqueeze(1)]
    truth = {"labels": site.federated.dataset.y[indices], "indices": indices}
    block = Block({name: values[0] for name, values in truth.items()}, len(clients))
    for name, values in truth.items():
        block.stacked[name].copy_(values)
    return [block.row(place) for place in range(block.count)]


def _cost(
    task: Task,
    examples: Examples,
    local: LocalTraining,
    trained: Params,
    update: dict[str, Tensor],
) -> dict[str, float]:
    """Return how far the upload is from what the client would have uploaded undefended."""
    plain = trained
    if task.site.defense.gradient is not None:
        plain, _ = _trained(task, examples, local, None)
    return fidelity(update, _update(plain, task.sent, task.site.trainable, local))


def _update(
    trained: Params, sent: Params, names: tuple[str, ...], local: LocalTraining
) -> dict[str, Tensor]:
    parameters = {name: trained[name] for name in names}
    return parameters if local.upload == "gradient" else subtract(parameters, sent)


def _num_examples(
    task: Task, local: LocalTraining, size: int, used: int, relation: Relation | None
) -> int:
    """Return what an upload weighs.

    Weights weigh as much as the client; a gradient as much as its batch, or as the batch is
    expected to be if a defense keeps its size secret.
    """
    if local.upload == "weights":
        return size
    if relation or task.site.defense.batches is not None:
        return min(local.batch_size, size)
    return used
