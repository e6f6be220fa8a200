"""Apps of other layouts and frameworks: they run as before around a recorder, and are attacked.

The sixth layout, PyTorch with the message API, is in `test_recording.py`. A framework that is not
installed skips its test; none is among fedsim's dependencies.
"""

import importlib
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict

from fedsim import api
from fedsim.config import Part
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.federation.foreign import App
from fedsim.federation.foreign.config import recorded_arrays
from fedsim.federation.grid import SimulationGrid
from fedsim.run.run_folder import RunFolder
from strategies import Recording
from strategies.tape import recorded_clients, recorded_rounds
from tests.apps.digits import CLIENTS
from tests.fedsim.cli.test_main import fedsim

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
HEAD = ("llg", "llbg", "idlg", "ilrg")
NEEDS = {
    "jax": ("jax", "flax", "optax"),
    "peft": ("peft", "transformers"),
    "transformers": ("transformers",),
    "xgboost": ("xgboost",),
}


class FlowerLike(SimulationGrid):
    """Returns a list, as Flower's own grids do, and has a run."""

    @property
    def run(self):
        return SimpleNamespace(run_id=1)

    def send_and_receive(self, messages, *, timeout=None):
        return list(super().send_and_receive(messages, timeout=timeout))


def layout(name):
    """Import an app; skip the test where its framework is not installed."""
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package, reason=f"{package} is not installed")
    return importlib.import_module(f"tests.apps.{name}_app")


def simulate(app, tape=None, *, truth=None):
    """Run an app in this process, with a recorder where a tape is named; return its final model."""
    run_config = {"truth": str(truth)} if truth else {}

    def execute(jobs, timeout):
        for message, context in jobs:
            context.run_config = run_config
            yield app.client_app(message, context), context

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    results = {}
    recorder = getattr(app, "RECORDER", Recording)
    wrap = (lambda strategy: recorder(strategy, tape)) if tape else (lambda strategy: strategy)
    grid = FlowerLike(CLIENTS, execute, tape)
    app.server_app(wrap, results)(grid, Context(1, 1, {}, RecordDict(), run_config))
    if hasattr(app, "final"):
        return app.final(results)
    return [array.numpy() for array in results["final"].values()]


def check_same(app, tape, **options):
    """Check that an app around a recorder ends with the same bits as without."""
    alone, taped = simulate(app), simulate(app, tape, **options)
    assert len(alone) == len(taped)
    for left, right in zip(alone, taped, strict=True):
        assert left.dtype == right.dtype
        assert left.tobytes() == right.tobytes()


def shown(capsys, tape, *arguments):
    code, out, err = fedsim(capsys, "attack", tape, *arguments)
    assert (code, err.strip()) == (0, "")
    return out


def test_scikit_learn_is_attacked_by_its_head_and_its_solver_is_said_to_be_no_sgd(tmp_path, capsys):
    check_same(layout("sklearn"), tmp_path)
    out = shown(
        capsys, tmp_path, "--head-weight", "0", "--head-bias", "1", "--local-lr", 0.1,
        "--local-batch-size", 1, "--local-optimizer", "saga", "--with", ",".join(HEAD),
    )  # fmt: skip
    assert "Arrays   weight = 0, bias = 1; 0 of 2 transposed" in out
    assert "The clients ran saga, whose steps are no gradients times lr." in out
    assert api.Run(tmp_path).ledger().num_rows
    assert recorded_rounds(tmp_path) == [1, 2]
    assert len(recorded_clients(tmp_path, 2)) == CLIENTS


def test_jax_is_attacked_by_its_head_and_by_a_twin_in_torch(tmp_path):
    app = layout("jax")
    check_same(app, tmp_path / "tape", truth=tmp_path / "truth")
    training = {"lr": app.LR, "batch_size": app.BATCH, "truth": str(tmp_path / "truth")}
    attacks = [Part(name=name) for name in HEAD]
    head = App(head_weight="5", head_bias="4", **training)
    means = {
        (row["attack"], row["metric"]): row
        for row in api.means(api.attack(tmp_path / "tape", attacks, app=head))
    }
    assert means["llbg", "asr"]["value"] > means["llbg", "asr"]["blind"] + 0.1
    by_head = RunFolder(tmp_path / "tape").guesses(1)
    (tmp_path / "tape" / "config.toml").unlink()
    twin = App(model="tests.apps.jax_app:Twin", num_classes=10, input_shape=(1, 8, 8), **training)
    rows = api.attack(tmp_path / "tape", [*attacks, Part(name="llg-star")], app=twin)
    assert not [row for row in rows.to_pylist() if row["value"] is None]
    by_twin = RunFolder(tmp_path / "tape").guesses(1)
    assert all(torch.equal(by_head[name], by_twin[name]) for name in by_head)
    arrays = RunFolder(tmp_path / "tape").config.foreign.arrays
    assert {name: (it.name, it.axes) for name, it in arrays.items()} == {
        "conv.weight": ("1", (3, 2, 0, 1)), "conv.bias": ("0", ()),
        "dense.weight": ("3", (1, 0)), "dense.bias": ("2", ()),
        "out.weight": ("5", (1, 0)), "out.bias": ("4", ()),
    }  # fmt: skip


