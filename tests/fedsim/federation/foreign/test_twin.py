"""Recordings of other frameworks: arrays under other names, kernels stored the other way round."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fedsim import api
from fedsim.config import Part, Source
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.types import LocalTraining, Observation, Update
from fedsim.federation.foreign import App
from fedsim.federation.foreign.evidence import check_head
from fedsim.federation.foreign.parts import load_sent
from fedsim.federation.foreign.twin import (
    by_name,
    check,
    head_sources,
    propose,
    read_arrays,
    shapes_of,
)
from fedsim.models.travels import travelling
from fedsim.run.run_folder import RunFolder
from strategies import Tape
from strategies.tape import recorded_clients
from tests.fedsim.cli.test_main import fedsim

LAST = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}  # torch's axes in the order of Keras and Flax
LABELS = torch.tensor([3, 3, 3, 1, 0, 3, 2, 2])
HEAD = ("llg", "llbg", "idlg", "ilrg", "rlg", "grad-inversion", "uniform")


class Twin(nn.Module):
    """What a user writes for a model of Keras or Flax: flattened with channels last."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.fc1 = nn.Linear(6 * 16, 20)
        self.fc2 = nn.Linear(20, 4)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.conv(x)), 2)
        return self.fc2(functional.relu(self.fc1(x.permute(0, 2, 3, 1).flatten(1))))


def uploads():
    """Weights sent, and those after a step of SGD on each of two clients."""
    torch.manual_seed(0)
    net = Twin()
    sent = {name: value.detach().clone() for name, value in net.state_dict().items()}
    trained = {}
    for client in ("1", "2"):
        net.load_state_dict(sent)
        loss = functional.cross_entropy(net(torch.rand(8, 1, 8, 8)), LABELS)
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        trained[client] = {
            name: value - 0.1 * gradient
            for (name, value), gradient in zip(sent.items(), gradients, strict=True)
        }
    return sent, trained


def kept(state):
    return dict(state)


def keras(state):
    """Kernel and bias, layer by layer, in×out, numbered."""
    arrays = [value.permute(LAST[value.ndim]) for value in state.values()]
    return {str(place): value for place, value in enumerate(arrays)}


def flax(state):
    """The leaves of a tree: bias before kernel, in×out, numbered."""
    names = [f"{layer}.{part}" for layer in ("conv", "fc1", "fc2") for part in ("bias", "weight")]
    return {str(i): state[n].permute(LAST[state[n].ndim]) for i, n in enumerate(names)}


def listed(state):
    """A list of NumPy arrays, as a NumPyClient of torch sends it."""
    return {str(place): value for place, value in enumerate(state.values())}


def write(folder, layout):
    sent, trained = uploads()
    tape = Tape(folder)
    tape.write_sent(1, layout(sent))
    for client, state in trained.items():
        tape.write_upload(1, client, layout(state), len(LABELS), "weights")
    tape.finish(1)
    return folder


TRAINING = {"lr": 0.1, "batch_size": 8}
TWIN = App(
    model="tests.fedsim.federation.foreign.test_twin:Twin",
    num_classes=4,
    input_shape=(1, 8, 8),
    **TRAINING,
)


def guesses(path, app, attacks=HEAD):
    api.attack(path, [Part(name=name) for name in attacks], app=app)
    assert recorded_clients(path, 1) == ["1", "2"]
    return RunFolder(path).guesses(1)


@pytest.mark.twin
@pytest.mark.parametrize("layout", [keras, flax, listed])
def test_a_twin_is_attacked_to_the_bit_as_the_model_in_torch(layout, tmp_path):
    attacks = (*HEAD, "llg-star")
    mine = guesses(write(tmp_path / "torch", kept), TWIN, attacks)
    theirs = guesses(write(tmp_path / "other", layout), TWIN, attacks)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    arrays = RunFolder(tmp_path / "other").config.foreign.arrays
    assert set(arrays) == set(Twin().state_dict())
    assert arrays["fc2.weight"].axes == (() if layout is listed else (1, 0))
    assert arrays["conv.weight"].axes == (() if layout is listed else (3, 2, 0, 1))
    # What was proposed is kept: another attack needs only its name.
    api.attack(tmp_path / "other", [Part(name="zlg")])


