from dataclasses import replace

import pytest
import torch
from torch import nn

from adversary.adaptive.readings import likelihood_reading
from adversary.attacks.rmia import rmia, rmia_online
from adversary.grading.membership import grade_members
from adversary.members import references
from adversary.members.references import (
    chosen_factor,
    dominated,
    log_likelihood,
    mean_likelihood,
    with_factor,
)
from adversary.members.shadows import shadow_size, shadows, shown
from adversary.workspace import workspace
from defenses import Defense
from fedsim.core.errors import NotApplicable
from fedsim.core.ground_truth import Truth
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, Candidates
from tests.adversary import member_cases as cases
from tests.adversary.label_cases import client

BOTH = pytest.mark.parametrize("infer", [rmia, rmia_online], ids=["offline", "online"])
LOCALS = pytest.mark.parametrize("local", [cases.GRADIENT, cases.WEIGHTS], ids=["step", "epochs"])


def view_of(local=cases.WEIGHTS, rows=slice(0, 16)):
    return client(cases.MODEL, cases.RECORDS[rows], cases.LABELS[rows], local)


def probabilities(observation, records):
    """p(label | input) under a client's local model, by hand; float64."""
    step = 1.0 if observation.local.upload == "weights" else -observation.local.lr
    state = {n: v + step * observation.update.delta[n] for n, v in observation.sent.items()}
    logits = torch.func.functional_call(cases.MODEL, state, (records.inputs,))
    return logits.double().softmax(dim=1).gather(1, records.labels.unsqueeze(1))[:, 0].detach()


@BOTH
@LOCALS
def test_a_model_that_memorises_gives_every_member_away(infer, local):
    """Records that share no parameter: training on one moves no other."""
    model = nn.Linear(120, 2, bias=False)
    nn.init.zeros_(model.weight)
    records, labels = torch.eye(120), torch.arange(120) % 2
    auxiliary = Auxiliary(
        model, 2, inputs=records[40:], labels=labels[40:],
        candidates=Candidates(records[:40], labels[:40]),
    )  # fmt: skip
    rows = torch.arange(0, 40, 3)
    view = client(model, records[rows], labels[rows], local)
    members = torch.isin(torch.arange(40), rows)
    truth = Truth(labels[rows], rows, members, labels[:40])
    guess = infer(view, auxiliary, generator(0))
    assert grade_members(guess, truth) == pytest.approx({"auroc": 1.0, "advantage": 1.0})


@BOTH
def test_records_that_are_drawn_after_training_are_at_chance(infer):
    values = []
    for seed in range(4):
        views, _ = cases.round_of(seed, cases.WEIGHTS, clients=1)
        drawn = torch.randperm(100, generator=generator(seed, "drawn"))
        fresh = replace(
            cases.KNOWN, candidates=Candidates(cases.RECORDS[200:300], cases.LABELS[200:300])
        )
        members = torch.isin(torch.arange(100), drawn[:50])
        truth = Truth(cases.LABELS[:50], drawn[:50], members, cases.LABELS[200:300])
        values.append(grade_members(infer(views[0], fresh, generator(0)), truth)["auroc"])
    error = (101 / (12 * 50 * 50 * 4)) ** 0.5  # of a mean of four AUROCs without a signal
    assert abs(sum(values) / 4 - 0.5) < 4 * error


@BOTH
@LOCALS
def test_members_are_told_from_others(infer, local):
    assert float(cases.aurocs(infer, local=local, trials=3).mean()) > 0.55


@LOCALS
def test_offline_it_is_the_ratio_of_the_paper(local):
    view, a = view_of(local), 0.3
    work = workspace(view, cases.KNOWN)
    rehearsed = shadows(work, shadow_size(view.latest))
    population = rehearsed.auxiliary.candidates
    ratios = []
    for records, known in ((cases.CANDIDATES, False), (population, True)):
        p = torch.stack([probabilities(it.observation, records) for it in rehearsed.clients])
        members = torch.stack([it.members for it in rehearsed.clients])
        use = ~members if known else torch.ones_like(p, dtype=torch.bool)
        out = (p * use).sum(dim=0) / use.sum(dim=0)
        base = 0.5 * ((1 + a) * out + 1 - a)
        ratios.append(probabilities(view.latest, records) / base)
    x, z = ratios
    expected = ((x.unsqueeze(1) / z) > 1.0).double().mean(dim=1)
    guess = rmia(view, cases.KNOWN, generator(0), a=a)
    torch.testing.assert_close(guess, expected, rtol=0, atol=2.5 / len(z))  # a tie by rounding


