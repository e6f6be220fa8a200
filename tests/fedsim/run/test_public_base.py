"""Runs of a model whose update is not its whole state: the base is kept once, the rest travels."""

import shutil

import pytest
import torch

from fedsim import api, models
from fedsim.config import Part, parse
from fedsim.core.errors import BadRecording
from fedsim.core.files import TensorFile, save_tensors
from fedsim.core.groups import groups_in
from fedsim.federation.progress import ALONE
from fedsim.run.prepare import prepare
from fedsim.run.public_base import BASE, check_base, load_base, write_base
from tests.builders import assert_same_outcome, outcome, same_params

pytestmark = pytest.mark.usefixtures("undrawn")
TRAVELS = ["head.weight", "head.bias", "beside.weight"]
UPLOADS = "rounds/*/uploads.safetensors"
FROZEN = ["body.weight", "body.bias"]
DEFENSE = [{"name": "clip", "bound": 1.0}, {"name": "gaussian", "std": 0.01}]


def config(**tables):
    sections = {
        "model": "tests.odd_models:Adapted",
        "data": {"name": "tests.builders:toy_dataset", "partition": "iid"},
        "federation": {"rounds": 2, "clients": 3},
        "local": {"epochs": 2, "batch_size": 8},
        "attack": [{"name": "llg"}, {"name": "cosine-mia"}],
        "auxiliary": {"share": 0.3, "candidates": 12},
        "defense": DEFENSE,
    }
    return parse({**sections, **tables})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return api.run(config(), tmp_path_factory.mktemp("base") / "run")


@pytest.mark.e2e
def test_only_what_trains_is_sent_uploaded_and_kept_and_the_base_once(run):
    sent, state = "rounds/*/sent.safetensors", "state/*/params.safetensors"
    files = [TensorFile(path) for name in (sent, state) for path in run.path.glob(name)]
    uploads = [it for path in run.path.glob(UPLOADS) for it in groups_in(path).values()]
    assert (len(files), len(uploads)) == (2 + 1, 2 * 3)
    assert all(list(each) == TRAVELS for each in [*files, *uploads])
    assert [path.name for path in run.path.rglob(BASE)] == [BASE]
    assert list(TensorFile(run.path / BASE)) == FROZEN
    values = [row["value"] for row in run.ledger().to_pylist() if row["attack"] == "llg"]
    assert values
    assert None not in values


@pytest.mark.slow
@pytest.mark.twin
@pytest.mark.xdist_group("processes")
def test_ray_gives_the_same_bits(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ".")  # for the workers: the model lives in the tests
    engine = {"name": "ray", "workers": 2, "attackers": 1}
    other = api.run(config(engine=engine), tmp_path / "ray")
    assert_same_outcome(run.path, other.path)


@pytest.mark.twin
def test_clients_train_together(run, tmp_path):
    other = api.run(config(engine={"name": "batched"}), tmp_path / "batched")
    assert ALONE not in other.metrics()["metric"].to_pylist()
    state, like = outcome(other.path)[0], outcome(run.path)[0]
    assert state.keys() == like.keys()
    assert all(torch.allclose(value, like[name], atol=1e-5) for name, value in state.items())


@pytest.mark.twin
def test_a_stopped_run_ends_with_the_same_bits(run, tmp_path):
    def interrupt(done):
        if done.number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.run(config(), tmp_path / "stopped", on_round=interrupt)
    other = api.resume(tmp_path / "stopped")
    assert_same_outcome(run.path, other.path)


@pytest.mark.e2e
def test_noise_lies_on_what_travels_alone(tmp_path):
    noisy = config(defense=[{"name": "dp-sgd", "clip": 1.0, "noise": 1.0}], attack=[])
    run = api.run(noisy, tmp_path / "noisy")
    assert all(list(it) == TRAVELS for it in groups_in(next(run.path.glob(UPLOADS))).values())
    assert "epsilon" in run.metrics()["metric"].to_pylist()


@pytest.mark.worked
def test_a_later_attack_runs_on_the_base_of_the_run(run, tmp_path):
    plan, like = prepare(config()), TensorFile(run.path / BASE)
    with torch.no_grad():
        plan.model.body.weight += 1
    load_base(run.path, plan.model)
    assert same_params(models.base_of(plan.model), like)
    assert plan.auxiliary.model is plan.model
    shutil.copytree(run.path, tmp_path / "copy")
    table = api.attack(tmp_path / "copy", [Part(name="llg")], allow=["tests.odd_models:Adapted"])
    assert table.num_rows


@pytest.mark.worked
def test_a_base_that_is_lost_or_another_one_is_refused(run, tmp_path):
    model = prepare(config()).model
    check_base(run.path, model)
    write_base(tmp_path, model)
    shutil.copytree(run.path, tmp_path / "copy")
    (tmp_path / "copy" / BASE).unlink()
    with pytest.raises(BadRecording, match=f"none at {BASE}"):
        api.attack(tmp_path / "copy", [Part(name="llg")])
    with pytest.raises(BadRecording, match=BASE):
        check_base(tmp_path / "copy", model)
    with torch.no_grad():
        model.body.bias += 1
    with pytest.raises(BadRecording, match=f"{BASE}: must be what .* other values of body.bias"):
        check_base(tmp_path, model)
    save_tensors(tmp_path / BASE, {"body.weight": model.body.weight}, {})
    with pytest.raises(BadRecording, match=f"{BASE}: must be of the run's model, .* body.bias"):
        load_base(tmp_path, model)


@pytest.mark.worked
def test_a_run_without_frozen_parameters_has_no_base(tmp_path):
    model = prepare(config(model="mlp")).model
    write_base(tmp_path, model)
    assert not list(tmp_path.iterdir())
    check_base(tmp_path, model)
    load_base(tmp_path, model)
