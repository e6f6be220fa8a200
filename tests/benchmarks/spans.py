"""What the spans of updates give away of texts: rows of docs/results/text.md.

    uv run python -m tests.benchmarks.spans --seeds 5

GPT of width 128 and V = 1,024 on the SMS collection, float32, one thread. Victims are of the rows
that the adversary does not have; it trains the tokeniser and, for 260 steps of Adam, the model.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from statistics import mean
from typing import Any

import torch
from sklearn.metrics import roc_auc_score
from torch import Generator, Tensor, nn
from torch.nn import functional

from adversary.attacks.cosine_mia import cosine_mia
from adversary.attacks.dager import dager
from adversary.attacks.loss_drop import loss_drop
from adversary.attacks.span_pursuit import span_pursuit, span_pursuit_rounds
from adversary.attacks.tokens_moved import tokens_moved
from adversary.grading import texts as grading
from adversary.text.pursued import measured, pursued
from adversary.workspace import workspace
from defenses import build as build_defenses
from fedsim import data, models
from fedsim.config import parse, read
from fedsim.core.errors import remarks_of_attacks
from fedsim.core.ground_truth import Texts, Truth
from fedsim.core.rng import generator, threads
from fedsim.core.types import (
    Auxiliary,
    Candidates,
    LocalTraining,
    Observation,
    Params,
    Update,
    View,
)
from tests.adversary.text.cases import adapted, state_of

STEPS = 260
LORA = LocalTraining(lr=0.1, batch_size=64, epochs=5, momentum=0.9)
GRADIENT = LocalTraining(lr=0.1, batch_size=64, upload="gradient")


@cache
def messages() -> data.Federated:
    """Return SMS messages as token ids, half of them the adversary's."""
    settings = ["data=sms-spam", "federation.clients=1", "auxiliary.share=0.5"]
    return data.federate(read(None, settings))


@cache
def gpt(seed: int, steps: int) -> nn.Module:
    """Return a GPT after some steps on the adversary's messages."""
    federated = messages()
    dataset, rows = federated.dataset, federated.auxiliary
    model = models.build(parse({"model": {"name": "gpt"}}).model, dataset.form, seed=seed)
    optimiser, stream = torch.optim.Adam(model.parameters(), 1e-3), generator(seed, "batches")
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (16,), generator=stream)]
        optimiser.zero_grad()
        functional.cross_entropy(model(dataset.inputs[batch]), dataset.y[batch]).backward()
        optimiser.step()
    return model


def auxiliary_of(model: nn.Module, **fields: Any) -> Auxiliary:
    """Return what the adversary knows: half of the messages."""
    federated = messages()
    dataset, rows = federated.dataset, federated.auxiliary
    return Auxiliary(
        model,
        dataset.num_classes,
        inputs=dataset.inputs[rows],
        labels=dataset.y[rows],
        input_shape=tuple(dataset.inputs.shape[1:]),
        vocabulary=dataset.vocabulary,
        per_token=True,
        **fields,
    )


def drawn(count: int, *names: Any) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of some of the victims' messages."""
    federated = messages()
    rows = federated.clients[0]
    rows = rows[torch.randperm(len(rows), generator=generator(0, *names))[:count]]
    return federated.dataset.inputs[rows], federated.dataset.y[rows]


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return the gradient of the mean loss, by name."""
    weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
    loss = functional.cross_entropy(model(x), y)
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))


def local(model: nn.Module, x: Tensor, y: Tensor, training: LocalTraining) -> dict[str, Tensor]:
    """Return the update of a client that takes whole batches; the model is left as it was."""
    sent, kept = state_of(model), {}
    for _ in range(training.epochs):
        for name, value in gradient(model, x, y).items():
            kept[name] = value + training.momentum * kept.get(name, 0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in kept:
                    parameter -= training.lr * kept[name]
    delta = {name: value - sent[name] for name, value in state_of(model).items()}
    model.load_state_dict(sent)
    return delta


def seen(model: nn.Module, delta: Params, count: int, training: LocalTraining) -> Observation:
    """Return what the server has of one client."""
    return Observation(state_of(model), Update(1, "0", delta, count), training)


@dataclass(frozen=True)
class Answer:
    """One attack's answer: its metrics, blind ones, CPU-seconds, and whether it made a remark."""

    metrics: dict[str, float]
    blind: dict[str, float]
    seconds: float
    certified: bool


