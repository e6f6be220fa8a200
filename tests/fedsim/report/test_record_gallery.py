"""Records of a small table, attacked, graded and shown."""

from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console

from fedsim import api
from fedsim.cli.rounds import Rounds
from fedsim.config import parse
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.rng import generator
from fedsim.data import Attribute, Dataset, Number
from fedsim.report.data import RunData
from fedsim.report.gallery import galleries
from fedsim.report.run import write_report
from fedsim.run.guesses import UNCERTAINTY
from fedsim.run.run_folder import RunFolder

HERE = "tests.fedsim.report.test_record_gallery"
COLOURS, NAME = ("red", "<b>green</b>", "blue"), 'age <i>"in years"</i>'


def people(root, *, declared: bool = True) -> Dataset:
    """People with an age, a colour and whether they are ill."""
    stream = generator(0, "people")
    colour, ill = (torch.randint(n, (200,), generator=stream) for n in (3, 2))
    age = torch.randn(200, generator=stream).mul(10).round() / 10
    inputs = torch.cat([age.unsqueeze(1), torch.eye(3)[colour], ill.unsqueeze(1)], dim=1)
    number = {NAME: Number(0, mean=40.0, deviation=10.0, whole=True)}
    return Dataset(
        inputs=inputs,
        labels=(age + colour > 1).long(),
        test_inputs=inputs[:20],
        test_labels=(age + colour > 1).long()[:20],
        num_classes=2,
        columns={"colour": np.array(COLOURS)[colour.numpy()]},
        attributes={
            "colour": Attribute((1, 2, 3), COLOURS, torch.eye(3)),
            "ill": Attribute((4,), ("no", "yes"), torch.tensor([[0.0], [1.0]])),
        },
        numbers=number if declared else {},
    )


def config(**changes):
    return parse(
        {
            "data": {"name": f"{HERE}:people"},
            "model": {"name": "mlp", "hidden": 32},
            "federation": {"strategy": "fedsgd", "clients": 2, "rounds": 2},
            "local": {"batch_size": 2, "epochs": 1, "lr": 0.1},
            "auxiliary": {"share": 0.3, "overlap": 1.0},  # few values: rows repeat
            "attack": [{"name": "tab-leak", "restarts": 3, "iterations": 60}, {"name": "analytic"}],
        }
        | changes
    )


@pytest.fixture(scope="module")
def console():
    return Console(file=StringIO(), width=100)


@pytest.fixture(scope="module")
def run(tmp_path_factory, console):
    target = tmp_path_factory.mktemp("records") / "run"
    with Rounds(config(), target, console, quiet=False) as rounds:
        return api.run(config(), target, on_plan=rounds.warn, on_round=rounds.show)


def test_the_ledger_grades_cells_and_confidence_beside_blind(run):
    rows = [row for row in run.ledger().to_pylist() if row["client"] is not None]
    of = {name: [r for r in rows if r["attack"] == name] for name in ("tab-leak", "analytic")}
    for name, own in of.items():
        graded = {row["metric"]: row for row in own if row["value"] is not None}
        assert {"cell_accuracy", "record_match", "beyond_auxiliary", "psnr"} <= set(graded)
        assert 0 < graded["cell_accuracy"]["blind"] < 1
        assert ("confidence_auroc" in graded) <= (name == "tab-leak")
    mean = np.mean([r["value"] - r["blind"] for r in of["tab-leak"] if r["metric"] == "psnr"])
    assert mean > 0


def test_the_console_shows_the_metric_that_the_report_ranks_by(run, console):
    lines = console.file.getvalue().splitlines()
    (head,) = [line for line in lines if line.startswith("round  accuracy")]
    assert "tab-leak right cells  analytic right cells  blind right cells" in head
    rows = [row for row in run.ledger().to_pylist() if row["round"] == 2]
    cells = [row for row in rows if row["metric"] == "cell_accuracy" and row["value"] is not None]
    own = [[r for r in cells if r["attack"] == name] for name in ("tab-leak", "analytic")]
    means = [f"{100 * np.mean([row['value'] for row in each]):.1f} %" for each in own]
    blind = f"{100 * np.mean([row['blind'] for row in own[0]]):.1f} %"
    (line,) = [line for line in lines if line.startswith("    2")]
    assert " ".join(line.replace("!", "").split()).endswith(
        " ".join([*means, blind, line.split()[-1]])
    )
    assert len(line) == len(head)


def test_answers_are_records_of_the_table_and_come_with_their_uncertainty(run):
    dataset = people(None)
    schema, guesses = dataset.schema, RunFolder(run.path).guesses(2)
    assert schema is not None
    guess, unsure = guesses["tab-leak/0"], guesses[f"tab-leak/0/{UNCERTAINTY}"]
    low, high = dataset.inputs.amin(dim=0), dataset.inputs.amax(dim=0)
    assert torch.allclose(schema.rounded(guess, low, high).float(), guess, atol=1e-6)
    assert unsure.shape == guess.shape
    assert bool(((unsure >= 0) & (unsure <= 1)).all())
    assert bool((unsure[:, 1:2] == unsure[:, 1:4]).all())
    assert f"analytic/0/{UNCERTAINTY}" not in guesses


def test_the_gallery_shows_records_from_the_best_to_the_worst(run):
    shown = {gallery.attack: gallery for gallery in galleries(RunData(RunFolder(run.path)))}
    table, other = shown["tab-leak"].table, shown["analytic"].table
    assert table is not None
    assert other is not None
    assert table.columns == [NAME, "colour", "ill"]
    right = [sum(cell.mark == "hit" for cell in record.cells) for record in table.records]
    assert right == sorted(right, reverse=True)
    assert table.records[0].title.endswith(f": {right[0]} of 3 cells")
    assert "nearest auxiliary record" in table.records[0].caption
    values = people(None).columns["colour"]
    assert {record.cells[1].original for record in table.records} <= set(values)
    assert all(cell.sure.endswith(" %") for cell in table.records[0].cells)
    assert sum(count for _, count, _ in table.calibration) == 2 * 2 * 2 * 3  # of both rounds
    assert not other.calibration
    assert {cell.sure for record in other.records for cell in record.cells} == {""}


def test_the_page_shows_them_blurred_and_as_text(run, tmp_path):
    write_report([RunFolder(run.path)], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Recovered records" in page
    assert "blind record" in page
    assert "Accuracy by confidence" in page
    assert "age <i>" not in page
    assert "<b>green" not in page
    assert "&lt;b&gt;green&lt;/b&gt;" in page


@pytest.mark.parametrize(("value", "rule"), [(-1.0, "at least 0"), (float("nan"), "at least 0")])
def test_forged_uncertainty_is_refused(value, rule, run):
    folder = RunFolder(run.path)
    name = f"tab-leak/1/{UNCERTAINTY}"
    before = {"tab-leak/1": folder.guesses(2)["tab-leak/1"], name: folder.guesses(2)[name]}
    folder.write_guesses(2, before | {name: torch.full_like(before[name], value)})
    with pytest.raises(BadRecording, match=f"uncertainties must be {rule}"):
        galleries(RunData(folder))
    folder.write_guesses(2, before)
    assert galleries(RunData(folder))


@pytest.mark.parametrize(
    "data", [{"name": f"{HERE}:people", "declared": False}, {"name": "digits", "limit": 100}]
)
def test_data_without_declared_columns_are_refused_before_training(data, tmp_path):
    with pytest.raises(ConfigError, match=r"^attack.tab-leak: needs auxiliary schema, got none; "):
        api.run(config(data=data), tmp_path / "run")
