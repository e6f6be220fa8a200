import math
from dataclasses import replace

import pyarrow.compute as pc
import pytest
import torch
from scipy.stats import binom

from adversary.attacks.shadow_inference import shadow_inference
from adversary.games.learn import SHADOWS
from adversary.grading import selection
from adversary.grading.families import FAMILIES
from adversary.secrets import SECRETS, prior, secret_of
from defenses import gaussian
from fedsim import api
from fedsim.config import Part
from fedsim.core.errors import ConfigError
from fedsim.core.ground_truth import Truth
from fedsim.core.memory import Memory
from fedsim.core.rng import generator
from fedsim.core.secrets import Rules
from fedsim.core.types import Auxiliary, LocalTraining, View
from fedsim.data import Dataset
from fedsim.run.prepare import prepare
from tests.adversary.label_cases import client
from tests.builders import bilinear, observe, small_config

MODEL = bilinear(3, features=12)
STREAM = generator(0, "shadow inference")
MARKS = torch.rand(900, generator=STREAM) < 0.4
INPUTS = torch.randn(900, 4, generator=STREAM)
INPUTS[:, 0] += 3.0 * MARKS  # what the property does to a record
LABELS = torch.randint(3, (900,), generator=STREAM)
RULES = Rules(1, shares=(0.2, 0.8), count=1, users=2)
KNOWN = Auxiliary(MODEL, 3, inputs=INPUTS[300:], labels=LABELS[300:], rules=RULES,
                  marks=dict.fromkeys(SECRETS, MARKS[300:].long()))  # fmt: skip
MEMORY = Memory()  # predictors are learned for all tests
SENT = {name: value.clone() for name, value in MODEL.state_dict().items()}
GRADIENT = LocalTraining(0.1, 20, upload="gradient")


def rows(family, secret, seed, size=20):
    """Return rows of a client whose secret is so."""
    stream = generator(seed, "client rows", family, secret)
    share = {"property": (0.0, 1 / size), "distribution": (0.2, 0.8), "user": (0.0, 1.0)}
    count = round(share[family][secret] * size)
    kinds = [torch.nonzero(MARKS[:300] == kind)[:, 0] for kind in (False, True)]
    drawn = [of[torch.randint(len(of), (n,), generator=stream)]
             for of, n in zip(kinds, (size - count, count), strict=True)]  # fmt: skip
    return torch.cat(drawn)


def seen(own, seed, local=GRADIENT):
    """Return a view of a client; all are sent the same weights."""
    latest = client(MODEL, INPUTS[own], LABELS[own], local, seed=seed).latest
    return View([replace(latest, sent=SENT)], memory=MEMORY)


def guess(family, secret, seed, known=KNOWN, local=GRADIENT):
    view = seen(rows(family, secret, seed), seed, local)
    return shadow_inference(view, known, generator(0), family=family)


@pytest.mark.parametrize("family", SECRETS)
def test_it_tells_the_secret_of_clients_it_has_not_seen(family):
    odds = {s: [float((g := guess(family, s, n))[1] - g[0]) for n in range(20)] for s in (0, 1)}
    beaten = sum(high > low for high in odds[1] for low in odds[0]) / 400
    assert beaten > (0.65 if family == "property" else 0.9)


@pytest.mark.slow
def test_trained_weights_tell_it_too():
    local = LocalTraining(0.05, 5, epochs=2)
    told = [int(guess("distribution", s, n, local=local).argmax()) == s
            for s in (0, 1) for n in range(20)]  # fmt: skip
    assert sum(told) >= 30


def test_noise_in_place_of_the_update_leaves_the_prior():
    values = []
    for seed in range(30):
        noise = {n: torch.randn(v.shape, generator=generator(seed, n))
                 for n, v in MODEL.state_dict().items()}  # fmt: skip
        latest = replace(observe(noise, 20, local=GRADIENT).latest, sent=SENT)
        view = View([latest], memory=MEMORY)
        found = shadow_inference(view, KNOWN, generator(0), family="distribution")
        truth = Truth(torch.zeros(20), torch.arange(20), secrets={"distribution": seed % 2})
        values.append(FAMILIES["distribution"].grade(found, truth)["accuracy"])
    assert abs(sum(values) / 30 - 0.5) < 3.5 * 0.5 / 30**0.5


@pytest.mark.slow
def test_knowing_the_noise_is_better_than_not():
    told = {}
    for name, defense in (("static", None), ("adaptive", gaussian(std=0.02))):
        known = Auxiliary(**{**vars(KNOWN), "defense": defense})
        right = 0.0
        for seed in range(24):
            own = rows("distribution", seed % 2, seed)
            latest = seen(own, seed).latest
            noisy = gaussian(std=0.02).apply(latest.update.delta, {}, generator(seed))[0]
            latest = replace(latest, update=replace(latest.update, delta=noisy))
            view = View([latest], memory=MEMORY)
            found = shadow_inference(view, known, generator(0), family="distribution")
            right += float(found[seed % 2])
        told[name] = right / 24
    assert told["adaptive"] >= told["static"] - 0.02


