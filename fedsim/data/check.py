"""The door of data sets: what a loader returns comes in, what all rooms can trust goes out.

NumPy arrays, pandas objects and nested lists become tensors. Images of unsigned bytes become pixels
in [0, 1]; no other values are scaled or mapped.
"""

import math
import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.core.accepts import Rule
from fedsim.core.params import all_finite
from fedsim.data.check_images import check_image, is_bytes, is_image, remark_on
from fedsim.data.check_texts import check_ids, loaded
from fedsim.data.types import Attribute, Dataset, Number

PART = "data set"
NUMBERS = Rule(PART, "inputs", "must be real numbers in a tensor, array, table or nested list")
SHAPED = Rule(PART, "inputs", "must have a row per example and at least one feature")
FINITE = Rule(PART, "inputs", "must be finite numbers in float32")
ALIKE = Rule(PART, "test_inputs", "must have the shape and kind of number of inputs")
WHOLE = Rule(PART, "labels", "must be whole numbers, one per example")
COUNTED = Rule(PART, "labels", "must be as many as inputs, and at least one")
CLASSES = Rule(PART, "num_classes", "must be a whole number from 2")
RANGE = Rule(PART, "labels", "must lie from 0 to num_classes − 1")
COLUMNS = Rule(PART, "columns", "must map names to one value per training row")
ATTRIBUTES = Rule(
    PART, "attributes", "must map names to an Attribute: features, words, a row of codes per word"
)
SCALED = Rule(
    PART, "numbers", "must map names to a Number: one feature, a finite mean, a deviation from 0"
)
CHECKS = (
    *(NUMBERS, SHAPED, FINITE, ALIKE),
    *(WHOLE, COUNTED, CLASSES, RANGE, COLUMNS, ATTRIBUTES, SCALED),
)


def checked(name: str, dataset: Dataset) -> Dataset:
    """Return the data set with tensors of float32 or int64, or refuse it.

    Args:
        name: As in the config.
        dataset: What its function returned.

    Raises:
        ConfigError: It breaks one of `CHECKS`.
    """
    with loaded(name):
        return _checked(dataset)


def _checked(dataset: Dataset) -> Dataset:
    num_classes = _num_classes(dataset.num_classes)
    inputs, labels = _half("", dataset.inputs, dataset.labels, num_classes)
    test_inputs, test_labels = _half("test_", dataset.test_inputs, dataset.test_labels, num_classes)
    if (inputs.shape[1:], inputs.dtype) != (test_inputs.shape[1:], test_inputs.dtype):
        raise ValueError(ALIKE.message(f"{_described(test_inputs)} beside {_described(inputs)}"))
    check_ids(dataset, inputs, test_inputs, num_classes)
    return replace(
        dataset,
        inputs=inputs,
        labels=labels,
        test_inputs=test_inputs,
        test_labels=test_labels,
        num_classes=num_classes,
        columns=_columns(dataset.columns, len(labels)),
        remarks=(*dataset.remarks, *remark_on(dataset.inputs, dataset.test_inputs, inputs)),
        attributes=_attributes(dataset.attributes, tuple(inputs.shape[1:])),
        numbers=_numbers(dataset.numbers, tuple(inputs.shape[1:])),
    )


