"""What the gradients of vision transformers give back of CIFAR-10 pictures: APRIL, then matching.

    uv run python -m tests.benchmarks.vision_transformers [--images N] [--matched N]
    uv run python -m tests.benchmarks.vision_transformers --matching --matched BATCHES [--size B]
    uv run python -m tests.benchmarks.vision_transformers --spans BATCHES [--size B] [--model NAME]

Pictures are the first of the lossless part of CIFAR-10, one per client. PSNR is in dB on pixels in
[0, 1], with the standard error over pictures; blind is the mean of the test pictures. Trained means
SGD on other pictures of the part. Matching is on a smaller transformer, and on batches. `--spans`
is `patch-spans` on batches of one float32 gradient; of batches PSNR is that of the nearest answer
to each picture.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from adversary.attack import Infer
from adversary.attacks.april import april
from adversary.attacks.grad_vit import grad_vit
from adversary.attacks.inverting_gradients import inverting_gradients
from adversary.attacks.patch_spans import patch_spans
from adversary.inversion.patches import embedding_of
from clients.train import train
from fedsim.core.doubled import doubled
from fedsim.core.errors import remarks_of_attacks
from fedsim.core.params import subtract
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, Estimate, LocalTraining, Observation, Update, View
from fedsim.models.vit import vit
from tests.benchmarks.record import record
from tests.real_data import cifar_part

SHAPE, CLASSES = (3, 32, 32), 10
STEPS, BATCH, RATE = 100, 16, 0.05  # of the training before
GRADIENT = LocalTraining(0.1, 1, upload="gradient")
PROTOCOLS = {
    "gradient, float64": GRADIENT,
    "gradient, float32": GRADIENT,
    "weights, 1 step, lr 0.1": LocalTraining(0.1, 1),
    "weights, 5 steps, lr 0.1": LocalTraining(0.1, 1, 5),
    "weights, 5 steps, lr 0.01": LocalTraining(0.01, 1, 5),
}
SHORT: dict[str, Any] = {"restarts": 1, "iterations": 150}
MATCHING: dict[str, Infer] = {
    "inverting-gradients": partial(
        inverting_gradients, optimiser="adam", lr=0.1, tv=1e-3, start="grey", rehearsals=0, **SHORT
    ),
    "grad-vit": partial(grad_vit, **SHORT),
    "grad-vit without positions and seams": partial(grad_vit, positions=0.0, seams=0.0, **SHORT),
}


@dataclass(frozen=True)
class Result:
    """PSNR of pictures in dB, CPU-seconds of an attack, and the condition of the slopes."""

    psnr: Sequence[float]
    seconds: float
    condition: float = math.nan

    def __str__(self) -> str:
        values = torch.tensor(self.psnr)
        error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        condition = "" if math.isnan(self.condition) else f", condition {self.condition:.1e}"
        return (
            f"{float(values.mean()):.1f} ± {error:.1f} dB (least {float(values.min()):.1f})"
            f"{condition}, {self.seconds:.2f} CPU-s, {len(values)} pictures"
        )


def torchvision_vit() -> nn.Module:
    """Torchvision's VisionTransformer in the size of ViT-tiny; its head of zeros is drawn."""
    from torchvision.models import VisionTransformer

    model = VisionTransformer(32, 4, 12, 3, 192, 768, num_classes=CLASSES)
    assert isinstance(model.heads.head, nn.Linear)
    nn.init.normal_(model.heads.head.weight, std=0.02)
    return model


