from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary.games import learner as learners
from adversary.games.evidence import Records
from adversary.games.game import Draws
from adversary.games.gradients import batch_gradients
from adversary.games.learner import Learner
from defenses import chain, clip, dp_sgd, freeze, gaussian, prune, sign
from fedsim.core.rehearsals import Rehearsals
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining
from tests.adversary.games.game_cases import census, learner
from tests.builders import norms, same_params

COUNT, BATCH = 5, 4
GRADIENT, WEIGHTS = LocalTraining(0.1, BATCH, upload="gradient"), LocalTraining(0.1, BATCH)


def batches(count=COUNT, batch=BATCH):
    pool = census("private")
    rows = torch.randint(len(pool.labels), (count, batch), generator=generator(0, "batches"))
    return pool.inputs[rows], pool.labels[rows]


def uploads(client, inputs, labels, *, coins="coins", defense=True):
    state = client.model.state_dict()
    return client.uploads(state, inputs, labels, coins=coins, defense=defense)


def trained(client, inputs, labels, steps):
    """Return a client's weights after steps of whole batches."""
    model = learner().model
    optimiser = torch.optim.SGD(model.parameters(), client.local.lr)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimiser.step()
    return model.state_dict()


def flat(params):
    return torch.cat([value.flatten() for value in params.values()])


def test_a_gradient_is_uploaded_as_it_is():
    client, (inputs, labels) = learner(local=GRADIENT), batches()
    expected = batch_gradients(client.model, client.model.state_dict(), inputs, labels)
    assert torch.equal(uploads(client, inputs, labels), expected)


@pytest.mark.parametrize("epochs", [1, 3])
def test_trained_weights_point_uphill_and_are_the_sum_of_the_gradients(epochs):
    client = learner(local=replace(WEIGHTS, epochs=epochs))
    inputs, labels = batches()
    before = client.model.state_dict()
    moved = torch.stack(
        [
            (flat(before) - flat(trained(client, x, y, epochs))) / 0.1
            for x, y in zip(inputs, labels, strict=True)
        ]
    )
    torch.testing.assert_close(uploads(client, inputs, labels), moved, rtol=1e-4, atol=1e-5)
    assert client.weight(BATCH) == pytest.approx(epochs / BATCH)
    assert client.weight(2) == pytest.approx(epochs / 2)  # of fewer records than a step takes
    assert client.weight(40) == pytest.approx(epochs / BATCH)  # of more, several steps
    assert learner(local=GRADIENT).weight(40) == 1 / 40


@pytest.mark.parametrize("local", [GRADIENT, WEIGHTS])
@pytest.mark.parametrize(
    "defense",
    [clip(bound=0.3), gaussian(std=0.1), sign(), prune(rate=0.9), chain(clip(), gaussian())],
    ids=lambda defense: defense.name,
)
def test_a_defense_sees_each_upload_by_itself(local, defense, monkeypatch):
    client, (inputs, labels) = learner(defense, local=local), batches()
    found = uploads(client, inputs, labels)
    plain = uploads(learner(local=local), inputs, labels)
    factor = 1 if local.upload == "gradient" else -client.local.lr
    sizes = {name: value.shape for name, value in client.model.named_parameters()}
    for place, row in enumerate(plain):
        parts = (factor * row).split([shape.numel() for shape in sizes.values()])
        own = {n: part.view(sizes[n]) for n, part in zip(sizes, parts, strict=True)}
        stream = generator(0, "defense", "coins", place)
        hidden, _ = defense.apply(own, defense.init(own), stream)
        torch.testing.assert_close(found[place], flat(hidden) / factor, rtol=1e-4, atol=1e-6)
    assert torch.equal(uploads(client, inputs, labels, defense=False), plain)
    monkeypatch.setattr(learners, "entries_at_once", lambda: 1)  # one batch after the other
    torch.testing.assert_close(uploads(client, inputs, labels), found)


def test_the_same_coins_give_the_same_uploads_and_others_do_not():
    client, given = learner(gaussian(std=1.0), local=GRADIENT), batches()
    one, again, other = (uploads(client, *given, coins=coins) for coins in ("a", "a", "b"))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    apart = (one - uploads(client, *given, defense=False)).flatten()
    assert float(apart.std()) == pytest.approx(1, abs=3.5 * (0.5 / len(apart)) ** 0.5)
    assert len(apart.unique()) > 0.99 * len(apart)  # every trial has coins of its own


@pytest.mark.parametrize("local", [GRADIENT, WEIGHTS])
def test_a_defense_within_training_is_rehearsed(local):
    open_ = dp_sgd(clip=1e6, noise=0.0, sampling="shuffle")
    given = batches()
    torch.testing.assert_close(
        uploads(learner(open_, local=local), *given),
        uploads(learner(local=local), *given),
        rtol=1e-4,
        atol=1e-5,
    )
    shut = uploads(learner(dp_sgd(clip=0.01, noise=0.0, sampling="shuffle"), local=local), *given)
    assert max(norms([{"": row} for row in shut])) <= 0.01 * (1 + 1e-4)


