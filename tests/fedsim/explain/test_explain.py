"""`fedsim explain`: verdicts, tables, pictures, and warnings before a run."""

import copy
import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from adversary.inversion.joint import gauss_newton, of_gradient
from adversary.inversion.obstacles import obstacles
from adversary.inversion.precision import gradients
from fedsim.cli.options import parse_shape
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import LocalTraining
from fedsim.explain import explain
from fedsim.run.run_folder import RunFolder
from tests.builders import small_config
from tests.command import fedsim

HERE = "tests.fedsim.explain.test_explain"

SHAPE = (1, 8, 8)
ONE = LocalTraining(lr=0.1, batch_size=1)


def hiding(input_shape, num_classes):
    """Every second pixel of a row is under no window."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 6, 1, stride=2), nn.Tanh(), nn.Flatten(),
        nn.Linear(6 * 16, num_classes),
    )  # fmt: skip


def joint(input_shape, num_classes):
    """Its second layer's system lacks equations, its gradient map none."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.Tanh(), nn.Conv2d(12, 3, 3), nn.Tanh(),
        nn.Flatten(), nn.Linear(108, num_classes),
    )  # fmt: skip


class Branching(nn.Module):
    """Two convolutions of the same input."""

    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3, bias=False)
        self.head = nn.Linear(144, num_classes)

    def forward(self, x):
        return self.head((torch.tanh(self.one(x)) + self.two(x)).flatten(1))


def deep(input_shape, num_classes):
    """Batch norm, dropout and pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(36, num_classes),
    )  # fmt: skip


def told(name, *, shape=SHAPE, local=ONE, **options):
    return explain(small_config(model=name), shape, 4, local, **options)


@pytest.mark.parametrize(
    ("name", "kind", "verdict", "reason"),
    [
        ("lenet", "layer by layer", "recoverable layer by layer", None),
        ("rgap-cnn6", "layer by layer", "recoverable layer by layer", None),
        ("mlp", "layer by layer", "recoverable layer by layer", "gradient of 1.weight over"),
        ("cnn", "jointly", "recoverable jointly", "stops at 2 = MaxPool2d"),
        (
            f"{HERE}:joint",
            "jointly",
            "recoverable jointly",
            "2 alone leaves",
        ),
        (
            f"{HERE}:hiding",
            "hidden",
            "48 of 64 directions hidden",
            "48 of them",
        ),
    ],
)
def test_verdicts_say_what_is_recoverable_and_never_more(name, kind, verdict, reason):
    found = told(name)
    assert (found.verdict.kind, found.verdict.text) == (kind, verdict)
    assert reason is None or any(reason in said for said in found.verdict.reasons)
    assert "secure" not in json.dumps(found.summary())
    assert found.spectrum.probed == 64
    assert (found.psnr > 40) == (kind != "hidden")


def test_the_joint_verdict_holds_where_the_papers_metric_is_below_zero():
    found = told(f"{HERE}:joint")
    assert found.metric < 0
    assert found.spectrum.rank == 64


def test_it_says_what_auto_reconstruct_would_try():
    assert told("lenet", directions=0).plan.startswith("tries hybrid (every layer can be walked")
    assert told("cnn", directions=0).plan.startswith("tries subspace (the gradient of 3 spans")


def test_branches_have_ranks_layer_by_layer_but_no_metric():
    found = told(f"{HERE}:Branching", directions=3)
    assert found.metric is None
    assert "branches" in found.stop
    assert [it.name for it in found.systems] == ["one", "two", "head"]
    assert found.verdict.text == "at least 3 of 64 directions recoverable jointly"
    whole = told(f"{HERE}:Branching")
    assert whole.verdict.text == "recoverable jointly"


def normed(input_shape, num_classes):
    """Group norm after a convolution without bias: the contrast of the input is lost."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False), nn.GroupNorm(2, 8, eps=0), nn.Tanh(), nn.Flatten(),
        nn.Linear(288, num_classes),
    )  # fmt: skip


def test_a_norm_right_after_a_convolution_without_bias_hides_the_scale_alone():
    assert told(f"{HERE}:normed").verdict.text == "1 of 64 directions hidden"


def test_what_a_projection_lacks_is_decided_by_all_of_j(monkeypatch):
    monkeypatch.setattr("adversary.inversion.gram.EXACT", 0)
    hides, shows = told(f"{HERE}:hiding"), told(f"{HERE}:joint")
    assert hides.spectrum.sketched
    assert hides.verdict.text == "48 of 64 directions hidden"
    assert shows.verdict.text == "recoverable jointly"


def test_what_is_too_large_for_a_finer_test_is_not_called_hidden(monkeypatch):
    monkeypatch.setattr("adversary.inversion.hidden.PASSES", 0)
    results = told(f"{HERE}:hiding")
    assert results.verdict.kind == "open"
    assert results.spectrum.rank == 16
    assert any("not tested more finely" in reason for reason in results.verdict.reasons)


