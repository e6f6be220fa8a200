"""Floors of attacks on language models: messages, a GPT of width 128, 1,024 tokens, three seeds."""

from dataclasses import dataclass, replace
from functools import lru_cache, partial

import pytest
import torch

from adversary.attacks.positions import positions
from adversary.attacks.row_bayes import row_bayes, unscaled
from adversary.attacks.token_rows import token_rows
from adversary.grading import counts as grading
from adversary.grading import texts, tokens
from adversary.text.reading import evidence, target_moments
from adversary.text.row_bayes import counts
from adversary.workspace import workspace
from defenses import build as build_defenses
from fedsim import models
from fedsim.config import parse
from fedsim.core.ground_truth import Texts, Truth
from fedsim.core.memory import Memory
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from fedsim.data import federate
from tests.adversary.text.small import gradient, loss, sgd, trained
from tests.real_data import present

pytestmark = pytest.mark.xdist_group("one trained GPT")

SEEDS = range(3)
STEPS, BATCH = 260, 32  # of Adam on the adversary's half, as for `trained` in the tables


@dataclass(frozen=True)
class Setting:
    """A model sent, and what the adversary and the clients hold."""

    model: torch.nn.Module
    auxiliary: Auxiliary
    inputs: torch.Tensor
    targets: torch.Tensor


@lru_cache(maxsize=2)
def setting(state):
    present("text")
    config = parse({
        "data": {"name": "sms-spam", "root": str(present("text")), "partition": "iid"},
        "model": {"name": "gpt"}, "auxiliary": {"share": 0.5}, "federation": {"clients": 2},
    })  # fmt: skip
    federated = federate(config)
    dataset, held_out = federated.dataset, federated.auxiliary
    model = models.build(config.model, dataset.form, seed=0)
    inputs, targets = dataset.inputs[held_out], dataset.targets[held_out]
    if state == "trained":
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        stream = generator(0, "training")
        for _ in range(STEPS):
            rows = torch.randint(len(inputs), (BATCH,), generator=stream)
            optimizer.zero_grad()
            loss(model, inputs[rows], targets[rows]).backward()
            optimizer.step()
    auxiliary = Auxiliary(
        model,
        len(dataset.vocabulary),
        inputs=inputs[:400],
        labels=targets[:400],
        input_shape=dataset.input_shape,
        vocabulary=dataset.vocabulary,
        per_token=True,
    )
    private = torch.cat(federated.clients)
    return Setting(model, auxiliary, dataset.inputs[private], dataset.targets[private])


def client(at, seed, count, *, delta=None, local=None):
    """Return the view of one client's update (a gradient without `delta`) and the truth."""
    rows = torch.randperm(len(at.inputs), generator=generator(seed, "client"))[:count]
    inputs, targets = at.inputs[rows], at.targets[rows]
    made = gradient(at.model, inputs, targets) if delta is None else delta(inputs, targets)
    local = local or LocalTraining(lr=0.1, batch_size=count, upload="gradient")
    sent = {name: value.detach() for name, value in at.model.state_dict().items()}
    view = View([Observation(sent, Update(1, "0", made, count), local)], memory=Memory())
    public = frozenset(at.auxiliary.inputs.unique().tolist())
    used = Texts(inputs, at.auxiliary.vocabulary, public, frozenset())
    return view, Truth(targets[targets >= 0], rows, texts=used)


def mean_over_seeds(score):
    return sum(score(seed) for seed in SEEDS) / len(SEEDS)


PROTOCOLS = {
    "one epoch": (partial(sgd, lr=0.1), 1, 0.0),
    "ten epochs": (partial(sgd, lr=0.1), 10, 0.0),
    "small lr": (partial(sgd, lr=1e-3), 5, 0.0),
    "momentum": (partial(sgd, lr=0.1, momentum=0.9), 3, 0.9),
    "decay": (partial(sgd, lr=0.1, decay=1e-3), 3, 0.0),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_set_of_tokens_survives_every_protocol(name):
    at = setting("init")
    step, epochs, momentum = PROTOCOLS[name]
    local = LocalTraining(lr=0.1, batch_size=1, epochs=epochs, momentum=momentum)

    def score(seed):
        steps = partial(trained, at.model, step=step, steps=4 * epochs, batch=1)
        view, truth = client(at, seed, 4, delta=steps, local=local)
        return tokens.grade(token_rows(view, at.auxiliary, generator(0)), truth)["f1"]

    assert mean_over_seeds(score) >= 0.99


@pytest.mark.parametrize("epochs", [1, 10])
def test_one_text_is_read_in_order(epochs):
    at = setting("init")
    local = LocalTraining(lr=0.1, batch_size=1, epochs=epochs)

    def score(seed):
        steps = partial(trained, at.model, step=sgd, steps=epochs, batch=1)
        view, truth = client(at, seed, 1, delta=steps, local=local)
        guess = texts.checked(positions(view, at.auxiliary, generator(0)), at.auxiliary)
        return texts.grade(guess, truth)["exact"]

    assert mean_over_seeds(score) >= 0.95


@pytest.mark.parametrize(
    ("state", "count", "floor"),
    [("init", 4, 0.99), ("init", 16, 0.98), ("trained", 4, 0.95), ("trained", 16, 0.95)],
)
def test_counts_reach_their_floors_where_the_number_of_targets_is_given(state, count, floor):
    at = setting(state)

    def score(seed):
        view, truth = client(at, seed, count)
        work = workspace(view, at.auxiliary)
        guess = counts(work.part(target_moments), evidence(view.latest, work), len(truth.labels))
        return grading.grade(guess.each, truth)["asr"]

    assert mean_over_seeds(score) >= floor


@pytest.mark.parametrize(("state", "count"), [("init", 4), ("init", 16), ("trained", 16)])
def test_counts_without_the_number_of_targets(state, count):
    """Measured: 0.96 to 0.99."""
    at = setting(state)

    def score(seed):
        view, truth = client(at, seed, count)
        return grading.grade(row_bayes(view, at.auxiliary, generator(0)), truth)["asr"]

    assert mean_over_seeds(score) >= 0.92


@pytest.mark.parametrize(
    ("defense", "floor"),
    [
        ({"name": "prune", "rate": 0.9}, 0.92),
        ({"name": "sparsify", "rate": 0.9}, 0.90),
        ({"name": "quantise", "bits": 4}, 0.87),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_counts_of_two_texts_behind_a_compression(defense, floor):
    at = setting("trained")
    apply = build_defenses(parse({"defense": [defense]}).defense)

    def score(seed):
        view, truth = client(at, seed, 2)
        delta = view.latest.update.delta
        changed, _ = apply.apply(delta, apply.init(delta), generator(seed, "defense"))
        update = replace(view.latest.update, delta=changed)
        view = View([replace(view.latest, update=update)], memory=Memory())
        work = workspace(view, at.auxiliary)
        moments = work.part(target_moments)
        observed = unscaled(moments, evidence(view.latest, work))
        guess = counts(moments, observed, len(truth.labels))
        return grading.grade(guess.each, truth)["asr"]

    assert mean_over_seeds(score) >= floor
