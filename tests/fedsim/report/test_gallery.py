import base64
import io
import re
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import nn

from adversary.attack import Attack
from adversary.grading.images import psnr
from adversary.grading.truth import read_truth
from fedsim import api, data
from fedsim.config import Part
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.ground_truth import Truth
from fedsim.core.tables import write_table, written_of
from fedsim.core.truths import save_own, save_shared
from fedsim.core.units import beyond_blind, written
from fedsim.report.counts import counts_picture
from fedsim.report.data import RunData
from fedsim.report.gallery import galleries
from fedsim.report.images import picture
from fedsim.report.verdict import verdict
from fedsim.report.warnings import warnings
from fedsim.run.ledger import LEAKAGE
from fedsim.run.originals import Originals
from fedsim.run.run_folder import RunFolder
from tests import unanswering
from tests.builders import small_config

HERE = "tests.fedsim.report.test_gallery"
CONFIG = small_config()


def cheat(view, auxiliary, generator, *, noise: float = 0.1):
    """Return the client's own examples with noise, which no attack could."""
    federated = data.federate(CONFIG)
    own = federated.dataset.inputs[federated.clients[int(view.latest.update.client)]]
    return own + noise * view.latest.update.round * torch.randn(own.shape, generator=generator)


def fail(view, auxiliary, generator):
    return torch.full((1, 1, 8, 8), torch.nan)


def cheat_on_one(view, auxiliary, generator):
    if view.latest.update.client != "2":
        unanswering.crash(view, auxiliary, generator)
    return torch.rand(4, 1, 8, 8, generator=generator)


def fade(view, auxiliary, generator):
    """Return the client's own examples so pale that the mean picture is nearer to them."""
    return 0.95 + 0.05 * cheat(view, auxiliary, generator, noise=0.0)


fading = Attack(name="fading", family="reconstruction", infer=fade)
cheating_on_one = Attack(name="on-one", family="reconstruction", infer=cheat_on_one)
cheating = Attack(name="cheating", family="reconstruction", infer=cheat)
failing = Attack(name="failing", family="reconstruction", infer=fail)
ATTACKS = [
    {"name": f"{HERE}:cheating", "every": 2, "clients": ["1", "2"]},
    {"name": f"{HERE}:failing"},
    {"name": "llg"},
]
NAME = f"{HERE}:cheating"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return api.run(small_config(attack=ATTACKS), tmp_path_factory.mktemp("gallery") / "run")


def pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def of(run):
    [gallery] = galleries(RunData(RunFolder(run.path)))[:1]
    return gallery


def test_the_match_rate_has_its_chance_and_an_interval(run):
    sentence = of(run).sentences[0]
    assert sentence.startswith("Match rate: ")
    rows = [
        r for r in run.ledger().to_pylist() if (r["attack"], r["metric"]) == (NAME, "match_rate")
    ]
    chance = [row["blind"] for row in rows if row["client"] is not None]
    mean = sum(chance) / len(chance)
    assert f"picked, from {round(1 / mean, 1):g} candidates for each" in sentence
    assert f"; {100 * mean:.1f} % is chance." in sentence
    assert "The 95 % interval over 2 " in sentence


def test_pictures_that_are_picked_and_far_off_are_not_called_chance(tmp_path):
    path = api.run(small_config(attack=[{"name": f"{HERE}:fading"}]), tmp_path / "run").path
    run = RunData(RunFolder(path))
    [finding] = verdict(run).findings
    assert (finding.curve.metric, finding.state) == ("match_rate", "above")
    assert run.curves[0].gap.mean < 0  # of PSNR
    assert not [text for text in warnings(run) if "is better than" in text]


def test_a_recording_of_before_there_was_a_chance_says_nothing_of_it(run, tmp_path):
    folder = RunFolder(shutil.copytree(run.path, tmp_path / "old"))
    rows = folder.ledger().to_pylist()
    for row in rows:
        if row["metric"] == "match_rate":
            row["blind"] = 0.0  # what the mean picture had picked
    path, table = folder.path / "leakage.parquet", pa.Table.from_pylist(rows, schema=LEAKAGE)
    write_table(path, table, written_of(path))
    assert not galleries(RunData(folder))[0].sentences[0]


def test_the_ledger_has_rows_of_due_rounds_and_asked_clients_alone(run):
    rows = [row for row in run.ledger().to_pylist() if row["attack"] == NAME]
    single = {(row["round"], row["client"]) for row in rows if row["client"] is not None}
    assert single == {(r, c) for r in (1, 3) for c in "12"}
    assert {row["round"] for row in rows if row["client"] is None} == {1, 3}
    for row in rows:
        assert row["value"] > row["blind"]
        assert row["ceiling"] == (None if row["metric"].endswith("psnr") else 1.0)
    failures = [r for r in run.metrics().to_pylist() if r["metric"].endswith(":failing_failed")]
    assert len(failures) == 3 * 4
    assert failures[0]["reason"] == "guess: must be finite, got 64 of 64 values that are not"