@pytest.mark.parametrize(
    ("layout", "weight", "bias"),
    [(kept, "fc2.weight", "fc2.bias"), (keras, "4", "5"), (flax, "5", "4"), (listed, "4", "5")],
)
def test_the_head_alone_gives_the_same_labels_without_a_model(layout, weight, bias, tmp_path):
    mine = guesses(write(tmp_path / "torch", kept), TWIN)
    app = App(head_weight=weight, head_bias=bias, **TRAINING)
    theirs = guesses(write(tmp_path / "other", layout), app)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    page = (tmp_path / "other" / "report.html").read_text()
    assert "only the head, of 20 features" in page
    assert "model" not in (tmp_path / "other" / "config.toml").read_text()


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        ("llg-star", "must be given for llg-star, which runs the model, got the head alone"),
        ("dlg", "must be given for dlg, which guesses no labels"),
        ("cosine-mia", "needs auxiliary candidates"),
        ("llg-plus", "needs auxiliary inputs"),
    ],
)
def test_an_attack_that_needs_more_than_the_head_is_refused(attack, reason, tmp_path):
    path = write(tmp_path, keras)
    app = App(head_weight="4", head_bias="5", **TRAINING)
    with pytest.raises(ConfigError, match=reason):
        api.attack(path, [Part(name=attack)], app=app)
    assert not (path / "config.toml").exists()


SHAPES = {"0": (12, 20), "1": (20,), "2": (20, 4), "3": (4,), "4": (5, 5)}


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("9", "3", None), r"--head-weight: must be an array of 2 axes on tape \('0' .*, got '9'"),
        (("1", "3", None), r"--head-weight: .*, got '1' of shape \(20,\)"),
        (("2", "0", None), r"--head-bias: must be an array of 1 axes on tape"),
        (("2", "3", 7), "--num-classes: must be the head's 4, got 7"),
        (("2", None, None), "--num-classes: must be given for a head without bias"),
        (("0", "3", None), r"--head-weight: must have 4 rows or columns, .*, got \(12, 20\)"),
        (("4", None, 5), r"--head-weight: must not be square"),
    ],
)
def test_a_wrong_head_is_one_sentence(names, sentence):
    with pytest.raises(ConfigError, match=sentence):
        head_sources(SHAPES, *names)


def test_a_head_is_turned_to_have_a_row_for_each_class():
    assert head_sources(SHAPES, "2", "3", None)["weight"].axes == (1, 0)
    assert head_sources({"w": (4, 20)}, "w", None, 4) == {"weight": Source(name="w")}


def test_shapes_that_do_not_decide_are_asked_about():
    twin = {"a.weight": (8, 4), "a.bias": (8,), "b.weight": (8, 8), "b.bias": (8,)}
    leaves = {"0": (8,), "1": (4, 8), "2": (8,), "3": (8, 8)}
    with pytest.raises(ConfigError, match=r"--arrays: must be in-order .*got 0, 2 for a\.bias, b"):
        propose(twin, leaves)
    sources = propose(twin, leaves, in_order=True)
    assert {name: (it.name, it.axes) for name, it in sources.items()} == {
        "a.weight": ("1", (1, 0)),
        "a.bias": ("0", ()),
        "b.weight": ("3", (1, 0)),  # square, and turned as the others are
        "b.bias": ("2", ()),
    }
    square = {"w": (8, 8), "b": (8,)}
    with pytest.raises(ConfigError, match="got '0', which fits both ways round"):
        propose(square, {"0": (8, 8), "1": (8,)})
    both = {"0": (4, 8), "1": (8,), "2": (8, 4), "3": (4,)}  # one way round, or the other
    coder = {"a": (8, 4), "a.bias": (8,), "b": (4, 8), "b.bias": (4,)}
    assert propose(coder, both)["a"] == Source(name="0", axes=(1, 0))  # in the tape's order
    swapped = {name: both[name] for name in "1032"}
    with pytest.raises(ConfigError, match="fits both ways round"):
        propose(coder, swapped)
    with pytest.raises(ConfigError, match=r"got none of shape \(8, 4\) for a"):
        propose(coder, {"0": (3, 8), "1": (8,), "2": (8, 4, 1), "3": (4,)})
    assert propose(twin, {name: twin[name][::-1] for name in reversed(twin)}) == {
        name: Source(name=name, axes=(1, 0) if len(shape) > 1 else ())
        for name, shape in twin.items()
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('"fc.bias" = "1"', "must name an array on tape of the model's own shape, got none for"),
        ('"fc.weight" = "9"\n"fc.bias" = "1"', "got '9' for fc.weight"),
        ('"fc.weight" = "0"\n"fc.bias" = "1"', r"got \(20, 4\) for fc\.weight of shape \(4, 20\)"),
        (
            '"fc.weight" = {name = "0", axes = [1, 1]}\n"fc.bias" = "1"',
            r"got axes \[1, 1\] for fc\.weight",
        ),
        (
            '"fc.weight" = {name = "0", axes = [1, 0]}\n"fc.bias" = "1"\nx = "1"',
            "got 'x', which the model does not have",
        ),
        ("a = [", r"--arrays: must be in-order or a TOML file, got .*arrays\.toml"),
        ('"fc.weight" = {named = "0"}', r"--arrays: fc\.weight\.name: field required"),
    ],
)
def test_a_wrong_file_of_arrays_is_one_sentence(text, sentence, tmp_path):
    path = tmp_path / "arrays.toml"
    path.write_text(text)
    twin = {"fc.weight": (4, 20), "fc.bias": (4,)}
    with pytest.raises(ConfigError, match=sentence):
        check(twin, {"0": (20, 4), "1": (4,)}, read_arrays(path))


