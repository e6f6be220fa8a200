from dataclasses import replace

import pyarrow.compute as pc
import pytest
import torch
from torch.nn.functional import cross_entropy

from adversary.attacks.source_inference import source_inference
from adversary.grading.sources import pool_sources
from adversary.members.candidates import losses
from fedsim import api
from fedsim.config import Part
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining, View
from fedsim.run.attack_round import attack_round
from fedsim.run.prepare import prepare
from fedsim.run.run_folder import RunFolder
from tests.adversary import member_cases as cases
from tests.adversary.label_cases import client
from tests.builders import rows_without_seconds, small_config

ASKED = cases.KNOWN.candidates


def scores(view):
    return source_inference(view, cases.KNOWN, generator(0))


def test_it_is_minus_the_loss_of_the_local_model():
    view = client(cases.MODEL, cases.RECORDS[:16], cases.LABELS[:16], cases.WEIGHTS)
    latest = view.latest
    state = {name: latest.sent[name] + latest.update.delta[name] for name in latest.sent}
    logits = torch.func.functional_call(cases.MODEL, state, (ASKED.inputs,))
    expected = -cross_entropy(logits, ASKED.labels, reduction="none").detach().double()
    torch.testing.assert_close(scores(view), expected)


def test_of_a_gradient_it_is_how_fast_a_step_lowers_the_loss():
    view = client(cases.MODEL, cases.RECORDS[:16], cases.LABELS[:16], cases.GRADIENT)
    g = cases.own_gradients(cases.MODEL, ASKED.inputs, ASKED.labels)
    torch.testing.assert_close(scores(view), g @ g[:16].mean(dim=0), rtol=1e-4, atol=1e-4)


def test_one_small_step_of_weights_says_what_the_gradient_says():
    inputs, labels = cases.RECORDS[:16], cases.LABELS[:16]
    gradient, weights = (
        scores(client(cases.MODEL, inputs, labels, local))
        for local in (cases.GRADIENT, LocalTraining(1e-3, 16))
    )
    before = losses(cases.KNOWN, cases.SENT, smoothing=0.0)
    torch.testing.assert_close((weights + before) / 1e-3, gradient, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("upload", ["gradient", "weights"])
def test_a_sum_over_clients_is_judged_by_their_mean(upload):
    local = LocalTraining(0.05, 8, upload=upload)
    latest = client(cases.MODEL, cases.RECORDS[:8], cases.LABELS[:8], local).latest
    summed = {name: 3 * value for name, value in latest.update.delta.items()}
    update = replace(latest.update, delta=summed, num_clients=3)
    three = View([replace(latest, update=update)])
    torch.testing.assert_close(scores(three), scores(View([latest])), rtol=1e-4, atol=1e-5)


def test_clients_that_train_nothing_are_named_by_chance():
    views, truths = cases.round_of(0)
    still = [{name: torch.zeros_like(v) for name, v in cases.SENT.items()} for _ in views]
    for local in (cases.WEIGHTS, cases.GRADIENT):
        guesses = [
            scores(View([replace(v.latest, local=local, update=replace(v.latest.update, delta=d))]))
            for v, d in zip(views, still, strict=True)
        ]
        assert pool_sources(guesses, truths)["accuracy"] == 1 / len(views)


@pytest.mark.parametrize("local", [cases.GRADIENT, LocalTraining(0.1, 4, epochs=20)])
def test_sources_are_found_more_often_than_by_chance_or_label(local):
    found = []
    for seed in range(10):
        views, truths = cases.round_of(seed, local)
        found.append(pool_sources([scores(view) for view in views], truths))
    accuracy, label = (
        torch.tensor([value[name] for value in found]) for name in ("accuracy", "label_accuracy")
    )
    gain = accuracy - label
    assert float(gain.mean()) > 3 * float(gain.std()) / len(gain) ** 0.5


def test_a_model_that_blew_up_is_refused():
    view = client(cases.MODEL, cases.RECORDS[:16], cases.LABELS[:16], cases.WEIGHTS)
    huge = {name: torch.full_like(v, 1e38) for name, v in view.latest.update.delta.items()}
    blown = View([replace(view.latest, update=replace(view.latest.update, delta=huge))])
    with pytest.raises(ValueError, match="must compute finite numbers"):
        scores(blown)


def test_a_run_holds_rows_pooled_over_clients_and_rows_of_each(tmp_path):
    config = small_config(attack="source-inference,fedmia", auxiliary={"candidates": 200})
    run = api.run(config, tmp_path / "run")
    ledger = run.ledger()
    pooled = ledger.filter(pc.field("client").is_null()).to_pylist()
    assert [(row["round"], row["metric"]) for row in pooled] == [
        (round_, metric) for round_ in (1, 2, 3) for metric in ("accuracy", "label_accuracy")
    ]
    accuracy = [row for row in pooled if row["metric"] == "accuracy"]
    assert all(0 <= row["value"] <= 1 == row["ceiling"] for row in accuracy)
    prior = [row["value"] for row in pooled if row["metric"] == "label_accuracy"]
    assert all(value > 0.25 for value in prior)  # Dirichlet clients differ in their labels
    assert {row["blind"] for row in accuracy} != {row["value"] for row in accuracy}
    each = ledger.filter(pc.field("client").is_valid()).to_pylist()
    assert len(each) == 3 * 4 * (1 + 2)
    assert "source-inference" in (run.path / "report.html").read_text()
    api.attack(run.path, [Part(name="source-inference")])
    assert rows_without_seconds(run.ledger()) == rows_without_seconds(ledger)


@pytest.mark.usefixtures("undrawn")
def test_of_a_round_it_is_known_how_many_clients_used_each_candidate(tmp_path):
    config = small_config(attack="source-inference", auxiliary={"candidates": 200})
    run = api.run(config, tmp_path / "run")
    folder, plan = RunFolder(run.path), prepare(config)
    leaks, _, guesses = attack_round(plan, folder, 1)
    clients = torch.cat(plan.federated.clients)
    used = torch.isin(plan.candidates, clients)
    assert int(used.sum()) == 100
    assert len(guesses) == 4
    # Every candidate of a client is one client's in a partition: chance is a quarter at least.
    scores = torch.stack([guesses[f"source-inference/{k}"] for k in range(4)])[:, used]
    source = torch.stack([torch.isin(plan.candidates, rows) for rows in plan.federated.clients])
    accuracy = source[:, used].gather(0, scores.argmax(dim=0, keepdim=True)).double().mean()
    [row] = [leak for leak in leaks if leak.metric == "accuracy"]
    assert row.value == pytest.approx(float(accuracy))
