import pytest
import torch

from adversary.families import FAMILIES
from fedsim.rng import generator
from fedsim.types import Auxiliary, LocalTraining, Truth
from tests.builders import bilinear, observe, plain_gradient

LABEL = FAMILIES["label"]
MODEL = bilinear(3)


def truth(*labels):
    return Truth(torch.tensor(labels), torch.zeros(len(labels), dtype=torch.long))


@pytest.mark.parametrize(
    ("guess", "asr", "exact"),
    [([2, 1, 1], 1.0, 1.0), ([4, 0, 0], 0.5, 0.0), ([0, 2, 2], 0.5, 0.0), ([4, 2, 2], 0.5, 0.0)],
)
def test_asr_is_the_share_of_labels_named(guess, asr, exact):
    assert LABEL.grade(torch.tensor(guess), truth(0, 0, 1, 2)) == {"asr": asr, "exact": exact}
    assert set(LABEL.metrics) == {"asr", "exact"}


def view_of(size, epochs=1):
    gradient = plain_gradient(MODEL, torch.rand(2, 4), torch.tensor([0, 1]))
    return observe(
        gradient, size, local=LocalTraining(lr=0.1, batch_size=2, epochs=epochs, upload="gradient")
    )


def test_blind_is_the_auxiliary_prior_or_even():
    even = LABEL.blind(view_of(9), Auxiliary(MODEL, 3), generator(0))
    assert even.tolist() == [3, 3, 3]
    prior = Auxiliary(MODEL, 3, labels=torch.tensor([0, 0, 0, 2]))
    assert LABEL.blind(view_of(4, epochs=2), prior, generator(0)).tolist() == [6, 0, 2]


def test_blind_does_not_look_at_the_update():
    one = LABEL.blind(view_of(7), Auxiliary(MODEL, 3), generator(3))
    gradient = {name: value * 100 - 7 for name, value in view_of(7).latest.update.delta.items()}
    other = LABEL.blind(observe(gradient, 7), Auxiliary(MODEL, 3), generator(3))
    assert torch.equal(one, other)


def test_blind_reaches_the_closed_form_of_the_uniform_guess():
    # papers/label.md: uniform guess, IID labels, C = 10: 12.3 %, 34.2 %, 58.2 % at B = 1, 4, 8.
    for size, expected in ((1, 0.1), (4, 0.342), (8, 0.582)):
        rates = []
        for trial in range(600):
            labels = torch.randint(10, (size,), generator=generator(trial, "labels"))
            guess = LABEL.blind(view_of(size), Auxiliary(MODEL, 10), generator(trial, "blind"))
            rates.append(LABEL.grade(guess, Truth(labels, labels))["asr"])
        assert sum(rates) / len(rates) == pytest.approx(expected, abs=0.04)
