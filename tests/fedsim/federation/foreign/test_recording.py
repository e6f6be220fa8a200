"""Somebody else's Flower app: recorded by one line, attacked by one command."""

import json
import random
import shutil

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from defenses import chain, clip, gaussian
from fedsim import api
from fedsim.config import Part
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.files import save_tensors
from fedsim.core.types import LocalTraining
from fedsim.federation.foreign import App
from fedsim.federation.grid import SimulationGrid
from fedsim.federation.mods import as_mod, keep_truth
from fedsim.run.run_folder import RunFolder
from strategies import Tape
from strategies.tape import recorded_clients, recorded_rounds
from strategies.tape_views import views
from tests.builders import small_config
from tests.fedsim.cli.test_main import fedsim
from tests.quickstart import client_app, server_app
from tests.quickstart.task import load_data

CLIENTS, ROUNDS, BATCH, LR = 5, 2, 16, 0.01
RUN = {"num-server-rounds": ROUNDS, "learning-rate": LR, "local-epochs": 1, "batch-size": BATCH}
QUICKSTART = App(
    model="tests.quickstart.task:Net", num_classes=10, lr=LR, batch_size=BATCH, momentum=0.9
)


class FlowerLike(SimulationGrid):
    """Returns a list, as Flower's own grids do: its adaptive clipping goes through it twice."""

    def send_and_receive(self, messages, *, timeout=None):
        return list(super().send_and_receive(messages, timeout=timeout))


def simulate(tape, *, strategy="fedavg", mods=(), final=None, truth=None, epochs=1):
    """Run the app in this process; return its final model."""
    run_config = {
        **RUN,
        "strategy": strategy,
        "tape": str(tape or ""),
        "final-model": str(final),
        "local-epochs": epochs,
    }
    theirs = ClientApp(mods=list(mods))

    def train(message, context):
        reply = client_app.train(message, context)
        if truth:
            loader, _ = client_app._loaders(context)
            keep_truth(truth, message, context, loader.dataset.tensors[1].repeat(epochs))
        return reply

    theirs.train()(train)
    theirs.evaluate()(client_app.evaluate)

    def execute(jobs, timeout):
        for message, context in jobs:
            context.run_config = run_config
            yield theirs(message, context), context

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 Flower's DP wrappers draw from it
    torch.manual_seed(0)
    grid = FlowerLike(CLIENTS, execute, tape)
    server_app.app(grid, Context(1, 1, {}, RecordDict(), run_config))
    return torch.load(final, weights_only=True)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The tape of a FedAvg run, and its clients' truth; not to be written to."""
    folder = tmp_path_factory.mktemp("quickstart")
    simulate(folder / "tape", final=folder / "final.pt", truth=folder / "truth")
    return folder


@pytest.fixture
def tape(recorded, tmp_path):
    """A copy of the tape."""
    shutil.copytree(recorded / "tape" / "rounds", tmp_path / "tape" / "rounds")
    return tmp_path / "tape"


@pytest.mark.parametrize(
    "strategy",
    ["fedavg", "fedadam", "krum", "dp-server-fixed", "dp-server-adaptive", "dp-client-fixed"],
)
def test_the_recorder_changes_no_bit_of_an_app_and_has_every_upload(strategy, tmp_path):
    alone = simulate(None, strategy=strategy, final=tmp_path / "alone.pt")
    taped = simulate(tmp_path / "tape", strategy=strategy, final=tmp_path / "taped.pt")
    assert all(torch.equal(alone[name], taped[name]) for name in alone)
    assert recorded_rounds(tmp_path / "tape") == [1, 2]
    local = LocalTraining(lr=LR, batch_size=BATCH, momentum=0.9)
    for round_ in (1, 2):
        seen = list(views(tmp_path / "tape", round_, local))
        assert len(seen) == CLIENTS
        told = [view.latest.update.num_examples for view in seen]
        assert told == [len(load_data(k, CLIENTS, BATCH)[0].dataset) for k in range(CLIENTS)]
    # Clipped on the server, an update would have at most this norm: it is on tape as it came.
    for view in seen:
        square = sum(float(value.square().sum()) for value in view.latest.update.delta.values())
        assert square**0.5 > 0.055


