"""Moments of the model sent: the fast way equals the whole forward pass."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary.text import reading
from adversary.text.moments import moments
from adversary.text.reading import target_moments
from adversary.workspace import workspace
from fedsim.core.errors import NotApplicable
from fedsim.core.memory import Memory
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from fedsim.core.vocabulary import Vocabulary
from tests.adversary.text.small import Small, texts

SIZE, LENGTH = 256, 16
WORDS = Vocabulary(tuple(b"" if i < 3 else f" w{i}".encode() for i in range(SIZE)))
INPUTS, TARGETS = texts(60)


class Whole(Small):
    """A model that takes texts of one length alone."""

    def forward(self, ids):
        if ids.shape[1] != LENGTH:
            raise ValueError(f"ids: must be {LENGTH} a text, got {ids.shape[1]}")
        return super().forward(ids)


class Backwards(Small):
    """What it takes at a position depends on the number of pads behind it."""

    def features(self, ids):
        return super().features(ids) + (ids == 0).sum(dim=1)[:, None, None]


class Twice(Small):
    """Multiplies by the head's weight twice; the second product is the logits."""

    def forward(self, ids):
        features = self.features(ids)
        surprise = self.head(features).logsumexp(dim=2, keepdim=True)
        return self.head(features * surprise.sigmoid()).transpose(1, 2)


def work_of(model: nn.Module):
    auxiliary = Auxiliary(
        model,
        SIZE,
        inputs=INPUTS,
        labels=TARGETS,
        input_shape=(LENGTH,),
        vocabulary=WORDS,
        per_token=True,
    )
    sent = {name: value.detach().clone() for name, value in model.state_dict().items()}
    latest = Observation(sent, Update(1, "0", {}, 1), LocalTraining(lr=0.1, batch_size=1))
    return workspace(View([latest], memory=Memory()), auxiliary)


def taken(model, ids):
    """What the head takes last."""
    kept = []
    handle = model.head.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    with torch.no_grad():
        model(ids)
    handle.remove()
    return kept[-1]


@pytest.mark.twin
@pytest.mark.parametrize("kind", [Small, Whole, Backwards, Twice])
def test_moments_are_those_of_whole_texts_in_float64(kind):
    model = kind()
    got = target_moments(work_of(model))
    real = TARGETS >= 0
    features = taken(model, INPUTS)[real].double()
    weight = model.head.weight.detach().double()
    expected = moments(features, weight, TARGETS[real])
    assert torch.allclose(got.mean, expected.mean, atol=1e-7)
    assert torch.allclose(got.squares, expected.squares, rtol=1e-4)
    assert torch.equal(got.rates, expected.rates)
    back = [torch.linalg.pinv(it.whiten) for it in (got, expected)]
    assert torch.allclose(got.target @ back[0], expected.target @ back[1], atol=1e-4)


@pytest.mark.parametrize(("kind", "cut"), [(Small, True), (Whole, False), (Backwards, False)])
def test_pads_are_cut_off_where_they_count_for_nothing(kind, cut, monkeypatch):
    lengths, features = [], reading._features
    monkeypatch.setattr(
        reading, "_features", lambda m, ids, t: lengths.append(ids.shape[1]) or features(m, ids, t)
    )
    work = work_of(kind())
    target_moments(work)
    assert (min(lengths[2:]) < LENGTH) == cut


def test_no_auxiliary_texts_are_refused():
    work = work_of(Small())
    bare = work.knowing(replace(work.auxiliary, inputs=None, labels=None))
    with pytest.raises(NotApplicable, match="must hold texts for this attack, got none"):
        target_moments(bare)