def test_what_is_true_of_a_client():
    marks = torch.tensor([0, 0, 0, 1])
    assert secret_of("property", marks, Rules(1, count=1)) == 1
    assert secret_of("property", marks, Rules(1, count=2)) == 0
    assert secret_of("distribution", marks, Rules(1, shares=(0.3, 0.5, 0.7))) == 0
    assert secret_of("user", torch.tensor([2, 2, -1, -1, -1, 0]), Rules(1, users=3)) == 2
    assert secret_of("user", torch.tensor([-1, -1]), Rules(1, users=3)) is None


def test_the_prior_of_a_property_is_that_of_random_records():
    view = client(MODEL, INPUTS[:3], LABELS[:3], GRADIENT)
    share = float(MARKS[300:].double().mean())
    found = prior("property", view, KNOWN).exp()
    assert float(found[1]) == pytest.approx(0.02 + 0.96 * binom.sf(0, 3, share))
    assert float(found.sum()) == pytest.approx(1.0)


def test_grades_by_hand():
    family = FAMILIES["distribution"]
    told = torch.tensor([0.8, 0.2]).double().log()
    truth = lambda s: Truth(torch.zeros(1), torch.zeros(1), secrets={"distribution": s})
    assert family.grade(told, truth(0)) == {
        "accuracy": 1.0, "bits": pytest.approx(math.log2(0.8) + 1),
    }  # fmt: skip
    assert family.grade(told, truth(1))["bits"] == pytest.approx(math.log2(0.2) + 1)
    blind = torch.tensor([0.5, 0.5]).log()
    assert family.grade(blind, truth(1)) == {"accuracy": 0.5, "bits": pytest.approx(0.0, abs=1e-6)}
    nobody = Truth(torch.zeros(1), torch.zeros(1))
    assert all(math.isnan(value) for value in family.grade(told, nobody).values())
    assert family.pool([told, told.flip(0)], [truth(0), truth(1)]) == {"auroc": 1.0}
    assert family.pool([blind, blind], [truth(0), truth(1)]) == {"auroc": 0.5}
    assert math.isnan(family.pool([told], [truth(0)])["auroc"])


def two_kinds(root):
    stream = generator(0, "two kinds")
    kind = torch.arange(600) % 2
    inputs = torch.randn(600, 4, generator=stream) + 2.0 * kind[:, None]
    labels = torch.randint(2, (600,), generator=stream)
    return Dataset(
        inputs=inputs,
        labels=labels,
        test_inputs=inputs[:50],
        test_labels=labels[:50],
        num_classes=2,
        columns={"kind": kind.numpy().astype(str), "who": torch.arange(600).numpy() % 4},
    )


DATA = {"name": "tests.adversary.attacks.test_shadow_inference:two_kinds"}
ASKED = {"column": "kind", "value": "1"}


@pytest.mark.slow
def test_a_run_has_rows_per_client_and_pooled_ones(tmp_path, monkeypatch):
    monkeypatch.setitem(SHADOWS, "gradient", 120)
    config = small_config(
        data={**DATA, "partition": "iid"}, model={"name": "mlp", "hidden": 8},
        federation={"rounds": 2, "clients": 3, "strategy": "fedsgd"}, local={"epochs": 1},
        attack="pia,dia", game=ASKED, auxiliary={"share": 0.4},
        defense=[{"name": "gaussian", "std": 0.001}],
    )  # fmt: skip
    ledger = api.run(config, tmp_path / "run").ledger()
    for name, family in (("pia", "property"), ("dia", "distribution")):
        for twin in (False, True):
            asked = (pc.field("attack") == name) & (pc.field("adaptive") == twin)
            own = ledger.filter(asked).to_pylist()
            assert {row["family"] for row in own} == {family}
            single = [row for row in own if row["client"] is not None]
            assert {row["metric"] for row in single} == {"accuracy", "bits"}
            assert len(single) == 2 * 3 * 2
            pooled = [row for row in own if row["client"] is None]
            assert [(row["round"], row["metric"]) for row in pooled] == [(1, "auroc"), (2, "auroc")]
            assert {row["ceiling"] for row in own if row["metric"] == "accuracy"} == {1.0}
    assert "pia" in (tmp_path / "run" / "report.html").read_text()


def test_users_are_told_apart(tmp_path):
    config = small_config(
        data={**DATA, "partition": "user", "users": "who"}, model={"name": "mlp", "hidden": 8},
        federation={"rounds": 1, "clients": 4}, attack="uia",
        game={"column": "who", "users": 4}, auxiliary={"share": 0.4},
    )  # fmt: skip
    rows_ = api.run(config, tmp_path / "run").ledger().to_pylist()
    assert len([row for row in rows_ if row["metric"] == "accuracy"]) == 4


@pytest.mark.parametrize(
    ("game", "sentence"),
    [
        ({}, "game.column: must name the secret column, got none"),
        ({"column": "knd", "value": "1"}, "game.column: must be a column, got 'knd'"),
        ({"column": "kind", "value": "7"}, "game.value: must be a value of kind, got '7'"),
        ({"column": "kind"}, "game.value: must be a value of kind, got none"),
    ],
)
def test_a_secret_that_is_not_there_is_one_clear_sentence(game, sentence):
    with pytest.raises(ConfigError, match=sentence):
        prepare(small_config(data=DATA, model="mlp", attack="pia", game=game))


def test_without_marks_it_says_so():
    with pytest.raises(ConfigError, match="attack.pia: needs auxiliary marks, got none"):
        selection.build([Part(name="pia")], Auxiliary(MODEL, 3, inputs=INPUTS, labels=LABELS))