def _half(prefix: str, inputs: object, labels: object, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return inputs and labels of the training or the test rows."""
    examples = _inputs(f"{prefix}inputs", inputs)
    numbers = _labels(f"{prefix}labels", labels, num_classes)
    if len(numbers) != len(examples):
        raise _refused(
            COUNTED, f"{prefix}labels", f"{len(numbers)} labels for {len(examples)} examples"
        )
    return examples, numbers


def _inputs(field: str, given: object) -> Tensor:
    values = _tensor(field, given, NUMBERS)
    if values.ndim < 2 or 0 in values.shape:
        raise _refused(SHAPED, field, f"shape {tuple(values.shape)}")
    if is_bytes(given) and is_image(values):
        return values.float() / (255 if int(values.max()) > 1 else 1)
    if values.ndim == 4:
        check_image(field, values)
    if values.dtype == torch.bool:
        return values.float()
    if not values.is_floating_point():
        return values.long()
    single = values.to(torch.float32)
    if not all_finite(single):
        row = int((~torch.isfinite(single.flatten(1))).any(dim=1).nonzero()[0])
        example = values[row].flatten()
        value = float(example[~torch.isfinite(single[row].flatten())][0])
        raise _refused(FINITE, field, f"{value} in example {row}")
    return single.contiguous()


def _labels(field: str, given: object, num_classes: int) -> Tensor:
    values = _tensor(field, given, WHOLE)
    if values.ndim != 1:
        raise _refused(WHOLE, field, f"shape {tuple(values.shape)}{_instead(values, num_classes)}")
    if not len(values):
        raise _refused(COUNTED, field, "none")
    if values.is_floating_point():
        wrong = values[~(values == values.round()) | (values.abs() > 2**53)]
        if len(wrong):
            whole = "" if bool(wrong[0].isnan()) else "; regression is not supported"
            raise _refused(WHOLE, field, f"{float(wrong[0])}{whole}")
    numbers = values.long()
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high >= num_classes:
        hint = "; subtract 1 from each" if (low >= 1 and high == num_classes) else ""
        raise _refused(RANGE, field, f"{low} to {high} with num_classes = {num_classes}{hint}")
    return numbers.contiguous()


def _instead(labels: Tensor, num_classes: int) -> str:
    """Return what to do with labels that are no vector."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        return "; take the only column"
    if labels.shape[1:] != (num_classes,):
        return ""
    hot = bool(((labels == 0) | (labels == 1)).all()) and bool((labels.sum(dim=1) != 1).any())
    return (
        "; several labels per example are not supported" if hot else "; take the argmax of each row"
    )


def _num_classes(given: object) -> int:
    if isinstance(given, Tensor) and given.ndim == 0:
        given = given.item()
    if isinstance(given, bool | np.bool_):
        raise ValueError(CLASSES.message(given))
    try:
        count = operator.index(given)  # pyright: ignore[reportArgumentType]
    except TypeError:
        raise ValueError(CLASSES.message(repr(given))) from None
    if count < 2:
        hint = "; regression is not supported" if count == 1 else ""
        raise ValueError(CLASSES.message(f"{count}{hint}"))
    return count


def _tensor(field: str, given: object, rule: Rule) -> Tensor:
    """Return numbers of any form as a tensor of bool, int64 or the float type given."""
    if isinstance(given, Tensor):
        if given.layout != torch.strided or given.is_quantized or given.is_complex():
            raise _refused(rule, field, f"a {_kind(given)} tensor ({given.layout})")
        if given.is_floating_point() or given.dtype == torch.bool:
            return given.detach().cpu()
        given = given.detach().cpu().numpy()
    array = _array(field, given, rule)
    if array.dtype.kind not in "biuf":
        raise _refused(rule, field, _what_is_no_number(given, array))
    if array.dtype.kind == "u" and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise _refused(rule, field, f"{array.max()}")
    if array.dtype.kind == "f":
        representable = array.dtype.itemsize <= 8  # torch has no longdouble
        array = array.astype(array.dtype.newbyteorder("=") if representable else np.float64)
        return torch.from_numpy(array)
    return torch.from_numpy(array.astype(bool if array.dtype.kind == "b" else np.int64))


def _array(field: str, given: object, rule: Rule) -> NDArray[Any]:
    try:
        if hasattr(given, "to_numpy") and hasattr(given, "dtypes"):  # pandas
            return _of_pandas(given)
        array = np.asarray(given)
    except Exception as error:  # of any type: this is the user's object
        raise _refused(rule, field, f"{type(given).__name__} ({error})") from None
    if masked := _masked(given):
        raise _refused(rule, field, masked)
    return array


def _masked(given: object) -> str:
    """Return the first row of an array that has a masked value; empty if none has."""
    if not np.ma.isMaskedArray(given):
        return ""
    rows = np.argwhere(np.ma.getmaskarray(given))
    return f"a masked value in row {rows[0][0]}" if len(rows) else ""


def _of_pandas(given: Any) -> NDArray[Any]:
    """Return a table or series; of mixed or nullable numbers as float64."""
    from pandas.api.types import is_numeric_dtype

    dtypes = list(given.dtypes) if hasattr(given.dtypes, "tolist") else [given.dtypes]
    if not all(map(is_numeric_dtype, dtypes)):
        return given.to_numpy(dtype=object)
    array = given.to_numpy()
    return array if array.dtype.kind != "O" else given.to_numpy(dtype=np.float64, na_value=np.nan)


def _what_is_no_number(given: Any, array: NDArray[Any]) -> str:
    """Return what stands where numbers should: the first such column of a table, or the type."""
    if hasattr(given, "columns") and hasattr(given, "dtypes"):
        from pandas.api.types import is_numeric_dtype

        for name, dtype in given.dtypes.items():
            if not is_numeric_dtype(dtype):
                return f"{dtype} in column '{name}'"
    if array.ndim == 0:
        return type(given).__name__
    words = {"U": "text", "S": "bytes", "O": "objects, or rows of unequal length"}
    return words.get(array.dtype.kind, str(array.dtype))


def _columns(given: object, size: int) -> dict[str, NDArray[Any]]:
    if not isinstance(given, Mapping):
        raise ValueError(COLUMNS.message(type(given).__name__))
    columns: dict[str, NDArray[Any]] = {}
    for name, values in given.items():
        if not isinstance(name, str):
            raise ValueError(COLUMNS.message(f"the name {name!r}"))
        try:
            column = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
        except Exception as error:  # of any type: this is the user's object
            raise ValueError(COLUMNS.message(f"'{name}' ({error})")) from None
        if masked := _masked(values):
            raise ValueError(COLUMNS.message(f"{masked} of '{name}'"))
        if column.shape != (size,):
            raise ValueError(
                COLUMNS.message(f"shape {column.shape} in '{name}' for {size} training rows")
            )
        columns[name] = column
    return columns


def _attributes(given: object, shape: tuple[int, ...]) -> dict[str, Attribute]:
    if not isinstance(given, Mapping):
        raise ValueError(ATTRIBUTES.message(type(given).__name__))
    attributes = {}
    for name, attribute in given.items():
        if not isinstance(attribute, Attribute):
            raise ValueError(ATTRIBUTES.message(f"{type(attribute).__name__} for '{name}'"))
        codes = _tensor("attributes", attribute.codes, ATTRIBUTES).to(torch.float32)
        size = (len(attribute.values), len(attribute.columns))
        if codes.shape != size or not bool(torch.isfinite(codes).all()):
            raise ValueError(
                ATTRIBUTES.message(f"codes of shape {tuple(codes.shape)} for {size} in '{name}'")
            )
        outside = [column for column in attribute.columns if not 0 <= column < shape[0]]
        if outside:
            raise ValueError(ATTRIBUTES.message(f"feature {outside[0]} of {shape[0]} in '{name}'"))
        whole = isinstance(attribute.codes, Tensor)
        attributes[name] = attribute if whole else replace(attribute, codes=codes)
    return attributes


def _numbers(given: object, shape: tuple[int, ...]) -> dict[str, Number]:
    if not isinstance(given, Mapping):
        raise ValueError(SCALED.message(type(given).__name__))
    for name, number in given.items():
        if not isinstance(number, Number):
            raise ValueError(SCALED.message(f"{type(number).__name__} for '{name}'"))
        if not 0 <= number.feature < shape[0]:
            raise ValueError(SCALED.message(f"feature {number.feature} of {shape[0]} in '{name}'"))
        if not (math.isfinite(number.mean) and 0 <= number.deviation < math.inf):
            got = f"{number.mean} and {number.deviation} in '{name}'"
            raise ValueError(SCALED.message(got))
    return dict(given)


def _refused(rule: Rule, field: str, value: str) -> ValueError:
    """Return the sentence of a rule that two fields share."""
    return ValueError(replace(rule, field=field).message(value))


def _described(values: Tensor) -> str:
    return f"shape {tuple(values.shape[1:])} {_kind(values)}"


def _kind(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
