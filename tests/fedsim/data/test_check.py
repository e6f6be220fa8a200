import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fedsim import data
from fedsim.config import Data
from fedsim.core.errors import ConfigError
from fedsim.data import Attribute, Dataset, Number
from fedsim.data.check import checked
from tests.builders import toy_dataset

TOY = toy_dataset(Path())
IMAGES = torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TABLE = pd.DataFrame(TOY.inputs.double().numpy(), columns=list("abcd"))


@pytest.mark.parametrize(
    "given",
    [
        TOY.inputs.numpy(),
        TOY.inputs.double(),
        TOY.inputs.numpy().astype(">f8"),
        TOY.inputs.tolist(),
        TABLE,
        TOY.inputs.clone().requires_grad_(),
        TOY.inputs.t().contiguous().t(),
    ],
    ids=["NumPy", "double", "big-endian", "lists", "pandas", "gradient", "transposed"],
)
def test_inputs_of_any_form_are_the_same_tensor(given):
    inputs = checked("toy", replace(TOY, inputs=given)).inputs
    assert inputs.dtype == torch.float32
    assert not inputs.requires_grad
    assert torch.equal(inputs, TOY.inputs)


MASKED = np.ma.masked_equal(TOY.labels.numpy(), 2)


class Ends:
    """Ends the process where NumPy reads it."""

    def __array__(self, *_: object, **__: object) -> None:
        raise SystemExit(2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": MASKED}, "gives labels: must be whole numbers.* got a masked value in row 2"),
        ({"columns": {"user": MASKED}}, "gives columns: .* got a masked value in row 2 of 'user'"),
        ({"labels": Ends()}, r"must give what can be read, got SystemExit: 2 \(data/test_check.py"),
        (
            {"inputs": torch.empty(60, 4, device="meta")},
            "must give what can be read, got NotImplementedError: Cannot copy out of meta tensor",
        ),
    ],
)
def test_masked_values_and_objects_that_cannot_be_read_are_refused(changes, sentence):
    with pytest.raises(ConfigError, match=f"data.name: 'toy' {sentence}"):
        checked("toy", replace(TOY, **changes))


@pytest.mark.parametrize(
    "given",
    [
        TOY.labels.numpy().astype(np.uint8),
        TOY.labels.tolist(),
        TOY.labels.float(),
        pd.Series(TOY.labels.numpy(), dtype="Int64"),
        TOY.labels.to(torch.int8),
    ],
)
def test_labels_of_any_form_are_the_same_tensor(given):
    labels = checked("toy", replace(TOY, labels=given)).labels
    assert labels.dtype == torch.int64
    assert torch.equal(labels, TOY.labels)


def test_flags_and_whole_numbers_are_kept_and_columns_become_arrays():
    flags = pd.DataFrame({"a": [True, False] * 30, "b": np.arange(60) / 7})
    mixed = checked("toy", replace(TOY, inputs=flags, test_inputs=flags))
    assert torch.equal(mixed.inputs[:, 0], (torch.arange(60) % 2 == 0).float())
    tokens = torch.arange(120).reshape(60, 2)
    kept = checked("toy", replace(TOY, inputs=tokens.numpy(), test_inputs=tokens.tolist()))
    assert kept.inputs.dtype == torch.int64
    assert torch.equal(kept.inputs, tokens)
    columns = {"who": list("ab") * 30, "age": torch.arange(60), "town": pd.Series(["x"] * 60)}
    dataset = checked("toy", replace(TOY, columns=columns))
    assert {name: type(column) for name, column in dataset.columns.items()} == dict.fromkeys(
        columns, np.ndarray
    )
    assert checked("toy", replace(TOY, num_classes=np.int64(3))).num_classes == 3


