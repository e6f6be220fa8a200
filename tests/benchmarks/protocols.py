"""What auto-reconstruct answers where protocols, models and clients are odd, and what it says.

    uv run python -m tests.benchmarks.protocols [CASE …] [--budget B]

Two MNIST digits of 7×7 pixels (means of 4×4) a client, small nets; in some cases the client trains
otherwise than the protocol says. Each line has the attack, the PSNR in dB in the best order, blind
(mid-grey), and whether the answer is said to explain the upload (verified). An answer that is
verified and not within 1 dB of blind or above is marked WRONG.
"""

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from adversary.attacks.auto_reconstruct import auto_reconstruct
from clients.train import train
from fedsim.core.boundary import explained
from fedsim.core.errors import remarks_of_attacks
from fedsim.core.params import subtract
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, LocalTraining
from tests.benchmarks.local_steps import CLASSES, digits, net, psnr
from tests.builders import observe

ONE = LocalTraining(lr=0.1, batch_size=2)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A client.

    Attributes:
        model: Its net.
        local: The protocol.
        really: How it trains; None for the protocol.
        images: Its pictures, of those at hand.
        labels: Its labels; None for those of the pictures.
        decay: Weight decay that the protocol does not name.
    """

    model: Callable[[], nn.Module] = net
    local: LocalTraining = ONE
    really: LocalTraining | None = None
    images: Callable[[Tensor], Tensor] = lambda x: x[:2]
    labels: Tensor | None = None
    decay: float = 0.0


def small(*layers: nn.Module, width: int = 294) -> nn.Module:
    """Return a convolution, these layers, and a linear one."""
    with global_stream(0, "small"):
        first = nn.Conv2d(1, 6, 3, padding=1)
        return nn.Sequential(first, *layers, nn.Flatten(), nn.Linear(width, CLASSES))


def frozen() -> nn.Module:
    """Return the convolutional net with its first layer fixed."""
    model = net()
    for parameter in model[0].parameters():  # pyright: ignore
        parameter.requires_grad_(requires_grad=False)
    return model


THREE, SINGLY = replace(ONE, epochs=3), replace(ONE, batch_size=1, epochs=3)
FOUR = lambda x: x[:4]
CASES = {
    "one step": Case(),
    "one step, one example": Case(images=lambda x: x[:1]),
    "local steps": Case(local=THREE),
    "one example, local steps": Case(local=THREE, images=lambda x: x[:1]),
    "batches of one": Case(local=SINGLY),
    "a smaller last batch": Case(local=THREE, images=lambda x: x[:3]),
    "momentum": Case(local=replace(SINGLY, momentum=0.9)),
    "FedProx": Case(local=replace(SINGLY, proximal_mu=0.1)),
    "label smoothing": Case(local=replace(SINGLY, label_smoothing=0.1)),
    "Adam": Case(local=replace(THREE, optimizer="adam", lr=0.001)),
    "Adam, one example": Case(
        local=replace(THREE, optimizer="adam", lr=0.001), images=lambda x: x[:1]
    ),
    "a gradient": Case(local=replace(ONE, upload="gradient")),
    "frozen layer": Case(model=frozen, local=THREE),
    "dropout": Case(model=lambda: small(nn.Sigmoid(), nn.Dropout(0.5)), local=THREE),
    "batch norm": Case(model=lambda: small(nn.BatchNorm2d(6), nn.Sigmoid()), local=THREE),
    "group norm": Case(model=lambda: small(nn.GroupNorm(2, 6), nn.Sigmoid()), local=SINGLY),
    "ReLU": Case(model=lambda: small(nn.ReLU()), local=SINGLY),
    "MLP": Case(model=lambda: net("mlp"), local=SINGLY),
    "MLP, ReLU": Case(
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(49, 60), nn.ReLU(), nn.Linear(60, 10)),
        local=SINGLY,
    ),
    "pooling": Case(model=lambda: small(nn.Tanh(), nn.AdaptiveAvgPool2d(3), width=54), local=THREE),
    "really one more epoch": Case(local=SINGLY, really=replace(SINGLY, epochs=4)),
    "really another rate": Case(local=SINGLY, really=replace(SINGLY, lr=0.11)),
    "really whole batches": Case(local=SINGLY, really=THREE),
    "really batches of one": Case(local=THREE, really=SINGLY),
    "really momentum": Case(local=SINGLY, really=replace(SINGLY, momentum=0.5)),
    "really weight decay": Case(local=SINGLY, decay=0.01),
    "really accumulated": Case(local=SINGLY, really=replace(THREE, lr=0.2), images=FOUR),
    "the same picture twice": Case(local=SINGLY, images=lambda x: x[[0, 0]]),
    "the same picture twice, one step": Case(images=lambda x: x[[0, 0]]),
    "black pictures": Case(local=SINGLY, images=lambda x: 0 * x[:2]),
    "equal labels": Case(local=SINGLY, labels=torch.tensor([3, 3])),
    "equal labels, one step": Case(labels=torch.tensor([3, 3])),
}


def attacked(case: Case, budget: float) -> str:
    """Return a line on what comes of a case."""
    inputs, labels = digits()
    x = case.images(inputs)
    y = case.labels if case.labels is not None else labels[: len(x)]
    if x.shape == inputs[[0, 0]].shape and torch.equal(x[0], x[-1]) and case.labels is None:
        y = labels[[0, 0]]
    model = case.model()
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    local = case.really or case.local
    state, _ = train(copy.deepcopy(model), sent, x, y, local, generator=generator(0, "client"))
    delta = state if local.upload == "gradient" else subtract(state, sent)
    steps = local.epochs * -(-len(x) // local.batch_size)
    delta = {name: it - case.decay * local.lr * steps * sent[name] for name, it in delta.items()}
    view = observe(delta, len(x), sent=sent, local=case.local)
    known = Auxiliary(model, CLASSES, inputs=inputs[200:], labels=labels[200:])
    begun = time.process_time()
    try:
        with remarks_of_attacks() as remarks:
            answer = auto_reconstruct(view, known, generator(0, "auto"), budget=budget)
    except Exception as error:
        return f"{explained(error)} ({time.process_time() - begun:.1f} CPU-s)"
    said, value = "; ".join(remarks), psnr(answer, x)
    blind = psnr(torch.full_like(x, 0.5), x)
    verified = "not verified" not in said
    wrong = " WRONG" if verified and value < max(blind - 1, 30) else ""
    name = said.split(",", 1)[0]
    return (
        f"{name} {value:.1f}, blind {blind:.1f}, {'' if verified else 'not '}verified{wrong}, "
        f"{time.process_time() - begun:.1f} CPU-s: {said}"
    )


def main() -> None:
    """Print a line per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--budget", type=float, default=0.1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.cases:
        print(f"{name}: {attacked(CASES[name], args.budget)}", flush=True)


if __name__ == "__main__":
    main()
