import math

import pytest
import torch

from clients.fidelity import encoded_bytes, fidelity

PLAIN = {"w": torch.tensor([3.0, 0.0]), "b": torch.tensor(4.0)}


def test_worked_example():
    told = fidelity({"w": torch.tensor([3.0, 0.0]), "b": torch.tensor(0.0)}, PLAIN)
    assert told["update_cosine"] == pytest.approx(9 / (3 * 5))
    assert told["update_snr_db"] == pytest.approx(10 * math.log10(25 / 16))


def test_an_update_that_was_left_alone_has_no_noise():
    told = fidelity(PLAIN, PLAIN)
    assert told["update_cosine"] == pytest.approx(1)
    assert "update_snr_db" not in told
    nothing = {name: torch.zeros_like(value) for name, value in PLAIN.items()}
    assert fidelity(nothing, PLAIN)["update_cosine"] == 0


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (torch.arange(1.0, 3001.0), 12_000),  # dense
        (torch.cat([torch.zeros(2995), torch.arange(5.0) + 1]), 40),  # five positions and values
        (torch.where(torch.arange(8000) % 3 == 0, 0.5, -0.5), 2 * 4 + 1000),  # one bit each
        (torch.zeros(100), 0),
        (torch.zeros(0), 0),
        (torch.arange(4000).remainder(5).double(), 5 * 8 + 1500),  # three bits
        (torch.tensor(2.0), 4),
    ],
)
def test_the_shortest_encoding_counts(value, size):
    assert encoded_bytes({"w": value}) == size
    assert encoded_bytes({"w": value, "v": value}) == 2 * size