def test_answers_are_stored_in_32_bits(run):
    guesses = RunFolder(run.path).guesses(3)
    assert {name for name in guesses if "/" in name and "llg" not in name} == {
        f"{NAME}/1", f"{NAME}/2"
    }  # fmt: skip
    assert guesses[f"{NAME}/1"].dtype == torch.float32


def test_the_gallery_shows_best_median_and_worst_of_the_last_attacked_round(run):
    gallery = of(run)
    assert gallery.heading == "Round 3: best, median and worst example by PSNR"
    assert [shown.title for shown in gallery.examples] == ["best", "median", "worst"]
    assert [shown.title for shown in gallery.rounds] == ["round 1", "round 3"]
    ratios = [
        float(re.search(r"PSNR ([\d.]+) dB", s.caption[1]).group(1)) for s in gallery.examples
    ]
    assert ratios == sorted(ratios, reverse=True)
    rows = run.ledger().to_pylist()
    best = {
        r: max(row["value"] for row in rows
               if (row["round"], row["attack"], row["metric"]) == (r, NAME, "best_psnr"))
        for r in (1, 3)
    }  # fmt: skip
    told = [shown.caption[1].split(" (")[0] for shown in gallery.rounds]
    assert told == [f"PSNR {best[r]:.1f} dB" for r in (1, 3)]
    assert ratios[0] == pytest.approx(best[3], abs=0.06)


def test_the_pictures_are_the_originals_and_what_was_recovered(run):
    dataset = data.federate(CONFIG).dataset
    for shown in (*of(run).examples, *of(run).rounds):
        original, recovered, difference = (
            pixels(shown.pictures[what]).astype(float)
            for what in ("original", "recovered", "difference")
        )
        same = (255 * dataset.inputs[:, 0].numpy()).round() == original
        assert same.all(axis=(1, 2)).any()
        assert np.abs(difference - np.abs(original - recovered)).max() <= 1
        a, b = (torch.from_numpy(image / 255).unsqueeze(0) for image in (original, recovered))
        assert written("psnr", float(psnr(a, b, 1.0)))[:3] in shown.caption[1]


