"""Clients train on an accelerator to the bits of the CPU, where the kernels are the same."""

from pathlib import Path

import pytest
import torch
from torch import nn

from clients.train import train
from defenses import Defense, build
from fedsim import api, models
from fedsim import config as configs
from fedsim.config import Config, Model, Part
from fedsim.core import devices
from fedsim.core.errors import ConfigError
from fedsim.core.form import Form
from fedsim.core.params import alike
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import LocalTraining
from fedsim.models.fitting import fitting, kept
from fedsim.models.together import train_together
from fedsim.run.prepare import prepare
from tests.accelerator import DEVICE, accelerator

IMAGES = Form((1, 8, 8), 4)
TEXTS = Form((6,), 20, torch.int64, 20, per_token=True)
INSIDE = [[], ["dp-sgd"], ["mixup"], ["perturb"], ["soteria"]]
MODELS = [("mlp", IMAGES), ("cnn", IMAGES), ("vit", IMAGES), ("gpt", TEXTS)]
LOCAL = LocalTraining(0.1, 3, epochs=2, momentum=0.5, proximal_mu=0.1)


def trained(model: nn.Module, form: Form, defense: Defense, local: LocalTraining) -> list:
    """Return what a client uploads, with the places that it used."""
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    inputs, labels = models.batch(form, 7)
    with global_stream(0, "dropout"):
        state, used = train(
            *(model, sent, inputs, labels, local),
            generator=generator(0, "order"),
            gradient=defense.gradient,
            batches=defense.batches,
        )
    return [*state.values(), used]


def built(name: str, form: Form) -> nn.Module:
    """Return a model whose weights are always the same."""
    options = {"dropout": 0.2} if name == "gpt" else {}
    return models.build(Model(name=name, **options), form, seed=0)


def same(there: list, here: list) -> bool:
    """Return whether what came from the accelerator lies on the CPU, with the same bits."""
    return all(type(it) is torch.Tensor for it in there) and all(map(alike, there, here))


@pytest.mark.parametrize("upload", ["weights", "gradient"])
@pytest.mark.parametrize("names", INSIDE, ids=lambda names: names[0] if names else "none")
def test_a_defense_inside_training_runs_there(names: list[str], upload: str) -> None:
    defense = build([Part(name=name) for name in names])
    local = LocalTraining(0.1, 3, upload=upload)  # type: ignore[arg-type]
    here = trained(built("mlp", IMAGES), IMAGES, defense, local)
    with accelerator():
        there = trained(built("mlp", IMAGES).to(DEVICE), IMAGES, defense, local)
    assert same(there, here)


@pytest.mark.parametrize(("name", "form"), MODELS, ids=[name for name, _ in MODELS])
def test_a_model_trains_there(name: str, form: Form) -> None:
    here = trained(built(name, form), form, build([]), LOCAL)
    with accelerator():
        there = trained(built(name, form).to(DEVICE), form, build([]), LOCAL)
    assert same(there, here)


def test_clients_train_together_there() -> None:
    inputs, labels = models.batch(IMAGES, 9)
    steps = [[torch.arange(4), torch.arange(4, 5)], [torch.arange(5, 9)]]

    def states(model: nn.Module) -> list[torch.Tensor]:
        sent = [{n: v.cpu() for n, v in model.state_dict().items()}] * 2
        uploads = train_together(model, sent, inputs, labels, steps, LOCAL, mixes=False)
        return [value for upload in uploads for value in upload.values()]

    here = states(built("cnn", IMAGES))
    with accelerator():
        there = states(built("cnn", IMAGES).to(DEVICE))
    assert same(there, here)


class Forgetful(nn.Module):
    """A model that makes a tensor on the CPU, whatever device it is on."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(64, num_classes), torch.ones(num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.linear(x.flatten(1)) * self.scale


@pytest.fixture
def has_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let settings name the accelerator of these tests cuda."""
    monkeypatch.setitem(devices.NAMES, "cuda", DEVICE)
    monkeypatch.setattr(devices, "offered", lambda: ("cuda",))


@pytest.mark.parametrize("engine", ["inline", "batched"])
@pytest.mark.usefixtures("has_cuda")
def test_a_run_there_records_the_same_bits(engine: str, tmp_path: Path) -> None:
    settings = [f"engine.name={engine}", "federation.rounds=1", "federation.clients=4"]
    settings += ['attack=["llg","loss-drop"]']
    api.run(configs.read(None, settings), tmp_path / "here")
    with accelerator():
        api.run(configs.read(None, [*settings, "engine.device=auto"]), tmp_path / "there")
    assert api.Run(tmp_path / "there").config().engine.device == "cuda"
    for name in ("sent", "uploads"):
        file = f"rounds/0001/{name}.safetensors"
        here, there = ((tmp_path / at / file).read_bytes() for at in ("here", "there"))
        assert here == there
    here, there = (api.Run(tmp_path / at).ledger().drop("seconds") for at in ("here", "there"))
    assert here.num_rows > 4
    assert here == there


@pytest.mark.usefixtures("has_cuda")
def test_a_recording_is_attacked_where_the_device_is_lacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["federation.rounds=1", "federation.clients=4", "attack=[]", "engine.device=cuda"]
    with accelerator():
        api.run(configs.read(None, settings), tmp_path / "run")
    monkeypatch.setattr(devices, "offered", tuple)
    rows = api.attack(tmp_path / "run", [Part(name="llg")])
    assert rows.num_rows > 0
    with pytest.raises(ConfigError, match=r"--device: .*got 'cuda'"):
        api.attack(tmp_path / "run", [Part(name="llg")], device="cuda")
    monkeypatch.setattr(devices, "offered", lambda: ("cuda",))
    with accelerator():
        again = api.attack(tmp_path / "run", [Part(name="llg")], device="auto")
    assert again.drop("seconds") == rows.drop("seconds")
    monkeypatch.setattr(devices, "offered", tuple)
    assert api.Run(tmp_path / "run").config().engine.device == "cuda"
    with pytest.raises(ConfigError, match=r"engine\.device: .*got 'cuda'"):
        api.resume(tmp_path / "run")


@pytest.mark.usefixtures("has_cuda")
def test_a_model_that_forgets_its_device_is_refused() -> None:
    model = {"model": {"name": f"{__name__}:Forgetful"}, "engine": {"device": "cuda"}}
    with accelerator(), pytest.raises(ConfigError, match=r"must train on the device meta, got"):
        prepare(Config.model_validate(model))


def test_a_lacking_device_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "offered", tuple)
    with pytest.raises(ConfigError, match=r"engine\.device: .*got 'cuda'"):
        api.run(configs.read(None, ["engine.device=cuda"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_as_many_clients_train_together_as_fit() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4, bias=False))
    per_client = 6 * 4 * 64 * 4 + 2 * kept(model, IMAGES, 8)
    assert kept(model, IMAGES, 8) >= 8 * 64 * 4  # the input of the layer is kept for its gradient
    assert fitting(model, IMAGES, 8, 2 * 10 * per_client) == 10
    assert fitting(model, IMAGES, 8, 0) == 1
