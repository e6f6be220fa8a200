"""Clients of fedsim's own token models, and what attacks on texts answer."""

import copy

import torch
from torch import Generator, nn
from torch.nn import functional

from fedsim import models
from fedsim.config import parse
from fedsim.core.errors import remarks_of_attacks
from fedsim.core.form import Form
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from fedsim.core.vocabulary import Vocabulary
from fedsim.models.travels import travelling
from tests.adversary.text.language import PAD, targets

SIZE, LENGTH = 64, 8
WORDS = Vocabulary(tuple(b"" if i < 3 else b"w%d" % i for i in range(SIZE)))


def build(name="gpt", *, seed=0, width=32, classes=2, length=LENGTH, size=SIZE, **options):
    """Return a model with the room's initial weights."""
    config = parse({"model": {"name": name, "width": width, **options}}).model
    per_token = name == "gpt"
    form = Form((length,), size if per_token else classes, torch.int64, size, per_token=per_token)
    return models.build(config, form, seed=seed)


class Adapter(nn.Module):
    """W x + 2 B A x, with B = 0 at first; W is frozen."""

    def __init__(self, inner: nn.Linear, rank: int) -> None:
        super().__init__()
        self.inner = inner.requires_grad_(requires_grad=False)
        self.down = nn.Linear(inner.in_features, rank, bias=False)
        self.up = nn.Linear(rank, inner.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.inner(x) + 2 * self.up(self.down(x))


def adapted(model: nn.Module, *, rank=8, seed=0) -> nn.Module:
    """Return a copy that trains adapters of queries and values alone."""
    model = copy.deepcopy(model).requires_grad_(requires_grad=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for block in model.get_submodule("blocks").children():
            attention = block.attention
            attention.query = Adapter(attention.query, rank)
            attention.value = Adapter(attention.value, rank)
    return travelling(model)


def gradient(model, ids, labels=None):
    """Return the gradient of the mean loss by name."""
    labels = targets(ids) if labels is None else labels
    weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
    loss = functional.cross_entropy(model(ids), labels)
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))


def state_of(model):
    """Return what travels."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def trained(model, ids, *, lr=0.1, steps=5, momentum=0.9):
    """Return the update of some local steps on all texts."""
    client, kept = copy.deepcopy(model), {}
    for _ in range(steps):
        for name, value in gradient(client, ids).items():
            kept[name] = value + momentum * kept.get(name, 0)
        with torch.no_grad():
            for name, parameter in client.named_parameters():
                if name in kept:
                    parameter -= lr * kept[name]
    sent = state_of(model)
    return {name: value - sent[name] for name, value in state_of(client).items()}


def observed(model, delta, count, *, sent=None, round_=1, **local):
    """Return what the server has of one client; of a gradient without local training."""
    training = LocalTraining(
        **{"lr": 0.1, "batch_size": 64, "upload": "weights" if local else "gradient", **local}
    )
    sent = state_of(model) if sent is None else sent
    return Observation(sent, Update(round_, "c", delta, count), training)


def auxiliary_of(model, inputs=None, **fields):
    """Return what an adversary knows of a model of these tokens."""
    per_token = fields.pop("per_token", True)
    shape, size = fields.pop("shape", (LENGTH,)), fields.pop("size", SIZE)
    return Auxiliary(
        model,
        size if per_token else 2,
        inputs=inputs,
        labels=None if inputs is None else targets(inputs),
        input_shape=shape,
        vocabulary=fields.pop("vocabulary", WORDS),
        per_token=per_token,
        **fields,
    )


def answered(attack, observations, auxiliary):
    """Return an attack's texts and its remarks."""
    with remarks_of_attacks() as remarks:
        guess = attack(View(observations), auxiliary, Generator().manual_seed(0))
    return [tuple(text.tolist()) for text in guess], remarks


def unpadded(ids):
    """Return texts as tuples."""
    return [tuple(row[row != PAD].tolist()) for row in ids]