def test_all_that_a_tape_lacks_is_asked_for_in_one_sentence(tape, capsys):
    options = "--model MODULE:NAME --num-classes C --local-lr LR --local-batch-size N"
    rule = "must be given for a recording that fedsim did not run, got none"
    other = "; --head-weight NAME --head-bias NAME may stand in place of --model"
    code, _, err = fedsim(capsys, "attack", tape)
    assert (code, err.strip()) == (2, f"fedsim: {options} --with NAME: {rule}{other}")
    code, _, err = fedsim(capsys, "attack", tape, "--with", "llg")
    assert (code, err.strip()) == (2, f"fedsim: {options}: {rule}{other}")
    head = ("--head-weight", "fc.weight", "--local-lr", "0.1")
    code, _, err = fedsim(capsys, "attack", tape, *head)
    assert (code, err.strip()) == (2, f"fedsim: --local-batch-size N --with NAME: {rule}")
    assert not (tape / "config.toml").exists()


def test_without_truth_an_attack_leaves_answers_and_a_report(tape, capsys):
    arguments = (
        "attack", tape, "--model", "tests.quickstart.task:Net", "--num-classes", "10",
        "--local-lr", LR, "--local-batch-size", BATCH, "--local-momentum", "0.9",
        "--with", "llg,llbg",
    )  # fmt: skip
    code, out, err = fedsim(capsys, *arguments)
    assert (code, err.strip()) == (0, "")
    assert "llg" in out
    assert f"Report   {tape}/report.html\nNext     xdg-open {tape}/report.html" in out
    ledger = api.Run(tape).ledger()
    assert ledger.num_rows == 2 * ROUNDS * CLIENTS * 5
    assert pc.all(pc.is_null(ledger["value"])).as_py()
    folder = RunFolder(tape)
    for round_ in (1, 2):
        for client in recorded_clients(tape, round_):
            counts = folder.guesses(round_)[f"llg/{client}"]
            own = len(load_data(int(client) - 2, CLIENTS, BATCH)[0].dataset)
            assert int(counts.sum()) == own
    page = (tape / "report.html").read_text()
    assert "Inferred labels of client" in page
    assert "The ground truth is not available" in page
    assert "another Flower app" in page
    assert "digits" not in page  # the defaults of a run of fedsim's own are not claimed
    # What was told is kept: another attack needs only its name.
    code, out, _ = fedsim(capsys, "attack", tape, "--with", "idlg", "--json")
    assert code == 0
    assert {row["attack"] for row in json.loads(out)["attacks"]} == {"idlg"}
    assert set(api.Run(tape).ledger()["attack"].to_pylist()) == {"llg", "llbg", "idlg"}
    assert fedsim(capsys, "report", tape)[0] == 0


def test_with_truth_answers_are_graded_and_an_attack_beats_the_blind_guess(tape, recorded):
    app = App(**{**vars(QUICKSTART), "truth": str(recorded / "truth")})
    attacks = [Part(name="llg"), Part(name="llbg"), Part(name="random")]
    table = api.attack(tape, attacks, app=app)
    means = {(row["attack"], row["metric"]): row for row in api.means(table)}
    assert means["llbg", "asr"]["value"] > means["llbg", "asr"]["blind"] + 0.1
    assert means["random", "asr"]["value"] < means["llbg", "asr"]["value"]
    assert "True and inferred labels" in (tape / "report.html").read_text()


def test_a_round_in_which_the_app_was_killed_keeps_nobody_from_attacking_those_before(tape):
    Tape(tape, append=True).write_sent(ROUNDS + 1, {"w": torch.zeros(2)})
    api.attack(tape, [Part(name="llg")], app=QUICKSTART)
    assert [bool(RunFolder(tape).guesses(number)) for number in (1, 2, 3)] == [True, True, False]