def test_the_page_loads_nothing_and_blurs_until_it_is_asked(run):
    page = run.report.read_text()
    sources = re.findall(r'<img src="([^"]{30})', page)
    assert len(sources) == 3 * 3 + 2 * 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert re.search(r"\.gallery img \{[^}]*filter: blur\(", page)
    assert ".reveal:checked ~ .gallery img { filter: none }" in page
    assert re.search(r'<input type="checkbox" class="reveal" id="reveal-1">', page)
    assert not re.search(r"<script[^>]* src", page)
    text = re.sub(r"<svg.*?</svg>|<script.*?</script>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert re.search(r"mean\s+PSNR;", text)
    assert not re.search(r"\d{4,}\.\d %", text)  # decibels are no percent
    mean = [r["value"] for r in run.ledger().to_pylist()
            if (r["attack"], r["metric"]) == (NAME, "psnr") and r["client"]]  # fmt: skip
    assert f"{sum(mean) / len(mean):.1f} dB" in text
    assert re.search(r">\d+ dB</text>", page)  # the ticks


def test_without_the_data_the_recovered_pictures_stand_alone(run, monkeypatch):
    def gone(config):
        raise ConfigError("data.root: must be readable")

    monkeypatch.setattr("fedsim.report.gallery.federate", gone)
    gallery = of(run)
    assert gallery.sentences == [
        "The original examples are not available (data.root: must be readable)."
    ]
    assert [set(shown.pictures) for shown in gallery.examples] == [{"recovered"}] * 3
    assert "recovered from client" in gallery.heading
    assert gallery.rounds == ()


def test_without_truth_they_stand_alone_too_and_without_answers_nothing_does(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "truth")
    api.attack(tmp_path / "run", [Part.model_validate(part) for part in ATTACKS])
    gallery = of(api.Run(tmp_path / "run"))
    assert (gallery.attack, gallery.values) == (NAME, [])
    assert gallery.sentences == ["The ground truth is not available."]
    assert pixels(gallery.examples[0].pictures["recovered"]).shape == (8, 8)
    assert "The ground truth is not available" in api.report([tmp_path / "run"]).read_text()
    shutil.rmtree(tmp_path / "run" / "guesses")
    [sentence] = of(api.Run(tmp_path / "run")).sentences
    assert sentence.startswith("The attack's answers are not available")


def test_an_attack_that_failed_is_not_one_that_recovered_nothing(run, recordings):
    shown, failed = galleries(RunData(RunFolder(run.path)))
    assert shown.examples
    assert (failed.attack, failed.examples, failed.values) == (f"{HERE}:failing", (), [])
    [sentence] = failed.sentences
    assert sentence.startswith("The attack failed on 12 of 12 updates: guess: must be finite")
    assert "Whether the examples can be recovered is not known" in sentence
    [crashed] = galleries(RunData(RunFolder(recordings.of(unanswering.ALL_CRASH).path)))
    assert crashed.sentences[0].startswith("The attack failed on 6 of 6 updates: RuntimeError")
    assert "nothing" not in crashed.sentences[0]


def test_updates_that_an_attack_did_not_answer_are_named_beside_its_pictures(recordings):
    config = unanswering.config(f"{HERE}:cheating_on_one")
    [gallery] = galleries(RunData(RunFolder(recordings.of(config).path)))
    assert gallery.examples
    assert gallery.sentences[-1].startswith("The attack failed on 4 of 6 updates: RuntimeError: no")


def strided(input_shape, num_classes):
    """Three of four pixels are under no window."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 1, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(64, num_classes)
    )


def test_what_the_update_says_nothing_of_is_stored_and_hatched(tmp_path):
    config = small_config(model=f"{HERE}:strided", attack=[ATTACKS[0]], federation={"rounds": 1})
    result = api.run(config, tmp_path / "run")
    shares = RunFolder(result.path).guesses(1)[f"{NAME}/1/undetermined"]
    dead = torch.ones(8, 8, dtype=torch.bool)
    dead[::2, ::2] = False
    assert torch.equal(shares == 1, dead.expand_as(shares))
    shown = of(result).examples[0]
    assert shown.caption[-1] == "hatched: 48 of 64 numbers are not in the gradient"
    hatched, original = pixels(shown.pictures["recovered"]), pixels(shown.pictures["original"])
    assert (hatched.shape, original.shape) == ((96, 96, 3), (8, 8))
    striped = (hatched == np.array([214, 94, 0])).all(axis=2).reshape(8, 12, 8, 12)
    assert (striped.any(axis=(1, 3)) == dead.numpy()).all()
    api.attack(result.path, [Part(name=f"{HERE}:cheating", noise=0.2)], allow=(HERE,))
    assert f"{NAME}/1/undetermined" in RunFolder(result.path).guesses(1)


@pytest.mark.parametrize("change", [lambda it: it[..., :2], lambda it: it + 2, lambda it: it > 0])
def test_what_are_no_shares_of_the_answer_is_refused(tmp_path, run, change):
    shutil.copytree(run.path, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    shares = change(torch.zeros_like(folder.guesses(3)[f"{NAME}/1"]))
    folder.write_guesses(3, {f"{NAME}/1/undetermined": shares})
    with pytest.raises(BadRecording, match="undetermined shares must be from 0 to 1"):
        of(api.Run(tmp_path / "run"))


def test_an_answer_that_is_renewed_takes_its_shares_along(tmp_path, run):
    shutil.copytree(run.path, tmp_path / "run")
    folder, shares = RunFolder(tmp_path / "run"), f"{NAME}/1/undetermined"
    answer = folder.guesses(3)[f"{NAME}/1"]
    folder.write_guesses(3, {f"{NAME}/1": answer, shares: torch.ones_like(answer)})
    assert shares in folder.guesses(3)
    folder.write_guesses(3, {f"{NAME}/1": answer})
    assert shares not in folder.guesses(3)


def test_colours_are_kept_and_other_channels_are_averaged():
    image = torch.zeros(3, 2, 4)
    image[0] = 1.0
    assert pixels(picture(image)).tolist() == [[[255, 0, 0]] * 4] * 2
    assert (
        pixels(picture(torch.ones(2, 2, 2) * torch.tensor([0.0, 2.0]).view(2, 1, 1))).max() == 255
    )


def test_a_clients_inputs_are_its_distinct_rows_and_the_others_are_nobodys_of_it(run):
    federated = data.federate(CONFIG)
    told = read_truth(run.path / "truth", 1, "1")
    originals = Originals(federated, 0, CONFIG.grading)
    truth = originals.of(told, round_=1, client="1")
    rows = told.indices.unique()
    assert torch.equal(truth.inputs, federated.dataset.inputs[rows])
    others = truth.lineup.others
    assert len(others.unique()) == len(others) == len(federated.dataset.labels) - len(rows)
    assert not torch.isin(others, rows).any()
    few = Truth(told.labels[:1], told.indices[:1])
    one, same, other = (
        originals.of(few if i else Truth(few.labels, few.indices), round_=r, client="1")
        for i, r in enumerate((1, 1, 2))
    )
    assert len(one.lineup.others) == 99
    assert torch.equal(one.lineup.others, same.lineup.others)
    assert not torch.equal(one.lineup.others, other.lineup.others)
    foreign = Truth(torch.zeros(1).long(), torch.tensor([10**6]))
    with pytest.raises(BadRecording, match="truth: must name rows below"):
        originals.of(foreign, round_=1, client="1")


def test_a_client_that_there_is_not_is_one_sentence(tmp_path):
    config = small_config(attack=[{"name": "llg", "clients": ["0", "7"]}])
    with pytest.raises(ConfigError, match=r"attack\.llg\.clients: .* below 4, got '7'$"):
        api.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_values_are_written_in_their_own_units():
    assert written("psnr", 23.44) == "23.4 dB"
    assert written("match_rate", 0.25) == "25.0 %"
    assert written("ssim", 0.5) == "0.50"
    assert written("psnr", None) == "–"
    assert beyond_blind("psnr", 20.0, 10.0) == pytest.approx(0.9)  # a tenth of the error is left
    assert beyond_blind("psnr", 12.0, 12.0) == 0.0
    assert beyond_blind("auroc", 0.75, 0.5) == 0.5
    assert beyond_blind("bits", 3.0, 1.0) == 0.75  # a quarter of the values is left
    assert written("bits", 3.0) == "3.00 bits"
    assert beyond_blind("accuracy", 1.0, 1.0) == 0.0


@pytest.mark.parametrize(
    "guess", [torch.full((1, 1, 8, 8), torch.nan), torch.ones(1, 1, 9, 8), torch.ones(2, 5, 8, 8)]
)
def test_forged_answers_are_refused(guess, run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    last = max(folder.finished_rounds)
    forged = {name: guess for name in folder.guesses(last) if name.startswith(NAME)}
    folder.write_guesses(last, forged)
    with pytest.raises(BadRecording, match="recovered examples must be finite, in the shape of"):
        galleries(RunData(folder))
    folder.write_guesses(last, dict.fromkeys(forged, torch.ones(1, 0, 8, 8)))
    first, *_ = galleries(RunData(folder))
    assert "not images" in first.sentences[0]


@pytest.mark.parametrize("client", ["../../other/0001/0", "/etc/x", "", "c" * 300, "a/b"])
def test_a_clients_name_is_no_path(client, tmp_path):
    truth = {"labels": torch.tensor([1])}
    save_own(tmp_path / "other", 1, "0", truth, {})
    assert read_truth(tmp_path / "truth", 1, client) is None
    save_shared(tmp_path / "truth", 1, {client: (truth, {})})
    assert read_truth(tmp_path / "truth", 1, client).labels.tolist() == [1]


def test_a_table_without_a_number_draws_counts_all_the_same(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    rows = [{**row, "value": float("nan")} for row in folder.ledger().to_pylist()]
    path, table = folder.path / "leakage.parquet", pa.Table.from_pylist(rows, schema=LEAKAGE)
    write_table(path, table, written_of(path))
    picture = counts_picture(RunData(folder))
    assert picture is not None
    assert picture.caption.startswith("No client is recorded in more rounds than client")


def test_the_spread_of_restarts_is_stored_graded_and_shown(tmp_path):
    attack = {"name": "inverting-gradients", "iterations": 20, "tv": 0.0, "lr": 0.1}
    attack |= {"start": "uniform", "optimiser": "adam", "clients": ["1"], "rehearsals": 0}
    config = small_config(attack=[attack], federation={"clients": 2, "rounds": 1})
    folder = RunFolder(api.run(config, tmp_path / "run").path)
    name = "inverting-gradients/1"
    unsure = folder.guesses(1)[f"{name}/uncertainty"]
    assert unsure.shape == folder.guesses(1)[name].shape
    [row] = [r for r in folder.ledger().to_pylist() if r["metric"] == "uncertainty_correlation"]
    assert (row["blind"], row["ceiling"]) == (0.0, 1.0)
    [gallery] = galleries(RunData(folder))
    assert gallery.uncertain
    assert {"difference", "uncertainty"} <= set(gallery.examples[0].pictures)
    assert "rank correlation" in " ".join(gallery.examples[0].caption)
    assert "standard deviation of each pixel over" in (folder.path / "report.html").read_text()
    guesses = {key: folder.guesses(1)[key] for key in folder.guesses(1)}
    folder.write_guesses(1, guesses | {f"{name}/uncertainty": -unsure - 1})
    with pytest.raises(BadRecording, match="uncertainties must be at least 0, in the shape"):
        galleries(RunData(folder))
