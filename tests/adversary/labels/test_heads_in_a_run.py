"""A run whose model ends in any of ten ways gives label leakage of every client."""

from math import prod

import pytest
from torch import nn

from fedsim import api
from tests.adversary.heads import TEN
from tests.builders import small_config

HEADS = {kind.__name__: kind for kind in TEN}


def headed(input_shape, num_classes, *, head: str = "Plain") -> nn.Module:
    """Return a perceptron that ends in some way."""
    inputs = prod(input_shape)
    body = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 32), nn.ReLU())
    return HEADS[head](body, 32, inputs, num_classes)


@pytest.mark.paper
@pytest.mark.parametrize("head", HEADS)
def test_each_head_leaks_labels(head, tmp_path):
    model = {"name": f"{__name__}:headed", "head": head}
    config = small_config(
        model=model,
        attack="eb-gls",
        local={"batch_size": 32},
        federation={"strategy": "fedsgd", "rounds": 2},
        data={"limit": 900},
        auxiliary={"share": 0.5},
    )
    run = api.run(config, tmp_path / "run")
    rows = [row for row in run.ledger().to_pylist() if row["metric"] == "asr"]
    assert len(rows) == 2 * 4
    assert all(row["value"] is not None for row in rows)
    gain = sum(row["value"] - row["blind"] for row in rows) / len(rows)
    assert gain > 0.4