def test_a_file_of_arrays_decides(tmp_path):
    path = write(tmp_path / "tape", flax)
    lines = [
        f'"{name}" = {{name = "{i}", axes = {list(axes)}}}'
        for name, i, axes in (
            ("conv.bias", 0, ()), ("conv.weight", 1, (3, 2, 0, 1)), ("fc1.bias", 2, ()),
            ("fc1.weight", 3, (1, 0)), ("fc2.bias", 4, ()), ("fc2.weight", 5, (1, 0)),
        )
    ]  # fmt: skip
    (tmp_path / "arrays.toml").write_text("\n".join(lines))
    app = App(**{**vars(TWIN), "arrays": str(tmp_path / "arrays.toml")})
    theirs = guesses(path, app)
    mine = guesses(write(tmp_path / "torch", kept), TWIN)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


class Normed(nn.Module):
    """A twin with batch statistics; frameworks other than torch count no batches."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(5)
        self.fc = nn.Linear(5, 3)

    def forward(self, x):
        return self.fc(self.norm(x))


def test_a_counter_that_only_torch_has_need_not_be_on_tape(tmp_path):
    tape, state = Tape(tmp_path), Normed().state_dict()
    values = [state[name] for name in state if "num_batches" not in name]
    arrays = {str(i): value.T if value.ndim > 1 else value for i, value in enumerate(values)}
    tape.write_sent(1, arrays)
    tape.write_upload(1, "7", {n: v + 0.01 for n, v in arrays.items()}, 8, "weights")
    tape.finish(1)
    app = App(
        model="tests.fedsim.federation.foreign.test_twin:Normed",
        num_classes=3,
        input_shape=(5,),
        **TRAINING,
    )
    assert api.attack(tmp_path, [Part(name="llg-star")], app=app).num_rows
    names = set(RunFolder(tmp_path).config.foreign.arrays)
    assert names == set(state) - {"norm.num_batches_tracked"}


def test_a_recording_of_trees_says_that_no_attack_reads_them(tmp_path):
    tape = Tape(tmp_path)
    tape.write_sent(1, {"0": torch.zeros(0, dtype=torch.uint8)})
    tape.write_upload(1, "7", {"0": torch.ones(90, dtype=torch.uint8)}, 8, "weights")
    tape.finish(1)
    with pytest.raises(BadRecording, match="must hold real numbers, got uint8; a model of trees"):
        api.attack(tmp_path, [Part(name="llg")], app=App(**TRAINING))


def test_the_terminal_says_what_was_assumed_and_that_adamw_is_no_sgd(tmp_path, capsys):
    path = write(tmp_path, keras)
    arguments = ("attack", path, "--with", "llg", "--head-weight", "4", "--head-bias", "5")
    training = ("--local-lr", 0.1, "--local-batch-size", 8)
    code, out, _ = fedsim(capsys, *arguments, *training)
    assert code == 0
    assert "Arrays   weight = 4, bias = 5; 1 of 2 transposed" in out
    assert "Assumed  clients ran plain SGD on the mean cross-entropy (lr 0.1, batches of 8" in out
    assert "blind guess does not show" not in out
    code, out, _ = fedsim(capsys, "attack", path, "--with", "llg", "--local-optimizer", "AdamW")
    assert code == 0
    assert "The clients ran adamw, whose steps are no gradients times lr." in out
    assert "trained by AdamW and read as SGD" in (path / "report.html").read_text()
    code, _, err = fedsim(capsys, *arguments[:4])
    assert code == 0
    assert err.strip() == ""


@pytest.mark.parametrize(
    ("head", "mistake"),
    [
        ({"head_weight": "fc1.weight", "head_bias": "fc1.bias"}, "'fc1.weight', which does not"),
        ({"head_weight": "fc2.weight", "head_bias": "fc1.bias"}, "'fc2.weight', which does not"),
        ({"head_weight": "fc2.weight", "num_classes": 20}, "'fc2.weight', which does not"),
    ],
)
def test_a_layer_that_is_not_the_head_is_refused_where_the_head_shows(head, mistake, tmp_path):
    path = write(tmp_path, kept)
    sentence = f"--head-weight: must .* 0 over the classes, got {mistake}; 'fc2.weight' does, over"
    with pytest.raises(ConfigError, match=sentence):
        api.attack(path, [Part(name="llg")], app=App(**head, **TRAINING))
    assert not (path / "config.toml").exists()


class Squares(nn.Module):
    """Every layer is square, so that no shape says which way round it is stored."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.fc2(functional.relu(self.fc1(x.flatten(1))))


