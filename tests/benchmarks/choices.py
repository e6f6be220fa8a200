"""Settings of gradient matching chosen with synthetic, with auxiliary, and without pictures.

    uv run python -m tests.benchmarks.choices [NET …] [--images N] [--iterations N]

`inverting-gradients` on float32 gradients of single CIFAR-10 images at the initial weights, one
descent each. "fixed" takes the first values of `adversary.inversion.tuning`; "synthetic" rehearses
with dead leaves, "auxiliary" with test images. PSNR is in dB on pixels in [0, 1], ± the standard
error; blind is the mean test image. CPU-seconds are those of the choice, once for all images, and
of one attack.
"""

import argparse
import time
import warnings
from dataclasses import replace

import torch
from torch import Tensor, nn

from adversary.attacks.inverting_gradients import inverting_gradients
from adversary.inversion.tuning import PRIORS, STARTS, STEPS
from fedsim.core.errors import Remark, remarks_of_attacks
from fedsim.core.memory import Memory
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, Estimate
from tests.adversary.inversion.networks import named
from tests.benchmarks.gradient_matching import CLASSES, SHAPE, psnr
from tests.benchmarks.record import record
from tests.builders import observe, plain_gradient
from tests.real_data import cifar_part


class Block(nn.Module):
    """Two convolutions and a shortcut, without a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.second(self.first(x).relu())).relu()


def residual() -> nn.Module:
    """A strided convolution of 16 channels, two blocks, and a linear layer."""
    first = nn.Conv2d(3, 16, 3, stride=2, padding=1)
    head = nn.Linear(16 * 16 * 16, CLASSES)
    return nn.Sequential(first, nn.ReLU(), Block(16), Block(16), nn.Flatten(), head)


def network(name: str) -> nn.Module:
    """Return a net with its initial weights."""
    with global_stream(0, "choices", name):
        return residual() if name == "residual" else named(name, dtype=torch.float32)


def shown(values: list[float]) -> str:
    """Return the mean and its standard error."""
    rows = torch.tensor(values)
    return f"{float(rows.mean()):.1f} ± {float(rows.std()) / len(values) ** 0.5:.1f} dB"


def compare(name: str, images: int, iterations: int) -> None:
    """Print a row for each way to choose."""
    data, model = cifar_part(), network(name)
    bare = Auxiliary(model, CLASSES, input_shape=SHAPE)
    full = replace(bare, inputs=data.test_inputs, labels=data.test_labels)
    first = {"optimiser": STEPS[0][0], "lr": STEPS[0][1], "tv": PRIORS[0], "start": STARTS[0]}
    mean, memory = data.test_inputs.mean(dim=0, keepdim=True), Memory()
    cases = []
    for place in range(images):
        x, y = data.inputs[place : place + 1], data.labels[place : place + 1]
        cases.append((replace(observe(plain_gradient(model, x, y), 1, sent=model)), x))
    sent = cases[0][0].latest.sent
    print(f"{name}: blind {shown([psnr(mean, x) for _, x in cases])}", flush=True)
    for label, known, given in (
        ("fixed", bare, first),
        ("synthetic", bare, {}),
        ("auxiliary", full, {}),
    ):
        values, spent, remark = [], [], ""
        for view, x in cases:
            latest = replace(view.latest, sent=sent)
            same = replace(view, observations=(latest,), memory=memory)
            begun = time.process_time()
            with remarks_of_attacks() as remarks:
                guess = inverting_gradients(
                    same,
                    known,
                    generator(0),
                    restarts=1,
                    iterations=iterations,
                    rehearsals=0,
                    **given,
                )
            spent.append(time.process_time() - begun)
            values.append(psnr(guess.values if isinstance(guess, Estimate) else guess, x))
            remark = next((it for it in remarks if "chosen" in it), remark)
        attack = sorted(spent)[len(spent) // 2]
        choice = max(0.0, spent[0] - attack) if not given else 0.0
        seconds = f"choice {choice:.1f} CPU-s, attack {attack:.2f} CPU-s"
        print(f"{name}: {label} {shown(values)}, {seconds}; {remark or given}", flush=True)
        record("choices", {f"{name}, {label}: mean PSNR, dB": sum(values) / len(values)})


def main() -> None:
    """Compare on each net."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", default=["cnn2_c2", "residual", "lenet"])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", Remark)
    for name in args.nets:
        compare(name, args.images, args.iterations)


if __name__ == "__main__":
    main()