def nan_at(row: int) -> torch.Tensor:
    inputs = TOY.inputs.clone()
    inputs[row, 2] = float("nan")
    return inputs


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"inputs": nan_at(7)}, "inputs: must be finite numbers in float32, got nan in example 7"),
        ({"test_inputs": TOY.inputs.double() * 1e300}, "test_inputs: must be finite .* example 0"),
        ({"inputs": TOY.inputs.to(torch.complex64)}, "inputs: must be real numbers.*complex64"),
        ({"inputs": TOY.inputs.to_sparse()}, "inputs: must be real numbers.*sparse"),
        ({"inputs": TABLE.assign(b="x")}, "inputs: must be real numbers.*in column 'b'"),
        ({"inputs": [[1.0, 2.0], [3.0]]}, "inputs: must be real numbers"),
        ({"inputs": None}, "inputs: must be real numbers.* got NoneType"),
        ({"inputs": np.array(["a"])}, "inputs: must be real numbers.* got text"),
        ({"inputs": torch.zeros(60)}, r"inputs: must have a row.* got shape \(60,\)"),
        ({"inputs": torch.zeros(60, 0)}, r"inputs: must have a row.* got shape \(60, 0\)"),
        ({"inputs": torch.zeros(0, 4), "labels": []}, "inputs: must have a row per example"),
        ({"inputs": torch.zeros(60, 5)}, r"test_inputs: must have the shape.*\(4,\).*\(5,\)"),
        ({"inputs": torch.zeros(60, 4, dtype=torch.int64)}, "test_inputs: must have the shape and"),
        ({"inputs": IMAGES.permute(0, 2, 3, 1)}, "inputs: must be images of .channels.*front"),
        ({"inputs": (IMAGES * 255).long()}, r"inputs: must be pixels.* got 0 to 25\d.*divide"),
        ({"inputs": (IMAGES * 255).round()}, "inputs: must be pixels in .*divide by 255"),
        ({"labels": TOY.labels[:59]}, "labels: must be as many as inputs.*59 labels for 60 ex"),
        ({"labels": TOY.labels + 1}, "labels: .*got 1 to 3 with num_classes = 3; subtract 1"),
        ({"labels": TOY.labels - 1}, "labels: must lie from 0 to num_classes − 1, got -1 to 1"),
        ({"test_labels": TOY.labels + 10**9}, "test_labels: must lie from 0 .* got 1000000000"),
        ({"labels": TOY.labels + 0.5}, "labels: must be whole .*, got 0.5; regression is not"),
        ({"labels": torch.full((60,), float("nan"))}, "labels: must be whole numbers.* got nan"),
        ({"labels": ["cat"] * 60}, "labels: must be whole numbers.* got text"),
        ({"labels": torch.eye(3).repeat(20, 1)}, r"labels: .*got shape \(60, 3\); take the argmax"),
        ({"labels": torch.ones(60, 3)}, r"labels: .*\(60, 3\); several labels per example are not"),
        ({"labels": TOY.labels[:, None]}, r"labels: .*got shape \(60, 1\); take the only column"),
        ({"labels": torch.rand(60, 2)}, r"labels: .*got shape \(60, 2\)$"),
        ({"labels": np.full(60, 2**63, np.uint64)}, "labels: must be whole .* 9223372036854775808"),
        ({"num_classes": 1}, "num_classes: must be .* from 2, got 1; regression is not supported"),
        ({"num_classes": 3.0}, "num_classes: must be a whole number from 2, got 3.0"),
        ({"num_classes": True}, "num_classes: must be a whole number"),
        ({"num_classes": "3"}, "num_classes: must be a whole number"),
        ({"columns": {"user": np.arange(59)}}, r"columns: must map .* got shape \(59,\) in 'user'"),
        ({"columns": {7: np.arange(60)}}, "columns: must map names .* got the name 7"),
        ({"columns": [1]}, "columns: must map names .* got list"),
        ({"attributes": {"sex": 1}}, "attributes: must map names .* got int for 'sex'"),
        (
            {"attributes": {"sex": Attribute((1, 9), ("f", "m"), torch.eye(2))}},
            "attributes: .* got feature 9 of 4 in 'sex'",
        ),
        (
            {"attributes": {"sex": Attribute((1, 2), ("f",), torch.eye(2))}},
            "attributes: .* codes of shape",
        ),
        ({"numbers": [1]}, "numbers: must map names .* got list"),
        ({"numbers": {"age": 3}}, "numbers: must map names .* got int for 'age'"),
        ({"numbers": {"age": Number(4)}}, "numbers: .* got feature 4 of 4 in 'age'"),
        ({"numbers": {"age": Number(0, deviation=-1.0)}}, "numbers: .* got 0.0 and -1.0 in 'age'"),
        ({"numbers": {"age": Number(0, mean=math.nan)}}, "numbers: .* got nan and 1.0 in 'age'"),
    ],
)
def test_what_breaks_a_rule_is_one_sentence_with_field_rule_and_value(changes, sentence):
    with pytest.raises(ConfigError, match=f"^data.name: 'toy' gives {sentence}") as refused:
        checked("toy", replace(TOY, **changes))
    assert "\n" not in str(refused.value)


def loads_with_a_bug(root: Path) -> Dataset:
    return int("no number")  # pyright: ignore[reportReturnType]


def loads_with_a_type_error(root: Path) -> Dataset:
    return len(3)  # pyright: ignore


def exits(root: Path) -> Dataset:
    raise SystemExit(3)


def reads_what_is_not_there(root: Path) -> Dataset:
    return pd.read_csv(root / "absent.csv")  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(
    ("loader", "sentence"),
    [
        ("loads_with_a_bug", "ValueError: invalid literal"),
        ("loads_with_a_type_error", "TypeError: object of type 'int' has no len"),
        ("exits", "SystemExit: 3"),
        ("reads_what_is_not_there", "FileNotFoundError: .*absent.csv"),
    ],
)
def test_what_a_loader_raises_is_shown_as_its_own_with_file_and_line(loader, sentence):
    with pytest.raises(ConfigError) as refused:
        data.load(Data(name=f"{__name__}:{loader}"), seed=0)
    assert refused.match(rf"'{__name__}:{loader}' must return a Dataset, got {sentence}")
    assert refused.match(rf"\(.*{Path(__file__).name}:\d+\)$")
    assert refused.value.__cause__ is not None


@pytest.mark.parametrize("kind", [torch.Tensor.byte, lambda images: images.byte().numpy()])
def test_images_of_bytes_become_pixels_and_that_is_said(kind):
    given = (IMAGES * 255).round()
    dataset = checked("mine", replace(TOY, inputs=kind(given), test_inputs=kind(given)))
    assert dataset.inputs.dtype == torch.float32
    assert torch.equal(dataset.inputs, given / 255)
    assert torch.equal(dataset.test_inputs, dataset.inputs)
    (remark,) = dataset.remarks
    assert remark.startswith("inputs and test_inputs: unsigned bytes became pixels in [0, 1]")
    assert checked("mine", dataset).remarks == (remark,)  # nothing is left to convert


def test_bytes_that_are_no_images_stay_whole_numbers():
    table = np.arange(240, dtype=np.uint8).reshape(60, 4)
    dataset = checked("mine", replace(TOY, inputs=table, test_inputs=table))
    assert torch.equal(dataset.inputs, torch.from_numpy(table).long())
    assert dataset.remarks == ()


def test_images_of_two_values_are_not_divided():
    given = (IMAGES > 0.5).byte()
    dataset = checked("mine", replace(TOY, inputs=given, test_inputs=given))
    assert torch.equal(dataset.inputs, given.float())