def test_auxiliary_examples_of_its_own_make_the_adversary_stronger(tape, recorded):
    app = App(
        **{**vars(QUICKSTART), "truth": str(recorded / "truth"),
           "auxiliary": f"{__name__}:digits", "auxiliary_limit": 300}
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"attack\.eb-gls: needs auxiliary inputs, got none"):
        api.attack(tape, [Part(name="eb-gls")], app=QUICKSTART)
    assert not (tape / "config.toml").exists()
    means = {
        (row["attack"], row["metric"]): row["value"]
        for row in api.means(api.attack(tape, [Part(name="eb-gls"), Part(name="llg")], app=app))
    }
    assert means["eb-gls", "asr"] > means["llg", "asr"]
    told = RunFolder(tape).config
    assert told.foreign.auxiliary_limit == 300
    assert told.foreign.input_shape == (1, 8, 8)


def digits(root):
    from fedsim.data.digits import digits

    return digits(root)


def test_defenses_as_mods_reach_the_tape(recorded, tmp_path):
    mods = [as_mod(chain(clip(bound=0.02), gaussian(std=1e-4)), seed=0)]
    simulate(tmp_path / "tape", mods=mods, final=tmp_path / "final.pt")
    local = LocalTraining(lr=LR, batch_size=BATCH, momentum=0.9)
    for folder, low, high in ((tmp_path / "tape", 0.019, 0.023), (recorded / "tape", 0.055, 10)):
        for view in views(folder, 1, local):
            delta = view.latest.update.delta
            norm = torch.cat([delta[name].flatten() for name in delta]).norm()
            assert low < float(norm) < high


