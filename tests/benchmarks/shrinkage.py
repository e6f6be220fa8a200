"""Gradient matching as it ends, and shrunk towards the mean auxiliary picture; the same descents.

    uv run python -m tests.benchmarks.shrinkage NETWORK [--iterations 200] [--images 20]

Networks: lenet, cnn2_c2, convnet (breaching's ConvNet in training mode; --width is that of its
first convolution, 64 in breaching), of one float32 gradient of each CIFAR-10 image; digits (clients
of two MNIST images in 7×7 pixels, one step at lr 0.1, of `tests.benchmarks.local_steps`). Settings
are the first of `adversary.inversion.tuning`, labels those of the label attack. PSNR is in dB on
pixels in [0, 1], blind the mean auxiliary image, ± the standard error over clients. The match rate
is the share of images that an answer picks from 100 others (chance 0.01); feature similarity
compares histograms of oriented gradients. Uncertainty and error are root mean squares.
"""

import argparse
import time
import warnings
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from adversary.attacks.batch_labels import label_hypotheses
from adversary.grading import reconstructions
from adversary.grading.uncertainty import rank_correlation
from adversary.inversion.matching import reconstruct
from adversary.inversion.settings import Settings
from adversary.inversion.shrinkage import shrunk
from adversary.inversion.spread import in_order
from adversary.inversion.tuning import PRIORS, STARTS, STEPS
from fedsim.core.errors import remarks_of_attacks
from fedsim.core.ground_truth import Lineup, Truth
from fedsim.core.memory import Memory
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, LocalTraining, View
from tests.adversary.inversion.networks import named
from tests.benchmarks.local_steps import victim
from tests.benchmarks.record import record
from tests.benchmarks.side_by_side import convnet, shown
from tests.builders import observe, plain_gradient
from tests.real_data import cifar_part

CLASSES, OTHERS = 10, 100
METRICS = ("psnr", "ssim", "match_rate", "feature_similarity")


def clients(args: argparse.Namespace) -> tuple[list[View], Auxiliary, list[Tensor]]:
    """Return what the server sees of each client, the adversary, and each client's images."""
    if args.network == "digits":
        local = LocalTraining(lr=0.1, batch_size=2, epochs=1)
        cases = [victim("conv", place, 2, local) for place in range(args.images // 2)]
        return [view for view, _, _ in cases], cases[0][1], [x for _, _, x in cases]
    data = cifar_part()
    with global_stream(0, "shrinkage", args.network):
        model = convnet(args.width) if args.network == "convnet" else named(args.network).float()
    model.train()
    pairs = list(zip(data.inputs.split(1), data.labels.split(1), strict=True))[: args.images]
    views = [observe(plain_gradient(model, x, y), 1, sent=model) for x, y in pairs]
    auxiliary = Auxiliary(model, CLASSES, inputs=data.test_inputs, labels=data.test_labels)
    return views, auxiliary, [x for x, _ in pairs]


def answers(args: argparse.Namespace) -> dict[str, list[tuple[Tensor, Tensor | None]]]:
    """Return the answers before and after, each with its uncertainty, and print what was spent."""
    views, auxiliary, _ = clients(args)
    optimiser, lr = STEPS[0]
    settings = Settings(
        optimiser=optimiser, lr=lr, tv=PRIORS[0], start=STARTS[0], falls=True, restarts=1,
        iterations=args.iterations,
    )  # fmt: skip
    results: dict[str, list[tuple[Tensor, Tensor | None]]] = {"as it ends": [], "shrunk": []}
    spent, sent, weights = {"as it ends": 0.0, "shrunk": 0.0}, None, list[str]()

    def finished(answer, loss, problem, work, settings):
        results["as it ends"].append((answer, None))
        begun, finish = time.process_time(), shrunk(args.rehearsals)
        assert finish is not None
        with remarks_of_attacks() as remarks:
            final = finish(answer, loss, problem, work, settings)
        weights.extend(remarks)
        results["shrunk"].append((final.values, final.uncertainty))
        spent["shrunk"] += time.process_time() - begun
        return final

    with Memory() as memory:
        for view in views:
            sent = sent or view.latest.sent
            latest = replace(view.latest, sent=sent)
            begun = time.process_time()
            reconstruct(
                replace(view, observations=(latest,), memory=memory), auxiliary, generator(0),
                settings, recover=partial(label_hypotheses, most=4), finish=finished,
            )  # fmt: skip
            spent["as it ends"] += time.process_time() - begun
    spent["as it ends"] -= spent["shrunk"]
    print(
        f"{spent['as it ends'] / len(views):.2f} CPU-s a client, rehearsal {spent['shrunk']:.1f} "
        f"for all of them; {'; '.join(sorted(set(weights)))}",
        flush=True,
    )
    return results


def table(args: argparse.Namespace) -> None:
    _, auxiliary, images = clients(args)
    assert auxiliary.inputs is not None
    examples = torch.cat([*images, auxiliary.inputs[:OTHERS]])
    mean = auxiliary.inputs.mean(dim=0)
    low, high = torch.zeros_like(mean), torch.ones_like(mean)
    others = torch.arange(len(examples) - OTHERS, len(examples))
    lineup = Lineup(examples=examples, others=others, blank=mean, low=low, high=high)
    title = f"{args.network} {args.width if args.network == 'convnet' else ''}{args.iterations}"
    rows = {"blind": [(mean.expand_as(images[0]), None)] * len(images)} | answers(args)
    for what, guesses in rows.items():
        grades: dict[str, list[float]] = {name: [] for name in METRICS}
        unsure, errors, correlations = [], [], []
        for place, (guess, uncertainty) in enumerate(guesses):
            index = torch.arange(len(guess)) + place * len(guess)
            truth = Truth(index * 0, index, inputs=examples[index], lineup=lineup)
            for name, value in reconstructions.grade(guess, truth).items():
                if name in grades:
                    grades[name].append(value)
            if uncertainty is not None:
                error = (in_order(guess, examples[index]) - examples[index]).abs()
                unsure.append(float(uncertainty.square().mean().sqrt()))
                errors.append(float(error.square().mean().sqrt()))
                correlations.append(rank_correlation(uncertainty, error))
        text = "  ".join(f"{name} {shown(values)}" for name, values in grades.items() if values)
        print(f"{title}: {what}: {text}", flush=True)
        if unsure:
            apart = torch.tensor(errors).square().mean().sqrt() / unsure[0]
            print(
                f"{title}: uncertainty {unsure[0]:.3f}, error over uncertainty {float(apart):.2f}, "
                f"rank correlation {shown(correlations)}",
                flush=True,
            )
        record("shrinkage", {f"{title}: {what}: PSNR, dB": sum(grades["psnr"]) / len(images)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=["lenet", "cnn2_c2", "convnet", "digits"])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--rehearsals", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    table(args)


if __name__ == "__main__":
    main()