def answered(
    attack: Callable[..., list[Tensor]],
    observations: Sequence[Observation],
    auxiliary: Auxiliary,
    x: Tensor,
) -> Answer:
    """Return how an attack does on the texts `x`."""
    view, stream = View(observations), Generator().manual_seed(0)
    with remarks_of_attacks() as remarks:
        start = time.process_time()
        guess = attack(view, auxiliary, stream)
        seconds = time.process_time() - start
    assert auxiliary.vocabulary is not None
    used = Texts(x.unique(dim=0), auxiliary.vocabulary, frozenset(), frozenset())
    truth = Truth(torch.zeros(0), torch.zeros(0), texts=used)
    grade = lambda it: grading.grade(grading.checked(it, auxiliary), truth)
    blind = grading.grade(grading.blind(view, auxiliary, stream), truth)
    return Answer(grade(guess), blind, seconds, not remarks)


def prefixes(x: Tensor) -> int:
    """Return the number of distinct prefixes of some texts."""
    texts = [row[row != 0].tolist() for row in x]
    return len({tuple(text[: k + 1]) for text in texts for k in range(len(text))})


def exact_batches(
    seed: int, steps: int, most: int | None = None, draws: int = 1
) -> Iterator[tuple[int, Answer]]:
    """Yield b, the number of distinct prefixes, and dager's answer, for batches of 1 to 6 texts.

    Batches with b above `most` are left out. After the first of several draws, each entry of the
    gradient has a relative error of 1e-7, as another order of its sums would give it.
    """
    model = gpt(seed, steps)
    for count in (1, 2, 3, 4, 5, 6):
        x, y = drawn(count, "dager", seed, count)
        if most is not None and prefixes(x) > most:
            continue
        exact = gradient(model, x, y)
        for draw in range(draws):
            stream = generator(seed, "rounding", count, draw)
            error = lambda value, it=stream: 1e-7 * torch.randn(value.shape, generator=it)
            delta = {n: v * (1 + error(v)) for n, v in exact.items()} if draw else exact
            observation = seen(model, delta, count, GRADIENT)
            yield prefixes(x), answered(dager, [observation], auxiliary_of(model), x)


def noisy_pairs(seed: int, std: float) -> float:
    """Return the F value of pursued (token, position) pairs of two texts behind noise."""
    model, (x, y) = gpt(seed, STEPS), drawn(2, "noise", seed)
    (defense,) = [build_defenses(parse({"defense": [{"name": "gaussian", "std": std}]}).defense)]
    delta, _ = defense.apply(gradient(model, x, y), {}, generator(seed, "noise", std))
    observation = seen(model, delta, 2, GRADIENT)
    work = workspace(View([observation]), auxiliary_of(model))
    rows = measured(observation, work)
    answer = set(map(tuple, pursued(observation, rows, work, texts=2).pairs.tolist()))
    true = {(int(x[n, i]), int(i)) for n, i in (x != 0).nonzero()}
    return 2 * len(answer & true) / (len(answer) + len(true))


def adapters(seed: int, texts: int, rounds: int) -> Answer:
    """Return what pursuit reads off LoRA of rank 8 on queries and values, of 5 local steps a round.

    Between rounds the mean of eight clients moves the adapters.
    """
    model, (x, y) = adapted(gpt(seed, STEPS), rank=8, seed=seed), drawn(texts, "lora", seed, texts)
    observations = []
    for number in range(1, rounds + 1):
        delta = local(model, x, y, LORA)
        it = seen(model, delta, texts, LORA)
        observations.append(replace(it, update=replace(it.update, round=number)))
        others = local(model, *drawn(7, "others", seed, number), LORA)
        mixed = {n: v + (delta[n] + 7 * others[n]) / 8 for n, v in state_of(model).items()}
        model.load_state_dict(mixed)
    attack = span_pursuit if rounds == 1 else span_pursuit_rounds
    return answered(attack, observations, auxiliary_of(model), x)


