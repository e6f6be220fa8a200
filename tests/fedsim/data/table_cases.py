"""What the tests of tabular sets share."""

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
