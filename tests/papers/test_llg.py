"""LLG's figures in papers/label.md, section 1.5, measured there with the official code."""

import os
from pathlib import Path

import pytest
import torch

from adversary.attacks.llg import llg
from adversary.families import FAMILIES
from clients.train import train
from fedsim import data, models
from fedsim.rng import generator
from fedsim.types import LocalTraining, Truth
from tests.builders import auxiliary_of, observe, small_config

pytestmark = pytest.mark.paper

SHARED = Path(os.environ.get("FEDSIM_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
UNBALANCED = {1: 1.0, 2: 0.883, 4: 0.867, 8: 0.892, 16: 0.885, 32: 0.847, 64: 0.837, 128: 0.855}


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    if not (SHARED / "mnist").exists():
        pytest.skip(f"no MNIST in {SHARED}")
    root = tmp_path_factory.mktemp("mnist")
    for path in (SHARED / "mnist" / "MNIST").rglob("*.gz"):
        copy = root / path.relative_to(SHARED / "mnist")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return data.mnist(root)


def unbalanced(dataset, size, stream):
    """⌊B/2⌋ of one class, ⌊B/4⌋ of another, the rest at random."""
    first, second = torch.randperm(10, generator=stream)[:2].tolist()
    rows = []
    for label, count in ((first, size // 2), (second, size // 4)):
        own = torch.nonzero(dataset.labels == label)[:, 0]
        rows.append(own[torch.randint(len(own), (count,), generator=stream)])
    left = size - sum(map(len, rows))
    rows.append(torch.randint(len(dataset.labels), (left,), generator=stream))
    return torch.cat(rows)


@pytest.mark.parametrize("size", UNBALANCED)
def test_untrained_lenet_unbalanced_batches(mnist, size):
    rates = []
    for trial in range(60):
        stream = generator(trial, "paper", size)
        model = models.build(small_config(model="lenet", seed=trial), (1, 28, 28), 10)
        rows = unbalanced(mnist, size, stream)
        sent = {name: value.clone() for name, value in model.state_dict().items()}
        local = LocalTraining(lr=0.1, batch_size=size, upload="gradient")
        gradient, _ = train(
            model, sent, mnist.inputs[rows], mnist.labels[rows], local, generator=stream
        )
        view = observe(gradient, size, local=local)
        guess = llg(view, auxiliary_of(model, 10), stream)
        truth = Truth(mnist.labels[rows], rows)
        rates.append(FAMILIES["label"].grade(guess, truth)["asr"])
    # Six initialisations there, sixty here; ± 6 points covers the figures' own spread.
    assert sum(rates) / len(rates) == pytest.approx(UNBALANCED[size], abs=0.06)
