"""What auto-reconstruct chooses on ten architectures, and what comes back.

    uv run python -m tests.benchmarks.auto_reconstruct [NAME …] [--images N] [--budget B]

One example per client (of ResNet-18 with batch norm two) and one float32 gradient; CIFAR-10, random
numbers as sequences, Adult as a table, standardised. PSNR is in dB over the data's range, blind is
the mean of the adversary's examples.
"""

import argparse
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from adversary.attacks.auto_reconstruct import auto_reconstruct
from fedsim.core.errors import remarks_of_attacks
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, Estimate
from fedsim.data import adult
from fedsim.data.types import Dataset
from fedsim.models.cnn import cnn
from fedsim.models.lenet import lenet
from fedsim.models.mlp import mlp
from fedsim.models.resnet18 import resnet18
from fedsim.models.vit import vit
from tests.adversary.inversion.networks import named
from tests.benchmarks.record import record
from tests.benchmarks.small_models import conv1d, gru, lstm
from tests.benchmarks.vision_transformers import torchvision_vit
from tests.builders import observe, plain_gradient
from tests.real_data import cifar_part, present

IMAGE, TEN = (3, 32, 32), 10


def group_net() -> nn.Module:
    """Three convolutions with GroupNorm and pooling."""
    layers: list[nn.Module] = []
    for into, out in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(into, out, 3, padding=1), nn.GroupNorm(8, out), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, TEN))


def mean_of(inputs: Tensor) -> Tensor:
    """Return the blind guess."""
    return inputs.mean(dim=0, keepdim=True)


def logistic() -> nn.Module:
    """Logistic regression on the records of Adult."""
    return nn.Sequential(nn.Flatten(), nn.Linear(table().inputs[0].numel(), 2))


def table() -> Dataset:
    """Adult."""
    return adult.adult(present("adult"))


def sequences() -> tuple[Tensor, Tensor, Tensor]:
    """Random sequences of twelve vectors, their labels, and the adversary's."""
    stream = generator(0, "sequences")
    return torch.rand(20, 12, 8, generator=stream), torch.arange(20) % TEN, torch.rand(200, 12, 8)


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: mlp(IMAGE, TEN),
    "lenet": lambda: lenet(IMAGE, TEN),
    "cnn": lambda: cnn(IMAGE, TEN),
    "cnn2_c2": lambda: named("cnn2_c2", dtype=torch.float32),
    "resnet18, batch norm": lambda: resnet18(IMAGE, TEN, norm="batch"),
    "convnet, group norm": group_net,
    "vit": lambda: vit(IMAGE, TEN),
    "torchvision ViT": torchvision_vit,
    "lstm": lambda: lstm((12, 8), TEN),
    "gru": lambda: gru((12, 8), TEN),
    "conv1d": lambda: conv1d((12, 8), TEN),
    "logistic regression": logistic,
}
SIZES = {"resnet18, batch norm": 2}  # examples of a client: of one, a norm has a single value
SEQUENCES = ("lstm", "gru", "conv1d")


def examples(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return clients' examples, their labels, and the adversary's examples."""
    if name in SEQUENCES:
        return sequences()
    data = table() if name == "logistic regression" else cifar_part()
    return data.inputs, data.labels, data.test_inputs[:500]


def main() -> None:
    """Print a line per architecture, and append its figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(ARCHITECTURES))
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--budget", type=float, default=0.02)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.names:
        with global_stream(0, name):
            model = ARCHITECTURES[name]()
        inputs, labels, others = examples(name)
        classes = 2 if name == "logistic regression" else TEN
        auxiliary = Auxiliary(model, classes, input_shape=tuple(inputs.shape[1:]))
        values, blind, remark, begun = [], [], "", time.process_time()
        width = float(others.max() - others.min())
        for place in range(asked.images):
            size = SIZES.get(name, 1)
            x, y = inputs[size * place :][:size], labels[size * place :][:size]
            view = observe(plain_gradient(model, x, y), size, sent=model)
            with remarks_of_attacks() as remarks:
                answer = auto_reconstruct(view, auxiliary, generator(0), budget=asked.budget)
            remark = remarks[0]
            answer = answer.values if isinstance(answer, Estimate) else answer
            values.append(psnr(nearest(answer, x), x, width))
            blind.append(psnr(mean_of(others), x, width))
        seconds = (time.process_time() - begun) / asked.images
        mean = sum(values) / len(values)
        print(
            f"{name}: {', '.join(f'{it:.1f}' for it in values)} dB, blind "
            f"{sum(blind) / len(blind):.1f}, {seconds:.1f} CPU-s: {remark}",
            flush=True,
        )
        record("auto_reconstruct", {f"{name}: PSNR, dB": mean})


def nearest(answer: Tensor, x: Tensor) -> Tensor:
    """Return for each example the answer next to it."""
    return answer[torch.cdist(x.flatten(1), answer.flatten(1).to(x.dtype)).argmin(dim=1)]


def psnr(guess: Tensor, x: Tensor, width: float) -> float:
    """Return the peak signal-to-noise ratio."""
    error = float((guess.double() - x.double()).square().mean()) / width**2
    return -10 * math.log10(max(error, 1e-35))


if __name__ == "__main__":
    main()
