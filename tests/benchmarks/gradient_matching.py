"""Gradient matching on CIFAR-10: its speed; PSNR by network, prior, protocol, and defense.

    uv run python -m tests.benchmarks.gradient_matching TABLE [--images N]

Images are the first of the lossless part of CIFAR-10; PSNR is in dB on pixels in [0, 1].
"""

import argparse
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

import torch
from torch import Tensor, nn

from adversary.attacks.dlg import dlg
from adversary.attacks.inverting_gradients import inverting_gradients
from adversary.attacks.see_through_gradients import see_through_gradients
from adversary.grading.uncertainty import rank_correlation
from adversary.inversion import registration
from adversary.inversion.local_steps import one_hot
from adversary.inversion.losses import Losses
from adversary.inversion.matching import match
from adversary.inversion.priors import data_range, pixels
from adversary.inversion.problems import problem_of
from adversary.inversion.settings import Settings
from adversary.inversion.spread import in_order
from clients.train import train
from defenses.clip import clip
from defenses.gaussian import gaussian
from defenses.prune import prune
from defenses.sign import sign
from fedsim.core.errors import Remark
from fedsim.core.params import subtract
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Estimate, LocalTraining, View
from tests.adversary.inversion.networks import named
from tests.benchmarks.record import record
from tests.builders import observe, plain_gradient
from tests.real_data import cifar_part

SHAPE, CLASSES = (3, 32, 32), 10
Line = tuple[str, dict[str, float]]  # what is printed, and what is recorded
DEFENSES = {
    "prune 90 %": prune(rate=0.9),
    "clip": clip(bound=0.1),
    "sign": sign(),
    "gaussian 1e-3": gaussian(std=1e-3),
    "gaussian 1e-2": gaussian(std=1e-2),
}


def psnr(answer: Tensor | Estimate, x: Tensor) -> float:
    guess = answer.values if isinstance(answer, Estimate) else answer
    return float(-10 * (guess.clamp(0, 1) - x).square().mean().log10())


def victim(name: str, place: int, size: int = 1) -> tuple[View, Auxiliary, Tensor, Tensor]:
    """Return the view of one gradient, an adversary with test images, and the examples."""
    data, model = cifar_part(), named(name, dtype=torch.float32)
    rows = slice(place * size, (place + 1) * size)
    x, y = data.inputs[rows], data.labels[rows]
    auxiliary = Auxiliary(model, CLASSES, inputs=data.test_inputs, labels=data.test_labels)
    return observe(plain_gradient(model, x, y), size, sent=model), auxiliary, x, y


