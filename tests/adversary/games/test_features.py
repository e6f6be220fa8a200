import pytest
import torch

from adversary.games.evidence import Evidence
from adversary.games.features import columns_of
from fedsim.core.rng import generator

UPLOADS = torch.tensor([[3.0, 4.0, 0.0], [0.0, -5.0, 0.0], [-6.0, 8.0, 0.0]])
EVIDENCE = Evidence(
    UPLOADS, 1, 1.0, norms=torch.tensor([[3.0, 4.0], [0.0, 5.0], [6.0, 8.0]]),
    readings=torch.tensor([[7.0, 1.0], [7.0, 2.0], [7.0, 3.0]]),
)  # fmt: skip


def test_columns_are_logarithms_of_norms_then_readings_then_entries():
    columns = columns_of(EVIDENCE, entries=True, magnitudes=True)(EVIDENCE)
    least = torch.tensor(3.0 * 1e-6).log()  # a millionth of the mean norm, for the tensor of zeros
    expected = torch.tensor([
        [torch.tensor(5.0).log(), torch.tensor(3.0).log(), torch.tensor(4.0).log()],
        [torch.tensor(5.0).log(), least, torch.tensor(5.0).log()],
        [torch.tensor(10.0).log(), torch.tensor(6.0).log(), torch.tensor(8.0).log()],
    ])  # fmt: skip
    torch.testing.assert_close(columns[:, :3], expected)
    torch.testing.assert_close(columns[:, 3], torch.tensor([1.0, 2.0, 3.0]))  # 7 tells nothing
    shares = torch.tensor([[0.6, 0.8], [0.0, -1.0], [-0.6, 0.8]])  # nor does an entry of zeros
    torch.testing.assert_close(columns[:, 4:], torch.cat([shares, shares.abs()], dim=1))
    few, signed = columns_of(EVIDENCE)(EVIDENCE), columns_of(EVIDENCE, entries=True)(EVIDENCE)
    assert torch.equal(few, columns[:, :4])
    assert torch.equal(signed, columns[:, :6])


def test_without_tensors_the_whole_norm_stands_alone():
    only = Evidence(UPLOADS, 1, 1.0)
    assert columns_of(only)(only)[:, 0].tolist() == UPLOADS.norm(dim=1).log().tolist()


@pytest.mark.parametrize("size", [1, 7, 3000])
def test_what_differs_by_rounding_alone_is_no_column(size):
    direction = torch.randn(size, generator=generator(0, "direction"))
    scales = torch.exp(torch.randn(200, 1, generator=generator(0, "scales")))
    scaled = Evidence(scales * direction, 1, 1.0)
    columns = columns_of(scaled, entries=True, magnitudes=True)(scaled)
    assert columns.shape == (200, 1)  # the norm
    same = Evidence(direction.expand(200, -1), 1, 1.0)
    assert columns_of(same, entries=True)(same).tolist() == [[0.0]] * 200


def test_other_trials_stay_within_the_range_of_the_shadow_trials():
    columns = columns_of(EVIDENCE, entries=True)
    far = Evidence(
        1e3 * UPLOADS, 1, 1.0, norms=1e3 * EVIDENCE.norms, readings=1e3 * EVIDENCE.readings
    )
    assert columns(far).amax(dim=0).tolist() == columns(EVIDENCE).amax(dim=0).tolist()
    assert columns(far).amin(dim=0)[3:].tolist() == [3.0, *columns(EVIDENCE).amin(dim=0)[4:]]
    part = columns(EVIDENCE.part(slice(1, 2)))
    assert torch.equal(part, columns(EVIDENCE)[1:2])