def test_online_every_record_is_with_one_client_and_missing_from_another():
    view = view_of()
    work = workspace(view, cases.KNOWN)
    population = shadows(work, 16).auxiliary.candidates
    records = Candidates(
        torch.cat([cases.CANDIDATES.inputs, population.inputs]),
        torch.cat([cases.CANDIDATES.labels, population.labels]),
    )
    dealt = references.dealt(work, records, 16)
    members = torch.stack([it.members for it in dealt])
    assert bool(members.any(dim=0).all())
    assert bool((~members).any(dim=0).all())
    p = torch.stack([probabilities(it.observation, records) for it in dealt])
    expected = [
        0.5 * (p[members[:, r], r].mean() + p[~members[:, r], r].mean())
        for r in range(len(records.labels))
    ]
    base = references.online(work, 16, None)
    found = torch.cat([base.candidates, base.population]).exp()
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_share_of_the_population_is_counted_pair_by_pair(gamma):
    stream = generator(0, "pairs")
    x, z = (torch.randint(-3, 4, (n,), generator=stream).double() for n in (30, 50))
    score = dominated(x * torch.tensor(2.0).log(), z * torch.tensor(2.0).log(), gamma)
    pairs = 2.0 ** (x.unsqueeze(1) - z)
    expected = ((pairs > gamma).double() + (pairs == gamma) / 2).mean(dim=1)
    # The powers of two are exact; their logarithms are not, by less than any other power is away.
    assert float((score - expected).abs().max()) <= float((pairs == gamma).double().mean(1).max())
    assert torch.equal(score.sort().values, score[x.argsort(stable=True)])


def test_a_mean_of_likelihoods_leaves_out_clients_that_had_the_record():
    values = torch.tensor([[0.2, 0.5], [0.4, 0.7], [0.9, 0.1]], dtype=torch.float64).log()
    use = torch.tensor([[True, False], [True, False], [False, False]])
    assert mean_likelihood(values, use).exp().tolist() == pytest.approx([0.3, 1.3 / 3])
    base = torch.tensor([0.5, 0.1], dtype=torch.float64)
    assert with_factor(base.log(), 1.0).exp().tolist() == pytest.approx([0.5, 0.1])
    assert with_factor(base.log(), 0.4).exp().tolist() == pytest.approx([0.65, 0.37])


def test_the_factor_is_the_one_that_tells_rehearsed_members_best():
    """Of unlikely records the likelihood is loud: their ratio alone says little."""
    stream = generator(0, "factor")
    p = torch.linspace(0.001, 0.9, 200, dtype=torch.float64)
    noise = torch.randn(6, 200, generator=stream, dtype=torch.float64)
    members = torch.rand(6, 200, generator=stream) < 0.3
    out = (p.log() + noise * (1 - p)).exp().clamp(max=0.99)
    values = torch.where(members, 0.5 * out + 0.5, out).log()
    labels = torch.zeros(200, dtype=torch.int64)
    assert chosen_factor(values, members, labels) < 0.9
    quiet = torch.where(members, p.clamp(max=0.5) * 1.01, p.clamp(max=0.5)).log()
    assert chosen_factor(quiet, members, labels) > 0.9


def test_who_knows_the_defense_compares_with_defended_clients():
    defense = Defense(name="half", apply=lambda p, s, g: ({n: v / 2 for n, v in p.items()}, s))
    view = view_of()
    work = workspace(view, replace(cases.KNOWN, defense=defense))
    reading = likelihood_reading(work, 16)
    shown_so = shadows(work, 16).clients[slice(None) if reading is None else references.LEARNED]
    clients = [references.read(shown(it, work), reading) for it in shown_so]
    values = torch.stack([log_likelihood(it, cases.KNOWN) for it in clients])
    expected = values.exp().mean(dim=0).log()
    read_so = references.offline(work, 16, 1.0, cases.KNOWN, reading)
    torch.testing.assert_close(read_so.candidates, expected)
    plain = references.offline(workspace(view, cases.KNOWN), 16, 1.0, cases.KNOWN, None)
    assert not torch.allclose(plain.candidates, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("infer", "options", "sentence"),
    [
        (rmia, {"a": 1.5}, r"a: must be in \[0, 1\], got 1.5"),
        (rmia, {"gamma": 0.0}, "gamma: must be positive, got 0.0"),
        (rmia_online, {"gamma": -1.0}, "gamma: must be positive, got -1.0"),
    ],
)
def test_an_option_out_of_range_is_refused(infer, options, sentence):
    with pytest.raises(NotApplicable, match=sentence):
        infer(view_of(), cases.KNOWN, generator(0), **options)


@BOTH
def test_a_client_that_tells_no_number_of_examples_is_refused(infer):
    latest = view_of().latest
    update = replace(latest.update, num_examples=None)
    view = replace(view_of(), observations=[replace(latest, update=update)])
    with pytest.raises(NotApplicable, match="num_examples: must be told by the client, got none"):
        infer(view, cases.KNOWN, generator(0))