def sequence(input_shape, num_classes):
    """Its linear layer has 64 inputs, its input 288 entries."""
    return nn.Sequential(
        nn.Conv1d(9, 16, 5, stride=2, padding=2), nn.Tanh(), nn.Conv1d(16, 8, 3, 2, 1), nn.Tanh(),
        nn.Flatten(), nn.Linear(64, num_classes),
    )  # fmt: skip


def test_what_only_a_layer_of_one_dimension_shows_is_not_called_hidden():
    results = told(f"{HERE}:sequence", shape=(9, 32))
    assert results.verdict.text == "recoverable jointly"
    assert results.others == ["0 = Conv1d", "2 = Conv1d"]
    with global_stream(0, "sequence"):
        model = sequence((9, 32), 4).double().requires_grad_(requires_grad=False)
    x = torch.rand(1, 9, 32, generator=generator(0, "at"), dtype=torch.float64)
    assert float((recovered(model, x) - x).abs().max()) < 1e-6


def recovered(model, x, label=1):
    """Return what the joint attack makes of the gradient of one input."""
    sent = {name: value.detach() for name, value in model.named_parameters()}
    gradient = gradients(copy.deepcopy(model).requires_grad_(), x[0], label)
    residual = of_gradient(model, sent, gradient, torch.tensor([label]))
    return gauss_newton(residual, torch.full_like(x, 0.5)).inputs


def padded(padding):
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, padding=padding), nn.Tanh(), nn.Flatten(), nn.Linear(256, 4)
    )


def by_number(input_shape, num_classes):
    return padded(2)


def by_word(input_shape, num_classes):
    return padded("same")


def test_padding_in_words_is_that_of_its_numbers():
    number, word = told(f"{HERE}:by_number"), told(f"{HERE}:by_word")
    assert number.verdict == word.verdict
    assert number.systems == word.systems
    assert number.metric == word.metric == 0
    torch.testing.assert_close(number.spectrum.singular, word.spectrum.singular)


def without_dropout(input_shape, num_classes):
    return nn.Sequential(nn.Dropout(0.0), *padded(2), nn.Dropout(0.0))


def test_dropout_that_drops_nothing_is_none():
    plain, dropped = told(f"{HERE}:by_number"), told(f"{HERE}:without_dropout")
    assert dropped.verdict == plain.verdict
    assert [it.name for it in dropped.obstacles] == [it.name for it in plain.obstacles]


class Detaching(nn.Module):
    """Half of the input is behind what autograd does not differentiate."""

    def __init__(self, input_shape, num_classes, cut):
        super().__init__()
        self.cut, self.head = cut, nn.Linear(64, num_classes, bias=False)

    def forward(self, x):
        x = x.flatten(1)
        return self.head(torch.cat([self.cut(x[:, :32]), torch.tanh(x[:, 32:])], dim=1))


def detaching(input_shape, num_classes):
    return Detaching(input_shape, num_classes, torch.Tensor.detach)


def stepping(input_shape, num_classes):
    return Detaching(input_shape, num_classes, lambda x: (x > 0.5).to(x.dtype))


def doubled(input_shape, num_classes):
    """The negative control: half of the input is in no way in the gradient."""
    return Detaching(input_shape, num_classes, torch.zeros_like)


class Ids(nn.Module):
    """Its inputs are whole numbers, whatever their type."""

    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.body, self.head = nn.Embedding(3, 2), nn.Linear(128, num_classes)

    def forward(self, x):
        return self.head(self.body(x.flatten(1).long()).flatten(1))


class Training(nn.Module):
    """Every second pixel is used in training alone."""

    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.head = nn.Linear(64, num_classes)

    def forward(self, x):
        x = torch.tanh(x).flatten(1)
        return self.head(x if self.training else torch.cat([x[:, ::2]] * 2, dim=1))


def batch_normed(input_shape, num_classes):
    """As `hiding`, with state that training moves."""
    return nn.Sequential(nn.BatchNorm2d(1), *hiding(input_shape, num_classes))


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("detaching", "open", "not looked at: the gradient differs from its derivative"),
        ("stepping", "open", "not looked at: 32 entries of the input, which only show"),
        ("doubled", "hidden", ""),
        ("Ids", "open", "not looked at: 64 entries of the input, which only show"),
        ("Training", "open", "not looked at: the gradient in training mode"),
        ("batch_normed", "open", "not looked at: 0.running_mean, 0.running_var, 0.num_batches_"),
    ],
)
def test_what_was_not_looked_at_is_named_and_not_called_hidden(name, kind, reason):
    verdict = told(f"{HERE}:{name}").verdict
    assert verdict.kind == kind
    assert any(reason in it for it in [*verdict.reasons, ""])


