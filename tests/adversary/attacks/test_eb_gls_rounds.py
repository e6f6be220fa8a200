from functools import partial

import pytest
import torch

from adversary.attacks.eb_gls import eb_gls
from adversary.attacks.eb_gls_rounds import agree, eb_gls_rounds, evidence, stacked, with_history
from adversary.carried import same_data
from adversary.grading.counts import grade as grade_counts
from adversary.labels.posterior import Evidence
from adversary.workspace import workspace
from clients.train import train
from fedsim.core.ground_truth import Truth
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining, Observation, Update, View
from tests.builders import bilinear

CLASSES = 5
MODEL = bilinear(CLASSES, features=12)
MEANS = torch.randn(CLASSES, 4, generator=generator(0, "means"))


def draw(labels, *names):
    return MEANS[labels] + 1.5 * torch.randn(len(labels), 4, generator=generator(0, *names))


AUX_LABELS = torch.arange(300) % CLASSES
AUXILIARY = Auxiliary(MODEL, CLASSES, inputs=draw(AUX_LABELS, "auxiliary"), labels=AUX_LABELS)


def federation(seed, rounds, local, noise=0.0, size=24):
    """One client that trains on alone, each time from its own upload; its view and last truth."""
    stream = generator(seed, "client")
    labels = torch.multinomial(
        torch.tensor([0.5, 0.3, 0.1, 0.1, 0.0]), size, True, generator=stream
    )
    inputs = draw(labels, "client", seed)
    sent = {
        name: value.clone() for name, value in bilinear(CLASSES, features=12).state_dict().items()
    }
    observations, used = [], labels
    for round_ in range(1, rounds + 1):
        state, used = train(MODEL, sent, inputs, labels, local, generator=stream)
        if local.upload == "gradient":
            delta, after = state, {k: sent[k] - local.lr * state[k] for k in sent}
        else:
            delta, after = {k: state[k] - sent[k] for k in sent}, state
        count = len(used) if local.upload == "gradient" else size
        delta = {
            name: value + noise * torch.randn(value.shape, generator=stream)
            for name, value in delta.items()
        }
        observations.append(Observation(sent, Update(round_, "0", delta, count), local))
        sent = after
    return View(observations), Truth(labels[used], used)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("local", "noise", "seeds"),
    [
        pytest.param(
            LocalTraining(lr=0.3, batch_size=4, epochs=3), 0.0, 8,
            marks=pytest.mark.slow, id="weights",
        ),
        pytest.param(
            LocalTraining(lr=0.1, batch_size=12, upload="gradient"), 0.2, 20, id="gradient"
        ),
    ],
)  # fmt: skip
@pytest.mark.contract
def test_later_rounds_are_answered_better_than_from_one_update(local, noise, seeds):
    gains = []
    single = partial(eb_gls, refine="" if noise else "search")  # the same reading of one update
    for seed in range(seeds):
        view, truth = federation(seed, 8, local, noise)
        all_, one = (
            grade_counts(attack(view, AUXILIARY, generator(0)), truth)["asr"]
            for attack in (eb_gls_rounds, single)
        )
        gains.append(all_ - one)
    gains = torch.tensor(gains)
    assert float(gains.mean()) > 2 * float(gains.std()) / seeds**0.5


def test_one_round_is_the_single_update_attack():
    view, _ = federation(3, 1, LocalTraining(lr=0.3, batch_size=4, epochs=3))
    assert torch.equal(
        eb_gls_rounds(view, AUXILIARY, generator(0)), eb_gls(view, AUXILIARY, generator(0))
    )


def form(precision, counts):
    q = precision * torch.eye(len(counts), dtype=torch.float64)
    n = torch.tensor(counts, dtype=torch.float64)
    return Evidence(q, q @ n, torch.zeros_like(n), int(n.sum()))


def test_a_round_that_contradicts_a_surer_one_is_hardly_heard():
    sure, wrong = form(100.0, [8, 1, 1]), form(1.0, [1, 1, 8])
    posterior = agree(stacked([sure, wrong, wrong]), wrong)
    assert posterior.whole(posterior.most_likely()).tolist() == [8, 1, 1]


def test_rounds_that_agree_add_up():
    told = [form(1.0, [7, 2, 1])] * 9
    posterior = agree(stacked(told), told[-1])
    assert torch.allclose(posterior.most_likely(), torch.tensor([7.0, 2.0, 1.0]).double(), atol=0.4)


def test_history_is_a_prior_for_the_last_batch():
    told = stacked([form(50.0, [6, 2, 2])] * 10)
    vague = form(1e-4, [0, 0, 10])
    after = with_history(told, vague)
    assert after.whole(after.most_likely()).tolist() == [6, 2, 2]
    certain = with_history(told, form(100.0, [0, 0, 10]))
    assert certain.whole(certain.most_likely()).tolist() == [0, 0, 10]


def test_only_updates_from_the_same_data_count():
    local = LocalTraining(lr=0.3, batch_size=4)
    first, second = (Observation({}, Update(1, "0", {}, size), local) for size in (24, 25))
    assert same_data(first, first)
    assert not same_data(first, second)
    assert not same_data(Observation({}, first.update, LocalTraining(lr=0.1, batch_size=4)), first)


def test_evidence_is_kept_by_what_was_observed():
    local = LocalTraining(lr=0.3, batch_size=4, epochs=2)
    view, _ = federation(1, 2, local)
    work, earlier = workspace(view, AUXILIARY), view.observations[0]
    first, second = (evidence(seen, work.at(seen)) for seen in view.observations)
    same = Observation({**earlier.sent}, earlier.update, earlier.local)  # read from disk again
    assert evidence(same, work.at(same)) is first
    assert second is not first
    other = work.knowing(Auxiliary(MODEL, CLASSES, inputs=AUXILIARY.inputs, labels=AUX_LABELS))
    assert evidence(earlier, other.at(earlier)) is not first


def test_a_negative_number_of_rounds_is_refused():
    view, _ = federation(1, 1, LocalTraining(lr=0.3, batch_size=4))
    with pytest.raises(ValueError, match="rounds must be at least 0, got -1"):
        eb_gls_rounds(view, AUXILIARY, generator(0), rounds=-1)
