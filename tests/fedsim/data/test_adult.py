from pathlib import Path

import numpy as np
import pytest
import torch

from fedsim import data
from fedsim.config import Data
from fedsim.core.errors import ConfigError
from fedsim.data.adult import COLUMNS, adult
from tests.fedsim.data.table_cases import (
    assert_attributes_say_the_columns,
    assert_the_schema_says_the_columns,
)
from tests.real_data import present

PERSON = (
    "{age}, {work}, 77516, Bachelors, 13, Never-married, Sales, Not-in-family, {race}, {sex}, "
    "2174, 0, {hours}, United-States, {income}"
)


def person(age, work="Private", race="White", sex="Male", hours=40, income="<=50K") -> str:
    return PERSON.format(age=age, work=work, race=race, sex=sex, hours=hours, income=income)


def small_adult(root: Path) -> Path:
    """Write four people, of whom two differ in sex only, and one who lacks his work."""
    train = [
        person(30, sex="Male"),
        person(30, sex="Female"),
        person(41, work="?"),
        person(50, race="Black", hours=50, income=">50K"),
        person(60, work="State-gov", hours=60, income=">50K"),
    ]
    test = ["|1x3 Cross validator", person(30), person(40, race="Other", income=">50K") + "."]
    (root / "adult.data").write_text("\n".join(train) + "\n")
    (root / "adult.test").write_text("\n".join(test) + "\n")
    return root


def test_an_attribute_written_over_gives_the_twin(tmp_path):
    dataset = adult(small_adult(tmp_path))
    sex = dataset.attributes["sex"]
    assert sex.values == ("Female", "Male")
    for row, other, value in ((0, 1, "Female"), (1, 0, "Male")):
        assert not torch.equal(dataset.inputs[row], dataset.inputs[other])
        changed = dataset.inputs[row].clone()
        changed[list(sex.columns)] = sex.codes[sex.values.index(value)]
        assert torch.equal(changed, dataset.inputs[other])


def test_adult_is_encoded_by_its_training_rows(tmp_path):
    dataset = adult(small_adult(tmp_path))
    assert (len(dataset.labels), len(dataset.test_labels)) == (4, 2)
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert dataset.test_labels.tolist() == [0, 1]
    ages = np.array([30, 30, 50, 60])
    expected = (ages - ages.mean()) / ages.std(ddof=1)
    assert np.allclose(dataset.inputs[:, 0], expected)
    assert float(dataset.test_inputs[1, 0]) == pytest.approx((40 - 42.5) / 15, abs=1e-6)
    assert torch.equal(dataset.inputs[:, 1], torch.zeros(4))  # all alike: fnlwgt
    race = dataset.attributes["race"]
    assert race.values == ("Black", "White")
    unseen = dataset.test_inputs[:, list(race.columns)]
    assert unseen.tolist() == [[0, 1], [0, 0]]
    assert_attributes_say_the_columns(dataset)


@pytest.mark.parametrize(
    ("without", "gone"), [("sex", ["sex"]), (" sex,age ,race", ["age", "race", "sex"])]
)
def test_adult_without_a_column_keeps_it_beside_the_inputs(without, gone, tmp_path):
    root = small_adult(tmp_path)
    whole, part = adult(root), adult(root, without=without)
    lost = [i for name in gone if name != "age" for i in whole.attributes[name].columns]
    lost += [0] if "age" in gone else []
    kept = [i for i in range(whole.inputs.shape[1]) if i not in lost]
    assert torch.equal(part.inputs, whole.inputs[:, kept])
    assert torch.equal(part.test_inputs, whole.test_inputs[:, kept])
    assert set(part.attributes) == set(whole.attributes) - set(gone)
    assert set(part.columns) == set(whole.columns)
    assert_attributes_say_the_columns(part)


@pytest.mark.parametrize(
    ("without", "sentence"),
    [
        ("sexx", "data.without: must name input columns, got 'sexx'; did you mean 'sex'"),
        ("sex,rase", "data.without: .*got 'rase'; did you mean 'race'"),
        ("income", "data.without: .*got 'income'; "),
        (",".join(COLUMNS[:-1]), "data.without: must leave at least one input column"),
    ],
)
def test_a_column_that_cannot_be_left_out_is_one_sentence(without, sentence, tmp_path):
    root = str(small_adult(tmp_path))
    section = Data(name="adult", root=root, without=without)
    with pytest.raises(ConfigError, match=sentence):
        data.load(section, seed=0)


def test_adult_has_the_published_size_and_columns():
    dataset = adult(present("adult"))
    assert len(dataset.labels) + len(dataset.test_labels) == 45_222
    assert dataset.input_shape == (104,)
    assert dataset.inputs.mean(dim=0)[:6].abs().max() < 1e-3
    assert 0.24 < float(dataset.labels.float().mean()) < 0.26
    assert set(np.unique(dataset.columns["sex"])) == {"Female", "Male"}
    assert len(dataset.attributes) == 8
    assert sum(len(attribute.values) for attribute in dataset.attributes.values()) == 98
    assert_attributes_say_the_columns(dataset)
    assert_the_schema_says_the_columns(dataset)


def test_adult_without_sex_has_two_inputs_less_and_survives_the_limit():
    table = {"name": "adult", "root": str(present("adult")), "without": "sex", "limit": 500}
    dataset = data.load(Data(**table), seed=0)
    assert dataset.inputs.shape == (500, 102)
    assert set(dataset.columns["sex"]) == {"Female", "Male"}
    assert "sex" not in dataset.attributes
    country = dataset.attributes["native-country"]
    assert len(country.values) == 41  # more than 500 rows hold
    assert dataset.inputs[:, list(country.columns)].sum() == 500
