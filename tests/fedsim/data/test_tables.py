from pathlib import Path

import numpy as np
import pytest
import torch

from fedsim import data
from fedsim.core.errors import ConfigError
from fedsim.data import tables as data_tables
from tests.builders import small_config
from tests.real_data import SHARED

PERSON = (
    "{age}, {work}, 77516, Bachelors, 13, Never-married, Sales, Not-in-family, {race}, {sex}, "
    "2174, 0, {hours}, United-States, {income}"
)
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")


def there(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"no {name} in {SHARED}")
    return SHARED / name


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


def assert_attributes_say_the_columns(dataset: data.Dataset) -> None:
    """Assert that every training row holds the code of the value that its column names."""
    used = []
    for name, attribute in dataset.attributes.items():
        column = dataset.columns[name].astype(str)
        assert set(attribute.values) == set(column)
        held = torch.tensor([attribute.values.index(value) for value in column])
        assert torch.equal(dataset.inputs[:, list(attribute.columns)], attribute.codes[held])
        used += attribute.columns
    assert len(used) == len(set(used))


def test_an_attribute_written_over_gives_the_twin(tmp_path):
    adult = data.adult(small_adult(tmp_path))
    sex = adult.attributes["sex"]
    assert sex.values == ("Female", "Male")
    for row, other, value in ((0, 1, "Female"), (1, 0, "Male")):
        assert not torch.equal(adult.inputs[row], adult.inputs[other])
        changed = adult.inputs[row].clone()
        changed[list(sex.columns)] = sex.codes[sex.values.index(value)]
        assert torch.equal(changed, adult.inputs[other])


def test_adult_is_encoded_by_its_training_rows(tmp_path):
    adult = data.adult(small_adult(tmp_path))
    assert (len(adult.labels), len(adult.test_labels)) == (4, 2)
    assert adult.labels.tolist() == [0, 0, 1, 1]
    assert adult.test_labels.tolist() == [0, 1]
    ages = np.array([30, 30, 50, 60])
    expected = (ages - ages.mean()) / ages.std(ddof=1)
    assert np.allclose(adult.inputs[:, 0], expected)
    assert float(adult.test_inputs[1, 0]) == pytest.approx((40 - 42.5) / 15, abs=1e-6)
    assert torch.equal(adult.inputs[:, 1], torch.zeros(4))  # all alike: fnlwgt
    race = adult.attributes["race"]
    assert race.values == ("Black", "White")
    unseen = adult.test_inputs[:, list(race.columns)]
    assert unseen.tolist() == [[0, 1], [0, 0]]
    assert_attributes_say_the_columns(adult)


@pytest.mark.parametrize(
    ("without", "gone"), [("sex", ["sex"]), (" sex,age ,race", ["age", "race", "sex"])]
)
def test_adult_without_a_column_keeps_it_beside_the_inputs(without, gone, tmp_path):
    root = small_adult(tmp_path)
    whole, part = data.adult(root), data.adult(root, without=without)
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
        ("sexx", "data.without: must name columns that are inputs, got 'sexx'; did you mean 'sex'"),
        ("sex,rase", "data.without: .*got 'rase'; did you mean 'race'"),
        ("income", "data.without: .*got 'income'; "),
        (",".join(data_tables.ADULT[:-1]), "data.without: must leave an input"),
    ],
)
def test_a_column_that_cannot_be_left_out_is_one_sentence(without, sentence, tmp_path):
    root = str(small_adult(tmp_path))
    config = small_config(data={"name": "adult", "root": root, "without": without})
    with pytest.raises(ConfigError, match=sentence):
        data.load(config)


def test_adult_has_the_published_size_and_columns():
    adult = data.adult(there("adult"))
    assert len(adult.labels) + len(adult.test_labels) == 45_222
    assert adult.input_shape == (104,)
    assert adult.inputs.mean(dim=0)[:6].abs().max() < 1e-3
    assert 0.24 < float(adult.labels.float().mean()) < 0.26
    assert set(np.unique(adult.columns["sex"])) == {"Female", "Male"}
    assert len(adult.attributes) == 8
    assert sum(len(attribute.values) for attribute in adult.attributes.values()) == 98
    assert_attributes_say_the_columns(adult)


def test_adult_without_sex_has_two_inputs_less_and_survives_the_limit():
    table = {"name": "adult", "root": str(there("adult")), "without": "sex", "limit": 500}
    adult = data.load(small_config(data=table))
    assert adult.inputs.shape == (500, 102)
    assert set(adult.columns["sex"]) == {"Female", "Male"}
    assert "sex" not in adult.attributes
    country = adult.attributes["native-country"]
    assert len(country.values) == 41  # more than 500 rows hold
    assert adult.inputs[:, list(country.columns)].sum() == 500


def small_heart(root: Path) -> Path:
    """Write five rows of four hospitals: age = 40 + row, ill from the third row on."""
    for number, hospital in enumerate(HOSPITALS):
        lines = [
            f"{40 + k}.0,{k % 2},{1 + k % 4},0,{200 + k},?,0,150,0,{number},2,{number},7.0,"
            f"{max(0, k - 1)}"
            for k in range(5)
        ]
        lines[1] = lines[1].replace(",150,", ",?,")
        (root / f"processed.{hospital}.data").write_text("\n".join(lines) + "\n")
    return root


