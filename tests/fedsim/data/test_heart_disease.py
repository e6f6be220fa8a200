from pathlib import Path

import numpy as np
import pytest
import torch

from fedsim import data
from fedsim.config import Data
from fedsim.core.errors import ConfigError
from fedsim.data.heart_disease import HOSPITALS, heart_disease
from tests.builders import small_config
from tests.fedsim.data.table_cases import (
    assert_attributes_say_the_columns,
    assert_the_schema_says_the_columns,
)
from tests.real_data import present


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
    heart = heart_disease(small_heart(tmp_path))
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
        data.load(Data(name="heart-disease", root=str(tmp_path)), seed=0)


def test_heart_disease_has_the_published_size():
    heart = heart_disease(present("heart-disease"))
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
    assert_the_schema_says_the_columns(heart)


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