def members(seed: int, *, lora: bool) -> dict[str, float]:
    """Return the AUROC of 16 texts of a client against 48 others, after three local epochs."""
    model, (x, y) = gpt(seed, STEPS), drawn(64, "members", seed)
    model = adapted(model, rank=8, seed=seed) if lora else model
    training = LocalTraining(lr=0.5 if lora else 0.1, batch_size=16, epochs=3)
    observation = seen(model, local(model, x[:16], y[:16], training), 16, training)
    auxiliary = auxiliary_of(model, candidates=Candidates(x, y))
    inside = torch.arange(64) < 16
    attacks = {"cosine-mia": cosine_mia, "loss-drop": loss_drop}
    if not lora:
        attacks["tokens-moved"] = tokens_moved
    return {
        name: float(roc_auc_score(inside, attack(View([observation]), auxiliary, Generator())))
        for name, attack in attacks.items()
    }


def _exact_rows(seeds: Sequence[int], draws: int) -> Iterator[str]:
    yield "| model | b | batches | exact | certified | certified and wrong | CPU-s, worst |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name, steps in (("initial", 0), ("trained", STEPS)):
        answers = [it for seed in seeds for it in exact_batches(seed, steps, draws=draws)]
        for label, low, high in (("below 77", 0, 77), ("77 to 126", 77, 127), ("127 on", 127, 999)):
            some = [it for b, it in answers if low <= b < high]
            if some:
                exact, sure = [it.metrics["exact"] for it in some], [it.certified for it in some]
                wrong = sum(it.certified and it.metrics["exact"] < 1 for it in some)
                yield (
                    f"| {name} | {label} | {len(some)} | {mean(exact):.2f} | {mean(sure):.2f} | "
                    f"{wrong} | {max(it.seconds for it in some):.1f} |"
                )


def _lora_rows(seeds: Sequence[int]) -> Iterator[str]:
    yield "| texts | rounds | exact | token F1 | ROUGE-1 / 2 | blind token F1 | CPU-s, worst |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for texts, rounds in ((1, 1), (1, 4), (2, 1), (2, 4), (4, 1), (4, 4)):
        some = [adapters(seed, texts, rounds) for seed in seeds]
        of = lambda name, it=some: mean(answer.metrics[name] for answer in it)
        blind = mean(it.blind["token_f1"] for it in some)
        yield (
            f"| {texts} | {rounds} | {of('exact'):.2f} | {of('token_f1'):.3f} | "
            f"{of('rouge1'):.2f} / {of('rouge2'):.2f} | {blind:.2f} | "
            f"{max(it.seconds for it in some):.1f} |"
        )


def _other_rows(seeds: Sequence[int]) -> Iterator[str]:
    yield "| what | mean | worst seed |"
    yield "| --- | --- | --- |"
    for std in (1e-5, 1e-4, 1e-3):
        values = [noisy_pairs(seed, std) for seed in seeds]
        yield f"| pair F1, two texts, gaussian {std:g} | {mean(values):.3f} | {min(values):.3f} |"
    for name, lora in (("full", False), ("LoRA", True)):
        aurocs = [members(seed, lora=lora) for seed in seeds]
        for attack in aurocs[0]:
            values = [it[attack] for it in aurocs]
            yield f"| AUROC of {attack}, {name} | {mean(values):.3f} | {min(values):.3f} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=1, help="of rounding, for dager")
    options = parser.parse_args()
    seeds = range(options.seeds)
    with threads(1):
        for rows in (partial(_exact_rows, draws=options.draws), _lora_rows, _other_rows):
            for row in rows(seeds):
                print(row, flush=True)
            print()


if __name__ == "__main__":
    main()