def observation(change=lambda name, value: value):
    """Return one client's upload of `Squares`, after one batch."""
    torch.manual_seed(1)
    net = Squares()
    sent = {name: value.detach().clone() for name, value in net.state_dict().items()}
    loss = functional.cross_entropy(net(torch.rand(8, 4)), LABELS)
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    delta = {n: -0.1 * g for n, g in zip(sent, gradients, strict=True)}
    delta = {name: change(name, value) for name, value in delta.items()}
    return Observation(sent, Update(1, "1", delta, 8), LocalTraining(0.1, 8))


def test_a_square_head_stored_the_other_way_round_is_refused():
    check_head([observation()], "fc2.weight", 0, option="--arrays")
    with pytest.raises(ConfigError, match="--arrays: .*; 'fc2.weight' does, over its rows"):
        check_head([observation()], "fc2.weight", 1, option="--arrays")
    turned = observation(lambda _, value: value.permute(LAST[value.ndim]))
    with pytest.raises(ConfigError, match="--arrays: .*; 'fc2.weight' does, over its columns"):
        check_head([turned], "fc2.weight", 0, option="--arrays")


def test_where_noise_or_adam_hides_the_head_nothing_is_refused():
    noisy = lambda _, value: value + torch.randn_like(value)
    for change in (noisy, lambda _, value: value.sign(), lambda _, value: 0 * value):
        check_head([observation(change)], "fc1.weight", 1, option="--arrays")
    check_head([], "fc1.weight", 0, option="--arrays")


def test_a_tied_head_is_refused():
    latest = observation()
    sent = {**latest.sent, "fc1.weight": latest.sent["fc2.weight"]}
    delta = {**latest.update.delta, "fc1.weight": latest.update.delta["fc2.weight"]}
    tied = Observation(sent, Update(1, "1", delta, 8), latest.local)
    with pytest.raises(ConfigError, match="--head-weight: .*tied.*, got 'fc2.weight', which is eq"):
        check_head([tied], "fc2.weight", 0, option="--head-weight")


class Adapted(nn.Module):
    """A frozen layer, and a weight under two names."""

    def __init__(self):
        super().__init__()
        self.body, self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.body.requires_grad_(requires_grad=False)
        self.last.weight = self.first.weight


@pytest.mark.worked
def test_an_app_may_send_what_does_not_travel_here_and_no_more():
    whole = shapes_of(Adapted().state_dict())
    model = travelling(Adapted())
    mine = shapes_of(model.state_dict())
    assert {name: it.name for name, it in by_name(model, mine, whole).items()} == {
        name: name for name in ("first.weight", "first.bias", "last.bias")
    }
    assert by_name(model, mine, {**whole, "more.weight": (3, 3)}) is None
    assert by_name(model, mine, {**whole, "first.bias": (4,)}) is None
    tape = Adapted().state_dict()
    load_sent(model, tape)
    assert torch.equal(model.body.weight, tape["body.weight"])


@pytest.mark.worked
def test_names_of_peft_are_found_without_the_adapters_name():
    twin = {"q.lora_A.default.weight": (2, 3), "head.modules_to_save.default.weight": (4, 3)}
    tape = {"head.weight": (4, 3), "q.lora_A.weight": (2, 3)}
    names = {name: it.name for name, it in by_name(nn.Module(), twin, tape).items()}
    assert names == dict(zip(twin, ("q.lora_A.weight", "head.weight"), strict=True))
    assert by_name(nn.Module(), twin, {**tape, "k.lora_A.weight": (2, 3)}) is None
