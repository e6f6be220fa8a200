import pyarrow.compute as pc
import pytest
import torch
from torch import nn

from adversary.attacks.cosine_mia import cosine_mia
from adversary.grading import selection
from adversary.grading.families import FAMILIES
from adversary.members.candidates import CHUNK
from fedsim import api
from fedsim.config import Part
from fedsim.core.errors import ConfigError
from fedsim.core.ground_truth import Truth
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Auxiliary, Candidates, LocalTraining
from fedsim.models.resnet18 import resnet18
from fedsim.run.prepare import prepare
from fedsim.run.run_folder import RunFolder
from fedsim.run.truth import with_members
from tests.adversary.label_cases import client
from tests.builders import (
    bilinear,
    observe,
    plain_gradient,
    rows_without_seconds,
    same_params,
    small_config,
)

STREAM = generator(0, "cosine")
INPUTS, LABELS = torch.randn(CHUNK + 20, 4, generator=STREAM), torch.arange(CHUNK + 20) % 3
MODEL = bilinear(3, features=8)
KNOWN = Auxiliary(MODEL, 3, candidates=Candidates(INPUTS, LABELS))


def scores(view, known=KNOWN):
    return cosine_mia(view, known, generator(0))


def by_loop(model, view, inputs, labels):
    """Take every gradient by itself, and its cosine with the update."""
    local, found = view.latest.local, []
    update = torch.cat([view.latest.update.delta[n].flatten() for n, _ in model.named_parameters()])
    update = update if local.upload == "gradient" else -update
    for x, y in zip(inputs.split(1), labels.split(1), strict=True):
        smooth = local.label_smoothing
        loss = nn.functional.cross_entropy(model(x), y, label_smoothing=smooth)
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        whole = torch.cat([part.flatten() for part in gradient])
        found.append(nn.functional.cosine_similarity(whole, update, dim=0))
    return torch.stack(found).double()


