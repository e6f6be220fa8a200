"""Situations that label attacks are tried in; plain functions."""

import copy

import torch
from torch import Tensor, nn

from adversary.attack import Infer
from clients.train import train
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from tests.builders import bilinear, observe, plain_gradient

# papers/label.md, T5: four examples of classes 0, 0, 1, 2. The answer is (2, 1, 1).
HAND_LABELS = torch.tensor([0, 0, 1, 2])
HAND_FEATURES = {
    "A": torch.ones(4, 2),
    "B": torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0]]),  # row sums cancel
}


def zero_head(num_features: int, num_classes: int, *, bias: bool = True) -> nn.Linear:
    """Return a head that predicts all classes alike."""
    head = nn.Linear(num_features, num_classes, bias=bias)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    return head


def known(model: nn.Module, num_classes: int, inputs: Tensor, *, each: int = 1) -> Auxiliary:
    """Return an adversary that has the inputs under every label, or `each` of them per label."""
    labels = torch.arange(num_classes).repeat_interleave(each)
    inputs = inputs.repeat(-(-len(labels) // len(inputs)), *[1] * (inputs.ndim - 1))[: len(labels)]
    return Auxiliary(model, num_classes, inputs=inputs, labels=labels)


def hand(case: str, *, bias: bool = True) -> tuple[View, Auxiliary]:
    """Return T5's view of a zero head, and an adversary that knows an input of ones."""
    head = zero_head(2, 3, bias=bias)
    gradient = plain_gradient(head, HAND_FEATURES[case], HAND_LABELS)
    return observe(gradient, 4, sent=head), known(head, 3, torch.ones(1, 2))


def untrained(
    counts: list[int],
    activation: type[nn.Module] = nn.ReLU,
    *,
    seed: int = 0,
    bias: bool = True,
    **local,
) -> tuple[View, Auxiliary]:
    """Return a view of a client with these label counts, whose model has an untrained head."""
    stream, classes = generator(seed, "untrained"), len(counts)
    with global_stream(seed, "untrained"):
        model = nn.Sequential(nn.Linear(4, 6), activation(), zero_head(6, classes, bias=bias))
    labels = torch.repeat_interleave(torch.arange(classes), torch.tensor(counts))
    inputs = torch.randn(len(labels), 4, generator=stream)
    told = {"lr": 0.1, "batch_size": len(labels), "upload": "gradient"} | local
    view = client(model, inputs, labels, LocalTraining(**told), seed=seed)
    return view, known(model, classes, torch.randn(20 * classes, 4, generator=stream), each=20)


def client(
    model: nn.Module, inputs: Tensor, labels: Tensor, local: LocalTraining, *, seed: int = 0
) -> View:
    """Return what the server sees of a client that trains honestly."""
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    state, _ = train(
        copy.deepcopy(model), sent, inputs, labels, local, generator=generator(seed, "client")
    )
    delta = state if local.upload == "gradient" else {n: state[n] - sent[n] for n in state}
    return View([Observation(sent, Update(1, "0", delta, len(labels)), local)])


def asr(guess: Tensor, counts: Tensor) -> float:
    """Return the share of labels named."""
    return float(torch.minimum(guess, counts).sum()) / float(counts.sum())


def unbalanced(local: LocalTraining, *, seed: int = 0) -> tuple[View, Auxiliary, Tensor]:
    """Return a view of a client with 40 blobs of four classes, and its true counts."""
    stream = generator(seed, "blobs")
    centres = torch.randn(4, 4, generator=stream)
    labels = torch.tensor([0] * 22 + [1] * 10 + [2] * 6 + [3] * 2)
    inputs = centres[labels] + 0.5 * torch.randn(40, 4, generator=stream)
    model = bilinear(4, features=12)
    view = client(model, inputs, labels, local, seed=seed)
    there = torch.arange(200) % 4
    others = centres[there] + 0.5 * torch.randn(200, 4, generator=stream)
    counts = torch.bincount(labels, minlength=4) * local.epochs
    return view, Auxiliary(model, 4, inputs=others, labels=there), counts


def assert_equivariant(infer: Infer) -> None:
    """Check that other names for the classes change nothing but the names."""
    order = torch.tensor([4, 2, 0, 1, 3])  # new class i is old class order[i]
    renamed = order.argsort()
    stream = generator(3, "equivariant")
    inputs = torch.rand(8, 4, generator=stream)
    labels = torch.tensor([0, 0, 0, 0, 3, 3, 1, 4])
    others, there = torch.rand(50, 4, generator=stream), torch.arange(50) % 5
    model = bilinear(5, features=9)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for name in ("2.weight", "2.bias"):
            moved.get_parameter(name).copy_(model.get_parameter(name)[order])
    local = LocalTraining(lr=0.1, batch_size=4, epochs=2)
    for told in (LocalTraining(lr=0.1, batch_size=8, upload="gradient"), local):
        straight = infer(
            client(model, inputs, labels, told),
            Auxiliary(model, 5, inputs=others, labels=there),
            generator(0),
        )
        permuted = infer(
            client(moved, inputs, renamed[labels], told),
            Auxiliary(moved, 5, inputs=others, labels=renamed[there]),
            generator(0),
        )
        assert torch.equal(straight[order], permuted)
