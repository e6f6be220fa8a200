"""Inverting gradients here and in breaching, on the same gradients of CIFAR-10 images, in one run.

    uv run --extra breaching python -m tests.benchmarks.side_by_side NETWORK

Networks: lenet, cnn2_c2, convnet (breaching's ConvNet-64), resnet18 (no pooling behind the first
convolution, so that training-mode batch norm has more than one value per channel). Batch norm is in
training mode, or with --frozen in evaluation mode with statistics of 200 test images.

Rows: `subspace` of this project where it applies (--no-subspace leaves it out); breaching with each
weight of its total variation; `inverting-gradients` of this project with as many iterations, and
with as many CPU-seconds as breaching's mean (--no-matching leaves them out). Labels are those of
iDLG for both. PSNR is in dB on pixels in [0, 1], blind is the mean of the auxiliary images, ± is
the standard error, also of the differences image by image. breaching's total variation pads images
with zeros, which pulls their borders down: the inner PSNR leaves out a border of two pixels.
"""

import argparse
import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from adversary.adapters.breaching import _case, _quiet
from adversary.attacks.batch_labels import batch_labels
from adversary.attacks.inverting_gradients import inverting_gradients
from adversary.attacks.subspace import hindrance, subspace
from adversary.inversion.tuning import PRIORS, STARTS, STEPS
from fedsim.core.errors import Remark, remarks_of_attacks
from fedsim.core.memory import Memory
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, Estimate, View
from fedsim.models.resnet18 import resnet18
from tests.adversary.inversion.networks import named
from tests.benchmarks.gradient_matching import CLASSES, SHAPE, psnr
from tests.benchmarks.record import record
from tests.builders import observe, plain_gradient
from tests.real_data import cifar_part

WEIGHTS = (0.2, 0.01, 0.001)  # breaching's own, and its best two of papers/reconstruction.md
BORDER, STATISTICS = 2, 200
Row = tuple[Tensor, float]  # the guess and its CPU-seconds


class Frozen(nn.Module):
    """A model whose batch norm stays in evaluation mode."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    def train(self, mode: bool = True) -> "Frozen":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.Module.train(module, mode=False)
        return self


def convnet(width: int = 64) -> nn.Module:
    """breaching's ConvNet: eight convolutions with batch norm and ReLU, two pools, one linear."""
    sizes = [3, width, *(2 * width,) * 2, *(4 * width,) * 5]
    layers: list[nn.Module] = []
    for place, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.BatchNorm2d(fan_out), nn.ReLU()]
        layers += [nn.MaxPool2d(3)] if place in (5, 7) else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(36 * width, CLASSES))


def network(name: str, *, frozen: bool) -> nn.Module:
    with global_stream(0, "side by side", name):
        if name == "resnet18":
            model = resnet18(SHAPE, CLASSES, norm="batch")
            model.maxpool = nn.Identity()
        else:
            model = convnet() if name == "convnet" else named(name, dtype=torch.float32)
    if not frozen:
        return model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
    with torch.no_grad():
        model.train()(cifar_part().test_inputs[:STATISTICS])
    return Frozen(model).train()


def theirs(view: View, auxiliary: Auxiliary, tv: float, iterations: int, *, frozen: bool) -> Row:
    begun = time.process_time()
    known = replace(auxiliary, model=copy.deepcopy(auxiliary.model))
    attacker, payload, shared = _case(
        view, known, generator(0), "invertinggradients", iterations, 1
    )
    if frozen:  # buffers of the server put breaching's model in evaluation mode
        payload[0]["buffers"] = [value.clone() for value in auxiliary.model.buffers()]
    attacker.regularizers[0].scale = tv
    shared[0]["metadata"]["labels"] = batch_labels(view, auxiliary, generator(0))
    with _quiet(generator(0)):
        answer, _ = attacker.reconstruct(payload, shared, server_secrets={})
    return answer["data"].detach(), time.process_time() - begun


def ours(view: View, auxiliary: Auxiliary, iterations: int, given: dict[str, Any]) -> Row:
    begun = time.process_time()
    with remarks_of_attacks() as remarks:
        guess = inverting_gradients(
            view, auxiliary, generator(0), restarts=1, iterations=iterations, **given
        )
    for remark in set(remarks) - SAID:
        SAID.add(remark)
        print(remark, flush=True)
    guess = guess.values if isinstance(guess, Estimate) else guess
    return guess, time.process_time() - begun