class Folded(nn.Module):
    """A unit for each pixel that is off for half of all inputs."""

    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.head = nn.Linear(64, num_classes, bias=False)

    def forward(self, x):
        return self.head(torch.relu(x.flatten(1) - 0.5))


def test_units_that_are_off_at_one_input_do_not_hide_what_they_show_at_another():
    verdict = told(f"{HERE}:Folded").verdict
    assert verdict.kind == "open"


MIDDLES = (
    lambda: [nn.Conv1d(2, 3, 3, padding="same"), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3)],
    lambda: [nn.Conv1d(2, 4, 2, stride=2, groups=2), nn.SiLU(), nn.Flatten(), nn.Linear(16, 3)],
    lambda: [nn.ConvTranspose1d(2, 1, 2), nn.Tanh(), nn.Flatten(), nn.Linear(9, 3)],
    lambda: [nn.Linear(8, 2, bias=False), nn.Sigmoid(), nn.Flatten(), nn.Linear(4, 3)],
    lambda: [nn.LayerNorm(8), nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3)],
    lambda: [nn.Flatten(), nn.PReLU(), nn.Linear(16, 3, bias=False)],
    lambda: [nn.Conv1d(2, 2, 1, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)],
)
drawn = []  # layers of the network that `network` returns


def network(input_shape, num_classes):
    return nn.Sequential(*drawn[-1]())


@given(place=st.integers(0, len(MIDDLES) - 1), seed=st.integers(0, 20))
@settings(max_examples=10)
def test_what_the_joint_attack_recovers_is_never_called_hidden(place, seed):
    drawn.append(MIDDLES[place])
    with global_stream(seed, "network"):
        model = network((2, 8), 3).double().requires_grad_(requires_grad=False)
    x = torch.rand(1, 2, 8, generator=generator(seed, "at"), dtype=torch.float64)
    exact = float((recovered(model, x) - x).abs().max()) < 1e-5
    results = explain(small_config(model=f"{HERE}:network", seed=seed), (2, 8), 3, ONE)
    assert not (exact and results.verdict.kind == "hidden")
    if place == len(MIDDLES) - 1:  # every second place is under no window
        assert (exact, results.verdict.text) == (False, "8 of 16 directions hidden")


def test_what_float32_does_not_tell_is_not_called_hidden(monkeypatch):
    monkeypatch.setattr("fedsim.explain.looks.LARGE", 1)
    found = told(f"{HERE}:hiding")
    assert found.verdict.kind == "open"
    assert found.verdict.text == "at least 16 of 64 directions recoverable jointly"
    assert any(
        "48 directions change the gradient by less" in said for said in found.verdict.reasons
    )


def test_closed_forms_take_less_than_a_second_for_any_model():
    for name in ("lenet", "rgap-cnn6", "cnn"):
        found = told(name, shape=(3, 32, 32), directions=0)
        assert found.spectrum is None
        assert found.seconds < 1


def test_noise_and_small_steps_cost_what_the_table_says():
    exact = told("lenet", local=LocalTraining(0.1, 1, upload="gradient"))
    noisy = [told("lenet", noise=noise).psnr for noise in (1e-5, 1e-4)]
    small = [told("lenet", local=LocalTraining(lr, 1)).psnr for lr in (1e-2, 1e-3)]
    assert exact.psnr > small[0] > small[1]
    assert noisy[0] - noisy[1] == pytest.approx(20, abs=1)
    assert small[0] - small[1] == pytest.approx(20, abs=3)


def test_the_same_seed_says_the_same():
    first, again, other = (
        explain(small_config(model="lenet", seed=seed), SHAPE, 4, ONE) for seed in (0, 0, 1)
    )
    assert torch.equal(first.spectrum.singular, again.spectrum.singular)
    assert not torch.equal(first.spectrum.singular, other.spectrum.singular)


@pytest.mark.parametrize(
    ("local", "count", "names"),
    [
        (ONE, 1, []),
        (LocalTraining(0.1, 1, upload="gradient"), 1, []),
        (LocalTraining(0.1, 8), 64, ["more data than weights", "several local steps",
                                     "several examples"]),
        (LocalTraining(0.1, 8, upload="gradient"), 64, ["several examples"]),
        (LocalTraining(0.1, 1, epochs=3), 1, ["several local steps"]),
        (LocalTraining(1e-4, 1), 1, ["rounded weights"]),
    ],
)  # fmt: skip
def test_obstacles_of_a_protocol(local, count, names):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Tanh(), nn.Linear(9, 3))
    at = torch.rand(SHAPE, generator=generator(0, "at"))
    assert [it.name for it in obstacles(model, SHAPE, local, count, at)] == names


