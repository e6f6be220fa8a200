"""Texts sampled from the model sent, without a look at any update.

Idea: a language model may say by itself what clients once wrote. What these samples score, this
round's update has not leaked; it was in the model already, from earlier rounds or by chance.

*Server must know*: the model, its vocabulary, and the number of texts.
*Exact when*: by luck, or of texts that the model has learned by heart.
*Differs from the paper*: there is none; how samples of a model tell what it was trained on is shown
by N. Carlini et al., "Extracting training data from large language models", USENIX Security 2021.
"""

import math

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from adversary.attack import Attack
from adversary.labels.head import input_shape
from adversary.text.pursued import check_one_client
from adversary.text.reading import vocabulary_of
from adversary.workspace import Workspace, evaluating, workspace
from fedsim.core import rng
from fedsim.core.errors import NotApplicable
from fedsim.core.types import Auxiliary, View

SAMPLES = 64


def sampled_texts(
    view: View, auxiliary: Auxiliary, generator: Generator, *, temperature: float = 1.0
) -> list[Tensor]:
    """Return as many samples as the client has texts, as token ids.

    Of a model sent `SAMPLES` texts are drawn once for all clients; no text comes twice before all
    have come.

    Args:
        view: One client's observations; the model sent in the latest is sampled.
        auxiliary: With the vocabulary.
        generator: Draws which samples a client is given.
        temperature: That logits are divided by; > 0. Below 1, likely tokens are drawn more often.

    Raises:
        NotApplicable: The temperature is not above 0, or the update is a sum over clients.
    """
    if not temperature > 0:
        raise NotApplicable(f"temperature: must be above 0, got {temperature}")
    check_one_client(view.latest)
    samples = workspace(view, auxiliary).part(_samples, temperature)
    count, order = (
        view.latest.update.num_examples or 1,
        torch.randperm(SAMPLES, generator=generator),
    )
    rows = samples[order.repeat(-(-count // SAMPLES))[:count]]
    return [row[row != vocabulary_of(auxiliary).pad] for row in rows]


def _samples(work: Workspace, temperature: float) -> Int[Tensor, "samples length"]:
    """Return texts, each token drawn given those before it; filled up by pads."""
    vocabulary, length = vocabulary_of(work.auxiliary), input_shape(work.auxiliary)[0]
    stream = rng.generator(0, "sampled texts")
    ids = torch.full((SAMPLES, length), vocabulary.pad)
    ids[:, 0] = vocabulary.bos
    going = torch.ones(SAMPLES, dtype=torch.bool)
    with evaluating(work, work.sent) as model, torch.no_grad():
        for place in range(1, length):
            logits = model(ids)[:, :, place - 1] / temperature
            logits[:, [vocabulary.pad, vocabulary.bos]] = -math.inf
            token = torch.multinomial(logits.softmax(dim=1), 1, generator=stream).squeeze(1)
            going &= token != vocabulary.eos
            ids[:, place] = token.where(going, vocabulary.pad)
            if not going.any():
                break
    return ids[:, 1:]


ATTACK = Attack(
    name="sampled-texts",
    family="text",
    on_device=True,
    infer=sampled_texts,
    needs=("vocabulary",),
    summary="texts sampled from the model sent, without any update",
    baseline=True,
    kinds=("language",),
    has_twin=False,
)
