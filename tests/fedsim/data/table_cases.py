"""What the tests of tabular sets share."""

import numpy as np
import torch

from fedsim.data import Dataset


def assert_attributes_say_the_columns(dataset: Dataset) -> None:
    """Assert that every training row holds the code of the value that its column names."""
    encoding = []
    for name, attribute in dataset.attributes.items():
        column = dataset.columns[name].astype(str)
        assert set(attribute.values) == set(column)
        held = torch.tensor([attribute.values.index(value) for value in column])
        assert torch.equal(dataset.inputs[:, list(attribute.columns)], attribute.codes[held])
        encoding += attribute.columns
    assert len(encoding) == len(set(encoding))


def assert_the_schema_says_the_columns(dataset: Dataset, rows: int = 50) -> None:
    """Assert that the words of the first rows' cells are those of the columns; NaN is any."""
    schema = dataset.schema
    assert schema is not None
    assert schema.size == dataset.inputs.shape[1]
    for column in schema.columns:
        texts = column.texts(dataset.inputs[:rows])
        values = dataset.columns[column.name][:rows]
        if column.is_number:
            numbers, held = (np.array(it, dtype=float) for it in (texts, values))
            close = np.isclose(numbers, held, rtol=0.005)
            assert (close | np.isnan(held)).all()
        else:
            assert texts == [str(value) for value in values]
