import pytest
import torch

from fedsim.core.params import stacked
from strategies.deltas import Delta

INF = float("inf")


@pytest.mark.twin
def test_an_array_of_many_deltas_is_that_of_each():
    sent, other = {"w": torch.tensor([[1.0, -INF], [INF, 2.0]])}, {"w": torch.ones(2, 2)}
    uploads = [
        torch.tensor([[1.0, -INF], [INF, 2.5]]),
        torch.tensor([[3.0, 1.0], [INF, torch.nan]]),
        torch.tensor([[1e-30, -INF], [-INF, 2.0]]),
    ]
    same = [Delta({"w": upload}, sent) for upload in uploads]
    mixed = [*same, Delta({"w": uploads[0]}, other)]
    wide = [*same, Delta({"w": uploads[0].double()}, sent)]
    for many in (same, mixed, wide, same[:1], [*same, {"w": torch.ones(2, 2)}]):
        expected = torch.stack([each["w"] for each in many])
        assert torch.equal(stacked(many, "w").nan_to_num(9.0), expected.nan_to_num(9.0))
        assert stacked(many, "w").dtype == expected.dtype
    plain = [{"w": upload} for upload in uploads]
    assert torch.equal(stacked(plain, "w").nan_to_num(9.0), torch.stack(uploads).nan_to_num(9.0))