def test_a_frozen_layer_uploads_nothing():
    client, given = learner(freeze(layers=["0"]), local=GRADIENT), batches()
    size = client.model[0].weight.numel() + client.model[0].bias.numel()
    assert uploads(client, *given)[:, :size].abs().max() == 0
    assert uploads(client, *given)[:, size:].abs().max() > 0


def test_neither_the_model_nor_the_weights_sent_are_changed():
    client, given = learner(sign(), local=WEIGHTS), batches()
    sent = {name: value.clone() + 0.1 for name, value in client.model.state_dict().items()}
    before, own = dict(sent), {n: v.clone() for n, v in client.model.state_dict().items()}
    client.uploads(sent, *given, coins="", defense=True)
    assert same_params(sent, before)
    assert same_params(client.model.state_dict(), own)


def looked(client, trials, **known):
    options = {"knows_label": True, "knows_others": False, "assumed_batch": BATCH} | known
    return client.evidence(
        client.model.state_dict(), trials, coins="coins", defense=False, **options
    )


def test_hypotheses_are_gradients_of_the_record_for_each_value_and_label():
    inputs, labels = batches()
    targets = torch.stack([inputs[:, 0], inputs[:, 1]], dim=1)
    trials = Draws(
        inputs=inputs,
        labels=labels,
        secrets=torch.zeros(COUNT).long(),
        targets=targets,
        target_labels=labels[:, 0],
    )
    client = learner(local=GRADIENT)
    known, guessed = (looked(client, trials, knows_label=k).hypotheses for k in (True, False))
    assert (known.shape[1:3], guessed.shape[1:3]) == ((2, 1), (2, 2))
    state = client.model.state_dict()
    for value in range(2):
        for label in range(2):
            asked = torch.full((COUNT, 1), label)
            one = batch_gradients(client.model, state, targets[:, value, None], asked)
            torch.testing.assert_close(guessed[:, value, label], one)
            right = labels[:, 0] == label
            torch.testing.assert_close(known[right, value, 0], one[right])
    without = replace(trials, targets=None, target_labels=None)
    assert looked(client, without).hypotheses is None
    other = {name: value + 0.1 for name, value in state.items()}
    stale = looked(client, trials, assumed_state=other)
    assert torch.equal(
        stale.hypotheses,
        client.hypotheses(other, Records(trials.targets, trials.target_labels[:, None])),
    )
    assert torch.equal(stale.uploads, looked(client, trials).uploads)


@pytest.mark.parametrize("clients", [1, 2])
def test_with_the_others_known_the_upload_is_theirs_and_the_records(clients):
    inputs, labels = batches(batch=BATCH * clients)
    secrets = torch.arange(COUNT) % clients
    first = inputs.view(COUNT, clients, BATCH, -1)[torch.arange(COUNT), secrets, 0]
    asked = labels.view(COUNT, clients, BATCH)[torch.arange(COUNT), secrets, 0]
    trials = Draws(
        inputs=inputs,
        labels=labels,
        secrets=secrets,
        targets=first[:, None],
        target_labels=asked,
        clients=clients,
    )
    found = looked(learner(local=GRADIENT), trials, knows_others=True)
    assert found.others.shape == found.uploads.shape
    left = found.uploads - (1 - found.weight) * found.others
    if clients > 1:
        left = left[torch.arange(COUNT), secrets]
    expected = found.weight * found.hypotheses[:, 0, 0]
    torch.testing.assert_close(left, expected, rtol=1e-4, atol=1e-6)


def test_large_models_are_looked_at_through_a_projection(monkeypatch):
    client, given = learner(local=GRADIENT), batches(count=40)
    plain = uploads(client, *given)
    monkeypatch.setattr(learners, "LARGE", 50)
    monkeypatch.setattr(learners, "CELLS", 60)
    small = learner(local=GRADIENT)
    found = uploads(small, *given)
    assert small.reduce.cells == found.shape[1] <= 60 < plain.shape[1]
    assert torch.equal(found, small.reduce(plain))
    other = Learner(small.auxiliary, replace(WEIGHTS, lr=0.5))
    torch.testing.assert_close(uploads(other, *given), found, rtol=1e-3, atol=1e-4)


@pytest.mark.twin
@pytest.mark.parametrize("local", [replace(WEIGHTS, epochs=3), replace(WEIGHTS, batch_size=3)])
@pytest.mark.parametrize("defended", [False, True])
def test_shadow_clients_trained_together_are_those_trained_one_by_one(local, defended):
    inputs, labels = batches(count=11)
    defense = chain(clip(bound=0.5), gaussian(std=0.01)) if defended else None
    alone = learner(local=local, defense=defense)
    together = replace(alone, auxiliary=replace(alone.auxiliary, rehearsals=Rehearsals(4)))
    left, right = (uploads(each, inputs, labels) for each in (together, alone))
    assert float((left - right).norm(dim=1).max()) <= 1e-5 * float(right.norm(dim=1).min())
    assert together.auxiliary.rehearsals.counted() == {}
