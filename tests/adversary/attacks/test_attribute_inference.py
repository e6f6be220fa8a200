from dataclasses import replace

import pyarrow.compute as pc
import pytest
import torch

from adversary.attacks.attribute_inference import attribute_inference
from adversary.grading.families import FAMILIES
from adversary.members.imputation import imputed
from fedsim import api
from fedsim.core.errors import ConfigError
from fedsim.core.ground_truth import Truth
from fedsim.core.memory import Memory
from fedsim.core.rng import generator
from fedsim.core.secrets import Encoding
from fedsim.core.types import Auxiliary, Candidates, LocalTraining, View
from fedsim.data import Attribute, Dataset
from fedsim.run.prepare import prepare
from tests.adversary.label_cases import client
from tests.builders import bilinear, same_params, small_config

pytestmark = pytest.mark.usefixtures("undrawn")

STREAM = generator(0, "attribute")
SECRET = torch.rand(800, generator=STREAM) < 0.5
INPUTS = torch.randn(800, 4, generator=STREAM)
INPUTS[:, 0] += 1.0 * SECRET  # the rest of a record tells something of it
INPUTS[:, 2:] = torch.stack([~SECRET, SECRET], dim=1).float()
LABELS = torch.randint(3, (800,), generator=STREAM)
ENCODING = Encoding(torch.tensor([2, 3]), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
MODEL = bilinear(3, features=12)
SENT = {name: value.clone() for name, value in MODEL.state_dict().items()}
KNOWN = Auxiliary(
    MODEL,
    3,
    inputs=INPUTS[200:],
    labels=LABELS[200:],
    candidates=Candidates(INPUTS[:200], LABELS[:200]),
    marks={"attribute": SECRET[200:].long()},
    encoding=ENCODING,
)
MEMORY = Memory()  # predictors are learned for all tests
GRADIENT = LocalTraining(0.1, 6, upload="gradient")


def seen(seed, local=GRADIENT):
    rows = torch.randperm(200, generator=generator(seed, "rows"))[:6]
    latest = client(MODEL, INPUTS[rows], LABELS[rows], local, seed=seed).latest
    members = torch.isin(torch.arange(200), rows)
    truth = Truth(LABELS[rows], rows, members, LABELS[:200], attributes=SECRET[:200])
    return View([replace(latest, sent=SENT)], memory=MEMORY), truth


@pytest.mark.parametrize("local", [GRADIENT, LocalTraining(0.1, 3, epochs=2)])
def test_it_names_more_than_imputation(local):
    grade = FAMILIES["attribute"].grade
    right, blind = [], []
    for seed in range(15):
        view, truth = seen(seed, local)
        right.append(grade(attribute_inference(view, KNOWN, generator(0)), truth)["accuracy"])
        blind.append(grade(imputed(KNOWN), truth)["accuracy"])
    assert 0.55 < sum(blind) / 15 < 0.85
    assert sum(right) > sum(blind) + 15 * 0.08


def test_the_candidates_own_attribute_is_not_looked_at():
    flipped = ENCODING.put(INPUTS[:200], (~SECRET[:200]).long())
    other = replace(KNOWN, candidates=Candidates(flipped, LABELS[:200]))
    view, _ = seen(0)
    torch.testing.assert_close(
        attribute_inference(view, KNOWN, generator(0)),
        attribute_inference(view, other, generator(0)),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip


def test_noise_in_place_of_the_update_is_worth_what_imputation_is():
    right, blind = [], []
    for seed in range(15):
        view, truth = seen(seed)
        noise = {n: torch.randn(v.shape, generator=generator(seed, n)) for n, v in SENT.items()}
        latest = replace(view.latest, update=replace(view.latest.update, delta=noise))
        grade = lambda guess: FAMILIES["attribute"].grade(guess, truth)["accuracy"]
        right.append(grade(attribute_inference(View([latest], memory=MEMORY), KNOWN, generator(0))))
        blind.append(grade(imputed(KNOWN)))
    assert sum(right) < sum(blind) + 15 * 3.5 * 0.5 / 90**0.5


def test_grades_by_hand():
    members = torch.tensor([True, True, True, False])
    secret = torch.tensor([True, False, True, True])
    truth = Truth(torch.zeros(3), torch.arange(3), members, torch.zeros(4), attributes=secret)
    found = FAMILIES["attribute"].grade(torch.tensor([2.0, 1.0, 0.0, -9.0]), truth)
    assert found == {"auroc": 0.5, "accuracy": pytest.approx(0.5)}


def with_attribute(root):
    code = torch.eye(2)
    attribute = Attribute((2, 3), ("no", "yes"), code)
    words = torch.where(SECRET, 1, 0).numpy().astype(str)
    words = [{"0": "no", "1": "yes"}[w] for w in words]
    import numpy as np

    return Dataset(
        inputs=INPUTS,
        labels=LABELS,
        test_inputs=INPUTS[:40],
        test_labels=LABELS[:40],
        num_classes=3,
        columns={"secret": np.array(words), "other": np.array(words)},
        attributes={"secret": attribute},
    )


def config(column="secret"):
    return small_config(
        data={"name": "tests.adversary.attacks.test_attribute_inference:with_attribute"},
        model={"name": "mlp", "hidden": 8}, attack="aia",
        federation={"rounds": 1, "clients": 3, "strategy": "fedsgd"}, local={"epochs": 1},
        game={"column": column, "value": "yes"}, auxiliary={"share": 0.4, "candidates": 300},
    )  # fmt: skip


def test_a_run_holds_it_beside_imputation(tmp_path):
    ledger = api.run(config(), tmp_path / "run").ledger()
    rows = ledger.filter(pc.field("attack") == "aia").to_pylist()
    assert {row["metric"] for row in rows} == {"auroc", "accuracy"}
    assert {row["family"] for row in rows} == {"attribute"}
    blind = [row["blind"] for row in rows if row["metric"] == "accuracy"]
    assert all(0.3 < value < 1 for value in blind if value is not None)


def test_an_attribute_that_is_no_input_is_one_clear_sentence():
    with pytest.raises(ConfigError, match="attack.aia: needs auxiliary encoding, got none"):
        prepare(config("other"))


def test_setting_an_attribute_changes_nothing_else():
    twins = ENCODING.put(INPUTS, SECRET.long())
    assert same_params({"x": twins}, {"x": INPUTS})
    assert torch.equal(ENCODING.put(INPUTS, (~SECRET).long())[:, :2], INPUTS[:, :2])