def test_heart_disease_imputes_and_keeps_every_row(tmp_path):
    heart = data.heart_disease(small_heart(tmp_path))
    assert heart.labels.tolist() == [0, 0, 1, 1] * 4
    assert heart.test_labels.tolist() == [1] * 4
    assert heart.columns["hospital"].tolist() == np.repeat(HOSPITALS, 4).tolist()
    ages = np.tile([40, 41, 42, 43], 4)
    assert np.allclose(heart.inputs[:, 0], (ages - ages.mean()) / ages.std(ddof=1))
    # Numbers are age, trestbps, chol, thalach, oldpeak: a pressure of 0 and a pulse of ? are 0.
    assert torch.equal(heart.inputs[:, [1, 3]], torch.zeros(16, 2))
    assert np.isnan(heart.columns["trestbps"]).all()
    assert np.isnan(heart.columns["thalach"]).sum() == 4
    assert torch.isfinite(heart.test_inputs).all()
    assert heart.attributes["fbs"].values == ("missing",)
    assert heart.attributes["sex"].values == ("female", "male")
    assert heart.attributes["ca"].values == ("0", "1", "2", "3")
    assert heart.columns["sex"].tolist() == ["female", "male"] * 8
    assert_attributes_say_the_columns(heart)


def test_a_code_of_heart_disease_that_uci_does_not_know_is_refused(tmp_path):
    path = small_heart(tmp_path) / "processed.va.data"
    path.write_text(path.read_text().replace(",7.0,", ",5.0,"))
    with pytest.raises(ConfigError, match="data.root: 'heart-disease' must be readable .*5.0"):
        data.load(small_config(data={"name": "heart-disease", "root": str(tmp_path)}))


def test_heart_disease_has_the_published_size():
    heart = data.heart_disease(there("heart-disease"))
    assert (len(heart.labels), len(heart.test_labels)) == (738, 182)
    names, counts = np.unique(heart.columns["hospital"], return_counts=True)
    published = {"cleveland": 303, "hungarian": 294, "switzerland": 123, "va": 200}
    assert dict(zip(names, counts, strict=True)) == {
        name: size - size // 5 for name, size in published.items()
    }
    assert int(heart.labels.sum() + heart.test_labels.sum()) == 139 + 106 + 115 + 149
    assert np.array_equal(heart.columns["num"] > 0, heart.labels == 1)
    assert heart.input_shape == (34,)
    assert torch.isfinite(heart.inputs).all()
    assert heart.inputs[:, :5].mean(dim=0).abs().max() < 1e-5
    assert np.isnan(heart.columns["chol"][heart.columns["hospital"] == "switzerland"]).all()
    assert set(heart.attributes) == {
        *("sex", "cp", "fbs", "restecg", "exang", "slope", "ca", "thal"),
    }
    assert heart.attributes["thal"].values == (
        *("fixed defect", "missing", "normal", "reversible defect"),
    )
    assert_attributes_say_the_columns(heart)


def test_each_client_of_heart_disease_is_a_hospital(tmp_path):
    table = {"name": "heart-disease", "partition": "user", "users": "hospital"}
    config = small_config(
        data=table | {"root": str(small_heart(tmp_path)), "limit": None},
        federation={"clients": 4},
        auxiliary={"share": 0.0},
    )
    federated = data.federate(config)
    held = [set(federated.dataset.columns["hospital"][rows]) for rows in federated.clients]
    assert sorted(map(sorted, held)) == [[name] for name in HOSPITALS]
    assert [len(rows) for rows in federated.clients] == [4] * 4


def test_uci_har_tests_on_the_end_of_each_activity(tmp_path):
    # Two subjects who take turns at two activities: 10 windows of each, in the order of time.
    activity = np.tile(np.repeat([0, 5], 5), 4).astype(np.uint8)
    subject = np.repeat([1, 7], 20).astype(np.uint8)
    features = np.stack([np.arange(40), np.full(40, 32767)], axis=1).astype(np.int16)
    np.savez(
        tmp_path / "uci_har_train_21subjects.npz",
        x_int16=features, scale=1 / 32767, y=activity, subject=subject,
    )  # fmt: skip
    har = data.uci_har(tmp_path)
    # Of each: eight before the cut, of which the last overlaps the first of the two after it.
    rows = (har.inputs[:, 0] * 32767).round().int().tolist()
    test_rows = (har.test_inputs[:, 0] * 32767).round().int().tolist()
    assert test_rows == [13, 14, 18, 19, 33, 34, 38, 39]
    assert sorted({*range(40)} - {*rows} - {*test_rows}) == [12, 17, 32, 37]
    assert not {*rows} & {*test_rows}
    assert torch.equal(har.inputs[:, 1], torch.ones(len(rows)))
    assert har.labels.tolist() == activity[rows].tolist()
    assert har.test_labels.tolist() == activity[test_rows].tolist()
    assert har.columns["subject"].tolist() == subject[rows].tolist()


def test_uci_har_has_the_published_size():
    har = data.uci_har(there("uci-har"))
    assert len(har.labels) + len(har.test_labels) == 7352 - 21 * 6  # a window at each seam
    published = torch.tensor([1226, 1073, 986, 1286, 1374, 1407])
    kept = torch.bincount(har.labels) + torch.bincount(har.test_labels)
    assert torch.equal(kept, published - 21)
    assert har.input_shape == (561,)
    assert har.num_classes == 6
    assert float(har.inputs.abs().max()) <= 1
    assert len(np.unique(har.columns["subject"])) == 21
    assert len(har.columns["subject"]) == len(har.labels)