def test_obstacles_of_a_model_name_the_layers():
    found = {it.name: it.value for it in told(f"{HERE}:deep").obstacles}
    assert found["batch norm in training"] == "1 layer, first 1 = BatchNorm2d"
    assert found["dropout in training"] == "1 layer, first 3 = Dropout"
    assert found["pooling"] == "1 layer, first 4 = AvgPool2d"
    assert re.fullmatch(r"\d+% of outputs are 0", found["ReLU has no inverse"])
    assert found["ReLU has kinks"] == "1 layer"


def test_saturated_outputs_are_counted():
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 50), nn.Sigmoid(), nn.Linear(50, 3))
    at = torch.rand(SHAPE, generator=generator(0, "at"))
    names = lambda: [it.name for it in obstacles(wide, SHAPE, ONE, 1, at)]
    assert "saturated Sigmoid" not in names()
    with torch.no_grad():
        wide[1].weight.mul_(100)
    assert "saturated Sigmoid" in names()


def test_the_command_prints_a_table_and_the_next_command(capsys, tmp_path):
    code, out, _err = fedsim(capsys, "explain", "lenet", "mlp", "--input", "1x8x8")
    assert code == 0
    assert "recoverable layer by layer" in out.replace("\n", " ")
    assert "64 of 64" in out
    assert out.splitlines()[-1].startswith("Next     fedsim explain lenet mlp --input 1x8x8")
    page = tmp_path / "explain.html"
    code, out, _ = fedsim(capsys, "explain", "cnn", "--input", "1x8x8", "--set", "model.hidden=9",
                          "--out", page)  # fmt: skip
    assert code == 0
    html = page.read_text()
    assert html.count("<svg") == 2
    assert "recoverable jointly" in html
    assert not re.search("<(script|link|img)[^>]*(src|href)=.(?!data:)", html)
    assert "http:" not in re.sub(r"http://www.w3.org|http://purl.org[^\"]*|https?://[^\"]*creative"
                                r"[^\"]*|https://matplotlib.org/?", "", html)  # fmt: skip
    assert str(page) in out


def test_the_command_as_json_is_one_object(capsys):
    code, out, _ = fedsim(capsys, "explain", "lenet", "--input", "1x8x8", "--json",
                          "--directions", 5)  # fmt: skip
    assert code == 0
    (one,) = json.loads(out)["models"]
    assert one["c"] == 0
    assert one["jacobian"]["probed"] == 5
    assert [layer["deficiency"] for layer in one["layers"]] == [0, 0, 0, 0]
    assert (one["no_closed_form"], one["jacobian"]["hidden"]) == ([], 0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lennet"], "model.name: must be a known name, got 'lennet'; did you mean 'lenet'"),
        (["lenet", "--input", "3x32xq"], "--input: must be whole numbers like 3x32x32"),
        (["lenet", "--input", "0x8x8"], "--input: must be whole numbers"),
        (["lenet", "--input", "64"], "model.name: 'lenet' must be built, got ValueError"),
        (["lenet", "--lr", "0"], "--lr: must be above 0, got 0"),
        (["lenet", "--noise", "-1"], "--noise: must be at least 0, got -1"),
        (["lenet", "--classes", "1"], "--classes: must be at least 2, got 1"),
        (["lenet", "--upload", "both"], "--upload: must be weights or gradient, got 'both'"),
        (["lenet", "--upload", "gradient", "--epochs", "2"], "--epochs: must be 1"),
        (["cnn", "--set", "model.hidden=x"], "model.hidden: .*valid integer"),
    ],
)
def test_bad_input_is_one_sentence(capsys, arguments, sentence):
    code, _out, err = fedsim(capsys, "explain", *arguments)
    assert code != 0
    assert re.search(sentence, err)
    assert len(err.strip().splitlines()) == 1


def test_shapes_are_read_as_written():
    for text in ("3x32x32", "3×32X32"):
        assert parse_shape(text, "--input") == (3, 32, 32)
    assert parse_shape("104", "--input") == (104,)


def test_a_run_says_before_it_starts_and_in_its_report_why_reconstruction_is_hard(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    small = ["federation.rounds=1", "federation.clients=2", "data.limit=40"]
    small += ["model=lenet", "local.epochs=2"]
    sets = [part for key in small for part in ("--set", key)]
    code, out, _ = fedsim(capsys, "run", *sets, "--set", 'attack=["analytic"]', "--out", "there")
    assert code == 0
    said = "reconstruction will be hard: several local steps"
    assert out.index(said) < out.index("round  accuracy")
    assert (
        "An obstacle to reconstruction in round 1: several local steps"
        in (tmp_path / "there" / "report.html").read_text()
    )
    code, out, _ = fedsim(capsys, "run", *sets, "--set", "attack=llg", "--out", "plain")
    assert "reconstruction will be hard" not in out
    rows = RunFolder(tmp_path / "plain").metrics().to_pylist()
    assert "obstacle" not in {row["metric"] for row in rows}