WRONG = {
    "model": ({"model": None}, "--model MODULE:NAME: must be given for a recording"),
    "classes": ({"num_classes": None}, "--num-classes C: must be given"),
    "lr": ({"lr": None}, "--local-lr LR: must be given"),
    "batch": ({"batch_size": None}, "--local-batch-size N: must be given"),
    "negative": ({"lr": -1.0}, r"local\.lr: input should be greater than 0, got -1\.0"),
    "import": ({"model": "nowhere:Net"}, "model.name: must be an importable package.module"),
    "other": (
        {"model": "mlp", "input_shape": (1, 8, 8)},
        "--model: must be the model of .*missing",
    ),
    "logits": (
        {"num_classes": 7, "input_shape": (1, 8, 8)},
        "must give a logit per class .* for 2 examples and 7 classes",
    ),
    "shape": (
        {"input_shape": (3, 8, 8)},
        r"must take inputs of the data.s shape, .* those of \(2, 3, 8, 8\), got",
    ),
    "no shape": ({"num_classes": 7}, "--input-shape: must be given, .*got none .*and 7 classes"),
    "truth": ({"truth": "/nowhere"}, "--truth: must be a folder, got /nowhere"),
    "auxiliary": (
        {"auxiliary": "nothing"},
        "data.name: must be a known name, got 'nothing'",
    ),
    "data": (
        {"auxiliary": "tests.builders:toy_dataset", "input_shape": (1, 8, 8)},
        r"--auxiliary: must have 10 classes of shape \(1, 8, 8\), got 3 of \(4,\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_told_wrongly_is_one_sentence_and_nothing_is_written(case, tape):
    changes, sentence = WRONG[case]
    with pytest.raises(ConfigError, match=sentence) as error:
        api.attack(tape, [Part(name="llg")], app=App(**{**vars(QUICKSTART), **changes}))
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tape.iterdir()) in ([".lock", "rounds"], ["rounds"])


def test_a_wrong_word_later_keeps_what_was_told_before(tape):
    api.attack(tape, [Part(name="llg")], app=QUICKSTART)
    before = (tape / "config.toml").read_text()
    with pytest.raises(
        ConfigError, match="--model: must be the model of .*'mlp' that is not: miss"
    ):
        api.attack(tape, [Part(name="llg")], app=App(model="mlp"))
    with pytest.raises(ConfigError, match="attack.name: must be a known name, got 'lllg'"):
        api.attack(tape, [Part(name="lllg")])
    assert (tape / "config.toml").read_text() == before
    api.attack(tape, [Part(name="llg")], app=App(lr=0.02))
    assert RunFolder(tape).config.local.lr == 0.02
    assert RunFolder(tape).config.local.momentum == 0.9


def test_a_run_of_fedsims_own_has_its_config_and_an_empty_tape_nothing(tmp_path):
    own = api.run(small_config(federation={"rounds": 1}), tmp_path / "own").path
    with pytest.raises(ConfigError, match="--model: must go with another app's recording, got"):
        api.attack(own, [Part(name="llg")], app=QUICKSTART)
    Tape(tmp_path / "tape").write_sent(1, {"w": torch.zeros(2)})
    with pytest.raises(BadRecording, match="must hold recorded uploads, got none"):
        api.attack(tmp_path / "tape", [Part(name="llg")], app=QUICKSTART)


def test_another_apps_recording_is_never_gone_on_with(tape, tmp_path, monkeypatch):
    before = sorted((tape / "rounds").rglob("*"))
    with pytest.raises(BadRecording, match="--out: must be a run of fedsim's own to go on with"):
        api.resume(tape)
    api.attack(tape, [Part(name="llg")], app=QUICKSTART)
    with pytest.raises(BadRecording, match="--out: must be a run of fedsim's own to go on with"):
        api.resume(tape)
    with pytest.raises(BadRecording, match="must be fedsim's own run, got another app's"):
        RunFolder(tape).restore()
    (tmp_path / "runs").mkdir()
    tape.rename(tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="--resume: must find an unfinished run"):
        api.newest_unfinished()
    assert len(sorted((tmp_path / "runs" / "mine" / "rounds").rglob("*"))) == len(before)


def test_a_gradients_recording_needs_no_learning_rate_and_has_one_epoch(tmp_path):
    sent = {name: value.clone() for name, value in server_app.Net().state_dict().items()}
    tape = Tape(tmp_path)
    tape.write_sent(1, sent)
    tape.write_upload(1, "7", {k: torch.randn_like(v) for k, v in sent.items()}, 8, "gradient")
    tape.finish(1)
    app = App(model="tests.quickstart.task:Net", num_classes=10)
    assert api.attack(tmp_path, [Part(name="llg")], app=app).num_rows == 5
    assert RunFolder(tmp_path).config.local_training().upload == "gradient"
    with pytest.raises(ConfigError, match="local.epochs: must be 1 with fedsgd, got 3"):
        api.attack(tmp_path, [Part(name="llg")], app=App(epochs=3))


def test_reconstructions_are_kept_and_not_graded_where_only_labels_are_known(tmp_path):
    net = server_app.Net()
    sent = {name: value.clone() for name, value in net.state_dict().items()}
    image, label = torch.rand(1, 1, 8, 8), torch.tensor([3])
    torch.nn.functional.cross_entropy(net(image), label).backward()
    tape = Tape(tmp_path / "tape")
    tape.write_sent(1, sent)
    gradient = {name: value.grad for name, value in net.named_parameters()}
    tape.write_upload(1, "7", gradient, 1, "gradient")
    tape.finish(1)
    save_tensors(tmp_path / "truth" / "0001" / "7.safetensors", {"labels": label}, {})
    app = App(model="tests.quickstart.task:Net", num_classes=10, truth=str(tmp_path / "truth"))
    attacks = [Part(name="dlg", iterations=2), Part(name="idlg")]
    rows = api.attack(tmp_path / "tape", attacks, app=app).to_pylist()
    assert {row["value"] for row in rows if row["attack"] == "dlg"} == {None}
    assert [r["value"] for r in rows if (r["attack"], r["metric"]) == ("idlg", "exact")] == [1.0]
    assert RunFolder(tmp_path / "tape").guesses(1)["dlg/7"].shape == (1, 1, 8, 8)
    page = (tmp_path / "tape" / "report.html").read_text()
    assert "recovered" in page
    assert "The clients&#39; examples are not available" in page