def trained(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a model after some training on the last pictures of the part."""
    data, model, stream = cifar_part(), make(), generator(0, "trained")
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    inputs, labels = data.inputs[-1000:], data.labels[-1000:]
    for _ in range(STEPS):
        rows = torch.randint(len(labels), (BATCH,), generator=stream)
        optimiser.zero_grad()
        functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
        optimiser.step()
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: vit(SHAPE, CLASSES),
    "vit, trained": lambda: trained(lambda: vit(SHAPE, CLASSES)),
    "vit, LayerNorm last": lambda: vit(SHAPE, CLASSES, first=False),
    "vit, patches of 2×2": lambda: vit(SHAPE, CLASSES, patch=2),
    "torchvision, ViT-tiny": torchvision_vit,
}


def client(model: nn.Module, x: Tensor, y: Tensor, name: str) -> View:
    """Return what the server sees of a client."""
    local = replace(PROTOCOLS.get(name, GRADIENT), batch_size=len(y))
    sent = {key: value.clone() for key, value in model.state_dict().items()}
    if name.endswith("float64"):
        model, x = doubled(model), x.double()
        state = {key: value.double() for key, value in sent.items()}
    else:
        state = dict(sent)
    upload, _ = train(model, state, x, y, local, generator=generator(0, "order"))
    delta = upload if local.upload == "gradient" else subtract(upload, state)
    model.load_state_dict(state)
    return View([Observation(sent, Update(1, "0", delta, len(y)), local)])


def measured(model: nn.Module, name: str, images: int) -> Result:
    """Attack one picture after another."""
    data, auxiliary = cifar_part(), Auxiliary(model, CLASSES, input_shape=SHAPE)
    embedding = embedding_of(model, SHAPE)
    values, conditions, seconds = [], [], 0.0
    for place in range(images):
        x, y = data.inputs[place : place + 1], data.labels[place : place + 1]
        view = client(model, x, y, name)
        begun = time.process_time()
        answer = april(view, auxiliary, generator(0))
        seconds += time.process_time() - begun
        values.append(psnr(answer, x))
        slopes = embedding.rows(view.latest.update.delta[embedding.positions].double())
        singular = torch.linalg.svdvals(slopes[embedding.first :][: len(embedding.pixels)])
        conditions.append(math.log(float(singular[0] / singular[-1])))
    condition = math.exp(sum(conditions) / len(conditions))
    return Result(values, seconds / images, condition)


def nearest(answer: Tensor, x: Tensor) -> list[float]:
    """Return the PSNR of the nearest answer to each picture."""
    guesses = answer.clamp(0, 1).double().flatten(1)
    errors = torch.cdist(x.double().flatten(1), guesses).square().amin(dim=1) / x[0].numel()
    return [-10 * math.log10(max(float(error), 1e-35)) for error in errors]


def by_spans(model: nn.Module, batches: int, size: int, name: str) -> Iterator[Result]:
    """Attack batches by the spans of their tokens."""
    data, auxiliary = cifar_part(), Auxiliary(model, CLASSES, input_shape=SHAPE)
    for place in range(0, batches * size, size):
        x, y = data.inputs[place : place + size], data.labels[place : place + size]
        view = client(model, x, y, name)
        begun = time.process_time()
        with remarks_of_attacks() as remarks:
            answer = patch_spans(view, auxiliary, generator(0, place))
        print(f"{place}: {'; '.join(remarks)}", flush=True)
        yield Result(nearest(answer, x), (time.process_time() - begun) / size)


def matched(infer: Infer, batches: int, size: int) -> Result:
    """Match gradients of batches on a transformer of four narrow blocks."""
    data = cifar_part()
    with global_stream(0, "matched"):
        model = vit(SHAPE, CLASSES, width=96, layers=4)
    auxiliary = Auxiliary(
        model, CLASSES, inputs=data.test_inputs[:200], labels=data.test_labels[:200]
    )
    values, seconds = [], 0.0
    for place in range(0, batches * size, size):
        x, y = data.inputs[place : place + size], data.labels[place : place + size]
        view = client(model, x, y, "gradient, float32")
        begun = time.process_time()
        answer = infer(view, auxiliary, generator(0, place))
        seconds += time.process_time() - begun
        values += nearest(answer.values if isinstance(answer, Estimate) else answer, x)
    return Result(values, seconds / len(values))


def mistaken(images: int) -> Result:
    """Take the gradient of two examples for that of one, which `april` refuses."""
    data = cifar_part()
    with global_stream(0, "vit"):
        model = vit(SHAPE, CLASSES)
    auxiliary, values, seconds = Auxiliary(model, CLASSES, input_shape=SHAPE), [], 0.0
    for place in range(images):
        x, y = (it[2 * place : 2 * place + 2] for it in (data.inputs, data.labels))
        latest = client(model, x, y, "gradient of two, float64").latest
        update = replace(latest.update, num_examples=1)
        view = View([replace(latest, update=update, local=GRADIENT)])
        begun = time.process_time()
        answer = april(view, auxiliary, generator(0))
        seconds += time.process_time() - begun
        values.append(max(psnr(answer, each) for each in x.split(1)))
    return Result(values, seconds / images)


def psnr(guess: Tensor, x: Tensor) -> float:
    """Return the peak signal-to-noise ratio; of equal pictures 350 dB."""
    error = float((guess.clamp(0, 1).double() - x.double()).square().mean())
    return -10 * math.log10(max(error, 1e-35))


def blind(images: int) -> Result:
    """Guess the mean of the test pictures."""
    data = cifar_part()
    mean = data.test_inputs.mean(dim=0, keepdim=True)
    return Result([psnr(mean, data.inputs[i : i + 1]) for i in range(images)], 0.0)


def rows(images: int, number: int) -> Iterator[tuple[str, Result]]:
    """Yield what each line is about, and its result."""
    yield "blind", blind(images)
    for name, make in MODELS.items():
        with global_stream(0, name):
            model = make()
        for protocol in PROTOCOLS:
            yield f"{name}; {protocol}", measured(model, protocol, images)
    yield "vit; two examples taken for one", mistaken(images // 2)
    for size in (1, 2) if number else ():
        for title, infer in MATCHING.items():
            yield f"{title}, batch of {size}", matched(infer, number, size)


def spans(name: str, protocol: str, batches: int, size: int) -> None:
    """Print what spans give of each batch, and of all."""
    with global_stream(0, name):
        model = MODELS[name]()
    results = []
    for result in by_spans(model, batches, size, protocol):
        print([round(value, 1) for value in result.psnr], f"{result.seconds:.1f} CPU-s", flush=True)
        results.append(result)
    values = [value for result in results for value in result.psnr]
    total = Result(values, sum(result.seconds for result in results) / len(results))
    title = f"{name}; {protocol}; spans, batches of {size}"
    print(f"{title}: {total}; blind {blind(batches * size)}")
    record("vision_transformers", {f"{title}: PSNR, dB": sum(values) / len(values)})


def main() -> None:
    """Print a line per model and protocol, and append its figures to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--matched", type=int, default=4)
    parser.add_argument("--spans", type=int, default=0)
    parser.add_argument("--matching", action="store_true", help="nothing but matching")
    parser.add_argument("--size", type=int, default=2)
    parser.add_argument("--model", choices=MODELS, default="vit")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="gradient, float32")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.spans:
        spans(asked.model, asked.protocol, asked.spans, asked.size)
        return
    if asked.matching:
        for title, infer in MATCHING.items():
            result = matched(infer, asked.matched, asked.size)
            print(f"{title}, batches of {asked.size}: {result}", flush=True)
        return
    for name, result in rows(asked.images, asked.matched):
        print(f"{name}: {result}", flush=True)
        mean = sum(result.psnr) / len(result.psnr)
        record("vision_transformers", {f"{name}: PSNR, dB": mean})


if __name__ == "__main__":
    main()