@pytest.mark.twin
def test_the_twin_of_a_jax_model_computes_what_the_model_does():
    app = layout("jax")
    arrays = [torch.from_numpy(array.copy()) for array in app.get_params(app.initial())]
    twin = app.Twin()
    twin.load_state_dict(
        {
            "conv.weight": arrays[1].permute(3, 2, 0, 1), "conv.bias": arrays[0],
            "dense.weight": arrays[3].T, "dense.bias": arrays[2],
            "out.weight": arrays[5].T, "out.bias": arrays[4],
        }
    )  # fmt: skip
    x, _ = app.partition(0)
    theirs = np.array(app.CNN().apply({"params": app.initial()}, x[..., None]))
    ours = twin(torch.from_numpy(x).unsqueeze(1)).detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_transformers_are_attacked_by_their_head_and_adamw_is_said_to_be_no_sgd(tmp_path, capsys):
    app = layout("transformers")
    check_same(app, tmp_path)
    training = {"lr": app.LR, "batch_size": app.BATCH, "optimizer": "adamw"}
    whole = App(
        model="tests.apps.transformers_app:get_model",
        num_classes=3,
        input_shape=(12,),
        **training,
    )
    with pytest.raises(ConfigError, match="--head-weight and --head-bias") as error:
        api.attack(tmp_path, [Part(name="llg")], app=whole)
    assert "\n" not in str(error.value)
    out = shown(
        capsys, tmp_path, "--head-weight", "classifier.weight", "--head-bias", "classifier.bias",
        "--local-lr", app.LR, "--local-batch-size", app.BATCH, "--local-optimizer", "adamw",
        "--with", ",".join(HEAD),
    )  # fmt: skip
    assert "The clients ran adamw, whose steps are no gradients times lr." in out


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, which peft calls
def test_texts_are_read_off_the_adapters_of_a_language_model(tmp_path, capsys):
    app = layout("peft")
    check_same(app, tmp_path)
    assert all(".lora_" in name for name in recorded_arrays(tmp_path))
    out = shown(
        capsys, tmp_path, "--model", "tests.apps.peft_app:get_model",
        "--vocabulary", app.VOCABULARY, "--num-classes", app.VOCABULARY, "--task", "next",
        "--input-shape", app.LENGTH - 1, "--local-lr", app.LR, "--local-batch-size", app.BATCH,
        "--local-epochs", app.EPOCHS, "--with", "span-pursuit,span-pursuit-rounds",
    )  # fmt: skip
    assert ".lora_A.default.weight = base_model.model.transformer.h.0.attn.c_attn.lora_A." in out
    texts = [app.text(number)[0][0].tolist() for number in range(CLIENTS)]
    for round_ in recorded_rounds(tmp_path):
        guesses = RunFolder(tmp_path).guesses(round_)
        answers = {"span-pursuit": [], "span-pursuit-rounds": []}
        for name, guess in guesses.items():
            answers[name.partition("/")[0]].append(guess[0].tolist())
        assert len(answers["span-pursuit"]) == CLIENTS
        assert sum(text in answers["span-pursuit"] for text in texts) >= CLIENTS - 1
        assert sum(text in answers["span-pursuit-rounds"] for text in texts) >= CLIENTS - 1
    whole = App(model="tests.apps.peft_app:get_model", num_classes=9, task="next")
    with pytest.raises(ConfigError, match="vocabulary: must be num_classes where task = 'next'"):
        api.attack(tmp_path, [Part(name="span-pursuit")], app=whole)


def test_xgboost_runs_as_before_and_no_attack_reads_trees(tmp_path):
    check_same(layout("xgboost"), tmp_path)
    with pytest.raises(BadRecording, match="no attack reads trees yet") as error:
        api.attack(tmp_path, [Part(name="llg")], app=App(lr=0.1, batch_size=8))
    assert "\n" not in str(error.value)


def test_the_legacy_api_runs_as_before_and_is_attacked(tmp_path):
    app = layout("legacy")
    check_same(app, tmp_path)
    assert recorded_rounds(tmp_path) == [1, 2]
    training = {"lr": app.LR, "batch_size": app.BATCH}
    whole = App(model="tests.apps.legacy_app:Net", num_classes=10, input_shape=(64,), **training)
    rows = api.attack(tmp_path, [Part(name=name) for name in (*HEAD, "llg-star")], app=whole)
    assert rows.num_rows
    assert set(RunFolder(tmp_path).guesses(1)) >= {
        f"llg/{k}" for k in recorded_clients(tmp_path, 1)
    }
    assert RunFolder(tmp_path).config.foreign.arrays["hidden.weight"].name == "0"
    assert not any(it.axes for it in RunFolder(tmp_path).config.foreign.arrays.values())