def exact(view: View, auxiliary: Auxiliary) -> Row:
    """Return what `subspace` answers, the mean auxiliary image where it has no answer."""
    begun = time.process_time()
    try:
        guess = subspace(view, auxiliary, generator(0))
    except ValueError as reason:
        print(reason, flush=True)
        assert auxiliary.inputs is not None
        guess = auxiliary.inputs.mean(dim=0, keepdim=True)
    return guess, time.process_time() - begun


SAID: set[str] = set()


def compare(name: str, args: argparse.Namespace) -> None:
    data, model = cifar_part(), network(name, frozen=args.frozen)
    auxiliary = Auxiliary(model, CLASSES, inputs=data.test_inputs, labels=data.test_labels)
    optimiser, lr = STEPS[0]
    first = {"optimiser": optimiser, "lr": lr, "tv": PRIORS[0], "start": STARTS[0]}
    given = {"rehearsals": args.rehearsals} | ({} if args.rehearse else first)
    memory, sent = Memory(), None
    cases = []
    for place in range(args.images):
        x, y = data.inputs[place : place + 1], data.labels[place : place + 1]
        view = observe(plain_gradient(model, x, y), 1, sent=model)
        sent = sent or view.latest.sent
        latest = replace(view.latest, sent=sent)
        cases.append((replace(view, observations=(latest,), memory=memory), x))

    rated: dict[str, list[float]] = {}

    def table(label: str, attack: Callable[[View], Row]) -> float:
        rows = [(*attack(view), x) for view, x in cases]
        whole = [psnr(guess, x) for guess, _, x in rows]
        inner = slice(BORDER, -BORDER)
        inside = [psnr(guess[..., inner, inner], x[..., inner, inner]) for guess, _, x in rows]
        seconds = sum(spent for _, spent, _ in rows) / len(rows)
        title = f"{name}{' frozen' * args.frozen}: {label}"
        text = f"{shown(whole)} dB, inner {shown(inside)} dB, {seconds:.2f} CPU-s per image"
        print(f"{title}: {text}", flush=True)
        for other, values in rated.items():
            apart = [a - b for a, b in zip(whole, values, strict=True)]
            print(f"{title}, less {other}: {shown(apart)} dB", flush=True)
        rated[label] = whole
        record("side_by_side", {f"{title}: mean PSNR, dB": sum(whole) / len(whole)})
        return seconds

    table("blind", lambda _: (data.test_inputs.mean(dim=0, keepdim=True), 0.0))
    warnings.simplefilter("ignore", Remark)
    if args.subspace and not hindrance(auxiliary):
        table("subspace", lambda view: exact(view, auxiliary))
    spent = []
    theirs(cases[0][0], auxiliary, 0.2, 1, frozen=args.frozen)  # imports take seconds
    for tv in args.weights:
        attack = lambda view, tv=tv: theirs(
            view, auxiliary, tv, args.iterations, frozen=args.frozen
        )
        spent.append(table(f"breaching, total variation {tv:g}, {args.iterations}", attack))

    def own(iterations: int) -> float:
        first = ours(cases[0][0], auxiliary, iterations, given)[1]
        seconds = table(
            f"fedsim, {iterations}", lambda view: ours(view, auxiliary, iterations, given)
        )
        print(f"{name}: rehearsal {max(0.0, first - seconds):.1f} CPU-s, once for all images")
        return seconds

    if not args.matching:
        return
    seconds = own(args.iterations)
    if args.equal_seconds and spent:
        own(max(1, round(args.iterations * sum(spent) / len(spent) / seconds)))


def shown(values: list[float]) -> str:
    rows = torch.tensor(values)
    error = float(rows.std()) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{float(rows.mean()):.2f} ± {error:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=["lenet", "cnn2_c2", "convnet", "resnet18"])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--frozen", action="store_true")
    parser.add_argument("--weights", type=float, nargs="*", default=WEIGHTS)
    parser.add_argument("--rehearse", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--rehearsals", type=int, default=2, help="clients to learn shrinking by")
    parser.add_argument("--matching", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--subspace", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--equal-seconds", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    compare(args.network, args)


if __name__ == "__main__":
    main()
