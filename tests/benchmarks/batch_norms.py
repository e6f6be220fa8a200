"""What the statistics of batch norms give away beside the gradient: ConvNet-64 and ResNet-18.

    uv run python -m tests.benchmarks.batch_norms [NET …] [--batch B] [--images N] [--weights W …]

Clients train one step on CIFAR-10 images and upload weights and buffers, float32: the server has
the mean and the variance of each batch norm's inputs. `see-through-gradients` with each weight of
their distance, from one start; with --running the statistics are those of the model sent, of 200
test images, as where buffers are not uploaded. With --frozen batch norm is in evaluation mode.
PSNR is in dB on pixels in [0, 1] with answers and images paired, ± the standard error; blind is
the better of the mean test image and of grey.
"""

import argparse
import copy
import resource
import time
import warnings
from dataclasses import replace

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from adversary.attacks.see_through_gradients import see_through_gradients
from clients.train import train
from fedsim.core.errors import Remark
from fedsim.core.params import subtract
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Estimate, LocalTraining, View
from tests.benchmarks.gradient_matching import CLASSES
from tests.benchmarks.record import record
from tests.benchmarks.side_by_side import STATISTICS, convnet, network
from tests.builders import observe
from tests.real_data import cifar_part

NETS = {"convnet", "resnet18"}


def victim(auxiliary: Auxiliary, place: int, size: int, *, running: bool) -> tuple[View, Tensor]:
    """Return what the server sees of a client, and its images."""
    data, model = cifar_part(), auxiliary.model
    rows = slice(place * size, (place + 1) * size)
    x, y = data.inputs[rows], data.labels[rows]
    local = LocalTraining(lr=0.1, batch_size=size, epochs=1)
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    state, _ = train(copy.deepcopy(model), sent, x, y, local, generator=generator(0))
    delta = subtract(state, sent)
    if running:
        delta = {name: value for name, value in delta.items() if "running_" not in name}
    return observe(delta, size, sent=model, local=local), x


def psnr(guess: Tensor, x: Tensor) -> float:
    """Return the PSNR of answers in the order that fits best."""
    apart = torch.cdist(x.flatten(1), guess.clamp(0, 1).flatten(1)).square()
    rows, columns = linear_sum_assignment(apart.numpy())
    return float(-10 * (apart[rows, columns].mean() / x[0].numel()).log10())


def shown(values: list[float]) -> str:
    """Return the mean and its standard error."""
    rows = torch.tensor(values)
    error = float(rows.std()) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{float(rows.mean()):.2f} ± {error:.2f} dB"


def main() -> None:
    """Print a line per net and weight, and append the figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", default=sorted(NETS))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--restarts", type=int, default=1)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--weights", type=float, nargs="*", default=(0.0, 10.0))
    parser.add_argument("--running", action="store_true")
    parser.add_argument("--frozen", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", Remark)
    data = cifar_part()
    for name in args.nets:
        model = network(name, frozen=args.frozen)
        if name == "convnet" and args.width != 64:
            model = convnet(args.width).train()
        if args.running and not args.frozen:
            with torch.no_grad():
                model(data.test_inputs[:STATISTICS])
        known = Auxiliary(model, CLASSES, inputs=data.test_inputs, labels=data.test_labels)
        cases = [
            victim(known, place, args.batch, running=args.running) for place in range(args.images)
        ]
        mean = data.test_inputs.mean(dim=0)
        guesses = (mean, torch.full_like(mean, 0.5))
        blind = max(sum(psnr(it.expand_as(x), x) for _, x in cases) / len(cases) for it in guesses)
        title = f"{name}{' frozen' * args.frozen}{' running' * args.running}, batch {args.batch}"
        for weight in args.weights:
            begun, values = time.process_time(), []
            for view, x in cases:
                guess = see_through_gradients(
                    view,
                    replace(known, labels=None),
                    generator(0),
                    restarts=args.restarts,
                    iterations=args.iterations,
                    norms=weight,
                    rehearsals=0,
                )
                values.append(psnr(guess.values if isinstance(guess, Estimate) else guess, x))
            seconds = (time.process_time() - begun) / len(cases)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{title}: weight {weight:g} {shown(values)}, blind {blind:.1f}, {seconds:.1f} "
                f"CPU-s, {peak:.0f} MB",
                flush=True,
            )
            record("batch_norms", {f"{title}, {weight:g}: PSNR, dB": sum(values) / len(values)})


if __name__ == "__main__":
    main()