def speed() -> Iterator[Line]:
    """CPU time of the loss and its gradient, per restart."""
    for name, size in (("lenet", 1), ("lenet", 4), ("cnn2_c2", 1)):
        view, auxiliary, x, y = victim(name, 0, size)
        problem = problem_of(view.latest, auxiliary)
        form = pixels(problem.shape, x.dtype, box=None, start="uniform")

        def own(rows, problem=problem, form=form, y=y):
            targets = one_hot(y, CLASSES, torch.float32).expand(rows, *y.shape, CLASSES)
            losses = Losses(problem, Settings(), form, targets, 0.01)
            return losses, form.start(rows, generator(0))

        single, many = own(1), {rows: own(rows) for rows in (8, 16, 32)}
        observed = [view.latest.update.delta[n] for n in problem.model.weights]
        calls = {"plain autograd, one": (lambda m=auxiliary.model, x=x, y=y, o=observed:
                                         _plain(m, x, y, o), 1),
                 "this engine, one": (lambda: single[0](single[1]), 1)}  # fmt: skip
        calls |= {
            f"this engine, {rows}": (lambda f=f: f[0](f[1]), rows) for rows, f in many.items()
        }
        spent = {label: [] for label in calls}
        for _ in range(30):  # in turn, because the machine has other work
            for label, (call, rows) in calls.items():
                begun = time.process_time()
                call()
                spent[label].append((time.process_time() - begun) / rows)
        middle = {label: sorted(values)[len(values) // 2] for label, values in spent.items()}
        for label, value in middle.items():
            ratios = " ".join(f"{middle[b] / value:5.1f}×" for b in list(middle)[:2])
            text = f"{name} B={size} {label:22} {1000 * value:7.2f} ms/restart-iteration  {ratios}"
            times = middle["plain autograd, one"] / value
            yield text, {f"{name} B={size} {label}: times faster than plain autograd": times}


def _plain(model: nn.Module, x: Tensor, y: Tensor, observed: list[Tensor]) -> None:
    """One iteration of inverting gradients as it is usually written."""
    x, weights = x.clone().requires_grad_(), list(model.parameters())
    for w in weights:
        w.requires_grad_()
    loss = nn.functional.cross_entropy(model(x), y)
    found = torch.autograd.grad(loss, weights, create_graph=True)
    pairs = list(zip(found, observed, strict=True))
    inner = sum((a * b).sum() for a, b in pairs)
    lengths = (
        sum(a.square().sum() for a, _ in pairs).sqrt()
        * sum(b.square().sum() for _, b in pairs).sqrt()
    )
    rough = (x[..., 1:, :] - x[..., :-1, :]).abs().mean()
    rough = rough + (x[..., 1:] - x[..., :-1]).abs().mean()
    torch.autograd.grad(1 - inner / lengths + 0.01 * rough, x)


def table_dlg(images: int) -> Iterator[Line]:
    for labels in ("joint", "recovered"):
        for place in range(images):
            view, auxiliary, x, _ = victim("lenet", place)
            begun = time.process_time()
            guess = dlg(view, auxiliary, generator(0, place), labels=labels)
            spent = time.process_time() - begun
            label, value = f"lenet dlg labels={labels} image {place}", psnr(guess, x)
            yield f"{label}: {value:5.1f} dB {spent:.0f} s", {f"{label}: PSNR, dB": value}


def table_geiping(images: int) -> Iterator[Line]:
    for name, levels in (("lenet", (0.2, 0.01, 0.001)), ("cnn2_c2", (0.2, 0.01, 0.001))):
        for tv in levels:
            found = []
            begun = time.process_time()
            for place in range(images):
                view, auxiliary, x, _ = victim(name, place)
                guess = inverting_gradients(
                    view, auxiliary, generator(0), tv=tv, iterations=3000, rehearsals=0
                )
                found.append(psnr(guess, x))
            spent = (time.process_time() - begun) / images
            text = f"{name} tv={tv}: {_listed(found)} {spent:.0f} s/image"
            yield text, {f"{name} tv={tv}: mean PSNR, dB": _mean(found)}


def table_fedavg(images: int) -> Iterator[Line]:
    """PSNR of one example by epochs and rate: from float32 weights, and from an exact delta."""
    for epochs in (1, 2, 5):
        for lr in (1.0, 0.1, 0.01, 0.001):
            found = [_fedavg(place, epochs, lr) for place in range(images)]
            rounded, exact = (list(values) for values in zip(*found, strict=True))
            what = f"float32 weights {_listed(rounded)}  exact delta {_listed(exact)}"
            label = f"lenet B=1 E={epochs} lr={lr}"
            yield (
                f"{label}: {what}",
                {
                    f"{label}, float32 weights: mean PSNR, dB": _mean(rounded),
                    f"{label}, exact delta: mean PSNR, dB": _mean(exact),
                },
            )


def table_see_through(images: int) -> Iterator[Line]:
    """PSNR of see-through-gradients with and without the pull to the mean of restarts."""
    for name in ("cnn2_c2", "lenet"):
        for group in (0.01, 0.0):
            results = []
            begun = time.process_time()
            for place in range(images):
                view, auxiliary, x, _ = victim(name, place)
                options = {"restarts": 4, "iterations": 300, "group": group, "rehearsals": 0}
                guess = see_through_gradients(view, auxiliary, generator(0), **options)
                results.append(psnr(guess, x))
            spent = (time.process_time() - begun) / images
            text = f"{name} group={group}: {_listed(results)} {spent:.1f} s/image"
            yield text, {f"{name} group={group}: mean PSNR, dB": _mean(results)}


def table_registration(images: int) -> Iterator[Line]:
    """Batches by see-through-gradients: no pull, to the plain mean, registered."""
    plain = lambda images, _labels: images.mean(dim=0).expand_as(images)
    ways = {
        "no pull": (0.0, registration.consensus),
        "to the mean as it is": (0.01, plain),
        "registered": (0.01, registration.consensus),
    }
    for size in (2, 4):
        for way, (group, consensus) in ways.items():
            results, spent = [], 0.0
            with mock.patch.object(registration, "consensus", consensus):
                for place in range(images // size):
                    view, auxiliary, x, _ = victim("cnn2_c2", place, size)
                    options = {"iterations": 300, "group": group, "rehearsals": 0}
                    begun = time.process_time()
                    guess = see_through_gradients(view, auxiliary, generator(0), **options)
                    spent += time.process_time() - begun
                    values = guess.values if isinstance(guess, Estimate) else guess
                    results += map(psnr, in_order(values, x), x)
            rows = torch.tensor(results)
            error = float(rows.std()) / len(rows) ** 0.5
            label = f"cnn2_c2 B={size} {way}"
            text = f"{float(rows.mean()):.2f} ± {error:.2f} dB, {len(rows)} images"
            yield (
                f"{label}: {text}, {spent / len(rows):.1f} CPU-s an image",
                {f"{label}: mean PSNR, dB": _mean(results)},
            )


def table_uncertainty(images: int) -> Iterator[Line]:
    """Spread of restarts beside the error, by network and how many restarts there are."""
    for name in ("cnn2_c2", "lenet"):
        for restarts in (2, 4, 8):
            rows = []
            for place in range(images):
                view, auxiliary, x, _ = victim(name, place)
                options = {"restarts": restarts, "iterations": 200, "rehearsals": 0}
                answer = inverting_gradients(view, auxiliary, generator(0), **options)
                assert isinstance(answer, Estimate)
                error, unsure = (answer.values - x).abs(), answer.uncertainty
                rows.append([
                    psnr(answer, x), rank_correlation(unsure, error),
                    float(unsure.square().mean().sqrt()), float(error.square().mean().sqrt()),
                ])  # fmt: skip
            of = torch.tensor(rows, dtype=torch.float64)
            means, errors = of.mean(dim=0), of.std(dim=0) / len(of) ** 0.5
            names = ("PSNR, dB", "rank correlation", "uncertainty, RMS", "error, RMS")
            label = f"{name} {restarts} restarts"
            values = zip(names, means.tolist(), errors.tolist(), strict=True)
            text = "  ".join(f"{what} {mean:.3f} ± {error:.3f}" for what, mean, error in values)
            figures = {f"{label}: {n}": m for n, m in zip(names, means.tolist(), strict=True)}
            yield f"{label}: {text}", figures


def _fedavg(place: int, epochs: int, lr: float) -> list[float]:
    """Return the PSNR after float32 weights, and from the delta of float64 ones: two rows."""
    local = LocalTraining(lr=lr, batch_size=1, epochs=epochs)
    _, auxiliary, x, y = victim("lenet", place)
    problems = []
    for dtype in (torch.float32, torch.float64):
        model = named("lenet", dtype=torch.float32).to(dtype)
        sent = {name: value.clone() for name, value in model.state_dict().items()}
        state, _ = train(model, sent, x.to(dtype), y, local, generator=generator(0))
        view = observe(subtract(state, sent), 1, sent=auxiliary.model, local=local)
        problems.append(problem_of(view.latest, auxiliary))
    both = replace(problems[0], observed=torch.cat([problem.observed for problem in problems]))
    settings = Settings(
        distance="l2", optimiser="lbfgs", iterations=2500, restarts=2, box=False, start="normal"
    )
    guesses, _ = match(both, settings, y, generator(0), box=data_range(auxiliary))
    return [psnr(guess, x) for guess in guesses]


def table_defenses(images: int) -> Iterator[Line]:
    options = {"restarts": 2, "iterations": 600, "rehearsals": 0}
    for name in ("cnn2_c2", "lenet"):
        for label, defense in DEFENSES.items():
            found: dict[str, list[float]] = {"static": [], "adaptive": []}
            for place in range(images):
                view, auxiliary, x, _ = victim(name, place)
                plain = dict(view.latest.update.delta)
                uploaded, _ = defense.apply(plain, defense.init(plain), generator(0, place))
                view = observe(uploaded, 1, sent=auxiliary.model)
                for who, values in found.items():
                    known = replace(auxiliary, defense=defense if who == "adaptive" else None)
                    guess = inverting_gradients(view, known, generator(0), **options)
                    values.append(psnr(guess, x))
            what = "  ".join(f"{who} {_listed(values)}" for who, values in found.items())
            yield (
                f"{name} {label}: {what}",
                {
                    f"{name} {label}, {who}: mean PSNR, dB": _mean(values)
                    for who, values in found.items()
                },
            )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _listed(values: list[float]) -> str:
    return f"mean {_mean(values):.1f} [{' '.join(f'{value:.1f}' for value in values)}]"


TABLES = {
    "dlg": table_dlg,
    "geiping": table_geiping,
    "fedavg": table_fedavg,
    "see-through": table_see_through,
    "registration": table_registration,
    "uncertainty": table_uncertainty,
    "defenses": table_defenses,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=["speed", *TABLES])
    parser.add_argument("--images", type=int, default=4)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", Remark)
    for text, figures in speed() if asked.table == "speed" else TABLES[asked.table](asked.images):
        print(text, flush=True)
        record("gradient_matching", figures)


if __name__ == "__main__":
    main()
