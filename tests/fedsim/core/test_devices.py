import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fedsim.core import devices
from fedsim.core.devices import CPU, free_memory, moved, on, resolved
from fedsim.core.errors import ConfigError
from fedsim.core.repeatable import repeatable
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Candidates
from tests.accelerator import DEVICE, accelerator


def drawn() -> list[torch.Tensor]:
    """Return random numbers in the ways in which code draws them."""
    stream, weights = generator(0, "draws"), torch.arange(1.0, 6.0)
    with global_stream(0, "draws"):
        return [
            torch.rand(3, generator=stream),
            torch.randperm(5, generator=stream),
            torch.multinomial(weights, 2, generator=stream),
            torch.empty(4).normal_(generator=stream),
            torch.bernoulli(weights / 6, generator=stream),
            torch.randn_like(weights),
            nn.init.uniform_(torch.empty(3)),
            functional.dropout(weights, 0.5),
            nn.Dropout1d()(torch.ones(2, 8, 3)),
        ]


def test_random_numbers_are_the_same_on_every_device() -> None:
    expected = drawn()
    with accelerator(), on(DEVICE):
        numbers = drawn()
    assert {value.device for value in numbers} == {DEVICE}
    assert all(map(torch.equal, expected, moved(numbers, CPU)))


def test_tensors_are_made_on_the_device_and_read_through_the_cpu() -> None:
    with accelerator(), on(DEVICE):
        made = [torch.zeros(2), torch.tensor([1]), torch.as_tensor(np.ones(2)), torch.eye(2)]
        assert {value.device for value in made} == {DEVICE}
        assert made[3].numpy().tolist() == [[1, 0], [0, 1]]
        assert np.asarray(made[1]).tolist() == [1]


def test_a_forgotten_device_fails_on_the_accelerator() -> None:
    with accelerator():
        there = torch.ones(3).to(DEVICE)
        assert float((there + torch.tensor(1.0)).sum()) == 6  # of one number they may differ
        with pytest.raises(RuntimeError, match="must be on one device"):
            torch.add(there, torch.ones(3))
        with pytest.raises(RuntimeError, match="indexed"):
            torch.ones(3)[there.long()]
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()


def test_records_and_models_are_moved_whole_and_what_is_there_stays() -> None:
    model, records = nn.Linear(2, 2), Candidates(torch.ones(2, 2), torch.zeros(2))
    with accelerator():
        there = moved({"model": model, "records": (records, [records])}, DEVICE)
        weights = next(there["model"].parameters())
        assert weights.device == there["records"][0].inputs.device == DEVICE
        assert there["records"][0] is there["records"][1][0]
        assert weights.requires_grad
    assert moved(records, CPU) is records
    assert moved(model, CPU) is model


def test_a_setting_is_the_best_device_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "offered", lambda: ("cuda",))
    assert [resolved(name) for name in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
    monkeypatch.setattr(devices, "offered", tuple)
    assert resolved("auto") == "cpu"
    with pytest.raises(ConfigError, match=r"engine\.device: must be a device .* cpu, got 'mps'"):
        resolved("mps")
    assert free_memory(CPU) is None


def test_cuda_repeats_its_bits_inside_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda _: torch.tensor([7]))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, _: seeds.append(int(state)))
    monkeypatch.setattr(torch.cuda, "manual_seed", seeds.append)

    def settings() -> tuple[object, ...]:
        cudnn = torch.backends.cudnn
        exact = (cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
        return (*exact, cudnn.deterministic, torch.get_deterministic_debug_mode())

    before = settings()
    for stream in ("a", "a", "b"):
        with global_stream(0, stream), repeatable(torch.device("cuda")):
            assert settings() == (False, False, True, 1)
            warnings.warn("x does not have a deterministic implementation", stacklevel=1)
    assert settings() == before
    assert seeds[1::2] == [7, 7, 7]
    assert seeds[0] == seeds[2] != seeds[4]  # by the CPU's generator
    with repeatable(CPU):
        assert settings() == before
