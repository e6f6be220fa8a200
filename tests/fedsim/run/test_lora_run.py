"""Runs of LoRA: adapters travel, in every engine and under DP-SGD; the base stays at home."""

import pytest
import torch

from fedsim import api
from fedsim.config import parse
from fedsim.core.files import TensorFile
from fedsim.core.groups import groups_in
from fedsim.federation.progress import ALONE
from tests.builders import assert_same_outcome, outcome

pytestmark = [pytest.mark.usefixtures("undrawn"), pytest.mark.extra("peft")]
UPLOADS = "rounds/*/uploads.safetensors"
TRAVELS = ["1.lora_A.default.weight", "1.lora_B.default.weight", "head.weight", "head.bias"]


def config(**tables):
    lora = {"rank": 2, "targets": ["1"], "train": ["head"]}
    sections = {
        "model": {"name": "mlp", "hidden": 16, "lora": lora},
        "data": {"name": "tests.builders:toy_dataset", "partition": "iid"},
        "federation": {"rounds": 2, "clients": 3},
        "local": {"epochs": 2, "batch_size": 8, "lr": 0.05},
        "attack": [{"name": "llg"}, {"name": "update-lira"}],
        "auxiliary": {"share": 0.3, "candidates": 12},
    }
    return parse({**sections, **tables})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return api.run(config(), tmp_path_factory.mktemp("lora") / "run")


@pytest.mark.e2e
def test_adapters_and_head_are_all_that_is_recorded_and_attacks_answer(run):
    sent, state = "rounds/*/sent.safetensors", "state/*/params.safetensors"
    files = [TensorFile(path) for name in (sent, state) for path in run.path.glob(name)]
    uploads = [it for path in run.path.glob(UPLOADS) for it in groups_in(path).values()]
    assert (len(files), len(uploads)) == (2 + 1, 2 * 3)
    assert all(list(each) == TRAVELS for each in [*files, *uploads])
    outcomes = {(row["attack"], row["outcome"]) for row in run.ledger().to_pylist()}
    assert {("llg", "graded"), ("update-lira", "graded")} <= outcomes
    assert not {it for it in outcomes if it[1] in ("failed", "refused")}


@pytest.mark.twin
def test_a_stopped_run_ends_with_the_same_bits(run, tmp_path):
    def interrupt(done):
        if done.number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.run(config(), tmp_path / "stopped", on_round=interrupt)
    other = api.resume(tmp_path / "stopped")
    assert_same_outcome(run.path, other.path)


@pytest.mark.untyped  # beartype draws random numbers, and so would the model
@pytest.mark.twin
def test_clients_train_together(run, tmp_path):
    other = api.run(config(engine={"name": "batched"}), tmp_path / "batched")
    assert ALONE not in other.metrics()["metric"].to_pylist()
    state, like = outcome(other.path)[0], outcome(run.path)[0]
    assert list(state) == TRAVELS
    assert all(torch.allclose(value, like[name], atol=1e-5) for name, value in state.items())


@pytest.mark.e2e
@pytest.mark.parametrize("strategy", ["fedavg", "fedsgd", "fedadam"])
def test_defenses_and_epsilons_are_about_the_adapters(tmp_path, strategy):
    federation = {"rounds": 2, "clients": 3, "strategy": strategy}
    private = [{"name": "dp-sgd", "clip": 1.0, "noise": 1.0}]
    local = {"epochs": 1, "batch_size": 8, "lr": 0.05}
    run = api.run(config(federation=federation, defense=private, local=local), tmp_path / "private")
    for upload in groups_in(run.path / "rounds" / "0001" / "uploads.safetensors").values():
        assert list(upload) == TRAVELS
        assert all(value.any() for value in upload.values())  # noise on A, too: its gradient is 0
    assert "epsilon" in run.metrics()["metric"].to_pylist()