@pytest.mark.parametrize(
    "local",
    [
        LocalTraining(0.1, 8, upload="gradient"),
        LocalTraining(0.1, 8, epochs=2),
        LocalTraining(0.1, 8, label_smoothing=0.2),
    ],
)
def test_one_pass_along_the_update_equals_a_gradient_per_candidate(local):
    view = client(MODEL, INPUTS[:30], LABELS[:30], local)
    torch.testing.assert_close(
        scores(view), by_loop(MODEL, view, INPUTS, LABELS), rtol=1e-4, atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_deep_network_in_evaluation_mode(norm):
    with global_stream(0, "deep"):
        model = resnet18((1, 16, 16), 3, norm=norm).train()
    inputs = torch.rand(4, 1, 16, 16, generator=generator(0, "deep"))
    known = Auxiliary(model, 3, candidates=Candidates(inputs, LABELS[:4]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    local = LocalTraining(0.01, 2, upload="gradient")
    view = client(model, inputs[:2], LABELS[:2], local)
    found = scores(view, known)
    assert same_params(model.state_dict(), before)
    assert model.training
    model.load_state_dict(dict(view.latest.sent))
    expected = by_loop(model.eval(), view, inputs, LABELS[:4])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("factor", [3.0, 1e-12, 1e12])
def test_the_length_of_the_update_does_not_matter(factor):
    view = client(MODEL, INPUTS[:30], LABELS[:30], LocalTraining(0.1, 8))
    longer = {name: factor * value for name, value in view.latest.update.delta.items()}
    local, sent = view.latest.local, view.latest.sent
    again = scores(observe(longer, 30, local=local, sent=sent))
    torch.testing.assert_close(again, scores(view), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("upload", ["gradient", "weights"])
def test_the_only_training_example_has_cosine_one(upload):
    for row in (0, 5, CHUNK + 7):
        one = slice(row, row + 1)
        view = client(MODEL, INPUTS[one], LABELS[one], LocalTraining(0.1, 1, upload=upload))
        found = scores(view)
        assert float(found[row]) == pytest.approx(1.0, abs=1e-4)
        assert int(found.argmax()) == row
        assert float(found.abs().max()) <= 1 + 1e-5


def test_one_step_of_weights_says_what_the_gradient_says():
    gradient = client(MODEL, INPUTS[:9], LABELS[:9], LocalTraining(0.1, 9, upload="gradient"))
    weights = client(MODEL, INPUTS[:9], LABELS[:9], LocalTraining(0.1, 9))
    torch.testing.assert_close(scores(gradient), scores(weights), rtol=1e-3, atol=1e-4)


def test_an_update_of_zeros_points_nowhere():
    zeros = {name: torch.zeros_like(value) for name, value in MODEL.state_dict().items()}
    assert torch.equal(scores(observe(zeros, 4, sent=MODEL)), torch.zeros(len(LABELS)).double())


def test_a_layer_that_is_not_trained_is_not_looked_at():
    model = bilinear(3, features=8)
    for parameter in list(model.parameters())[:2]:
        parameter.requires_grad_(False)
    known = Auxiliary(model, 3, candidates=Candidates(INPUTS, LABELS))
    local = LocalTraining(0.1, 8, upload="gradient")
    gradient = plain_gradient(MODEL, INPUTS[:8], LABELS[:8])
    junk = {**gradient, "0.weight": torch.full_like(gradient["0.weight"], 1e9)}
    found = [scores(observe(g, 8, local=local, sent=MODEL), known) for g in (gradient, junk)]
    assert torch.equal(*found)


def test_members_of_a_small_batch_are_found_and_of_another_batch_are_not():
    values = {True: [], False: []}
    for seed in range(20):
        rows = torch.randperm(len(LABELS), generator=generator(seed, "batch"))
        batch, other = rows[:4], rows[4:8]
        gradient = plain_gradient(MODEL, INPUTS[batch], LABELS[batch])
        found = scores(observe(gradient, 4, sent=MODEL))
        for mine, who in ((True, batch), (False, other)):
            members = torch.isin(torch.arange(len(LABELS)), who)
            truth = Truth(LABELS[who], who, members, LABELS)
            values[mine].append(FAMILIES["membership"].grade(found, truth)["auroc"])
    assert sum(values[True]) / 20 > 0.7
    assert sum(values[False]) / 20 < 0.6


def test_without_candidates_it_says_so():
    with pytest.raises(
        ConfigError, match="attack.cosine-mia: needs auxiliary candidates, got none"
    ):
        selection.build([Part(name="cosine-mia")], Auxiliary(MODEL, 3))
    with pytest.raises(ConfigError, match="needs auxiliary candidates, got none"):
        prepare(small_config(attack="cosine-mia", auxiliary={"candidates": 0}))


def test_candidates_are_half_clients_rows_and_half_test_rows():
    plan = prepare(small_config(attack="cosine-mia", auxiliary={"candidates": 60}))
    rows, asked, dataset = plan.candidates, plan.auxiliary.candidates, plan.federated.dataset
    theirs = rows[rows >= 0]
    assert (len(rows), len(theirs), len(theirs.unique())) == (60, 30, 30)
    assert set(theirs.tolist()) <= set(torch.cat(plan.federated.clients).tolist())
    assert torch.equal(asked.inputs[rows >= 0], dataset.inputs[theirs])
    assert torch.equal(asked.labels[rows >= 0], dataset.labels[theirs])
    assert torch.equal(prepare(plan.config).candidates, rows)
    assert not torch.equal(prepare(plan.config.model_copy(update={"seed": 1})).candidates, rows)


def test_candidates_are_drawn_where_an_attack_asks_and_are_fewer_where_there_are_fewer_rows():
    assert prepare(small_config(attack="llg")).auxiliary.candidates is None
    plan = prepare(small_config(attack="cosine-mia", auxiliary={"candidates": 10_000}))
    private = sum(map(len, plan.federated.clients))
    assert int((plan.candidates >= 0).sum()) == private
    assert len(plan.candidates) == private + len(plan.federated.dataset.test_labels)


def test_the_truth_of_candidates_are_the_rows_used_in_the_round():
    plan = prepare(small_config(attack="cosine-mia"))
    used = plan.candidates[[3, 8, 8]]
    truth = with_members(plan, Truth(torch.zeros(3), used))
    assert truth.members.nonzero()[:, 0].tolist() == [3, 8]
    assert torch.equal(truth.classes, plan.auxiliary.candidates.labels)
    assert with_members(plan, None) is None


def test_a_run_holds_both_families_in_its_ledger_and_its_report(tmp_path):
    config = small_config(attack="llg,cosine-mia", defense="sign", federation={"rounds": 1})
    run = api.run(config, tmp_path / "run")
    ledger = run.ledger()
    static = (pc.field("attack") == "cosine-mia") & ~pc.field("adaptive")
    rows = ledger.filter(static).to_pylist()
    assert len(rows) == 4 * 1 * 2
    assert {row["family"] for row in rows} == {"membership"}
    assert {row["blind"] for row in rows if row["metric"] == "auroc"} == {0.5}
    assert all(0 <= row["value"] <= 1 for row in rows)
    attacks = {(row["attack"], row["adaptive"]) for row in ledger.to_pylist()}
    assert attacks == {(name, twin) for name in ("llg", "cosine-mia") for twin in (False, True)}
    page = (run.path / "report.html").read_text()
    assert "cosine-mia" in page
    assert "AUROC" in page
    guess = RunFolder(run.path).guesses(1)["cosine-mia/0"]
    assert guess.shape == prepare(config).candidates.shape
    api.attack(run.path, [Part(name="cosine-mia")])
    assert rows_without_seconds(run.ledger()) == rows_without_seconds(ledger)
