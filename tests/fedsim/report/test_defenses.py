import pytest

from fedsim import api
from fedsim.report.data import RunData
from fedsim.report.defenses import Defended, front
from fedsim.run.run_folder import RunFolder
from tests.builders import small_config
from tests.fedsim.report.test_run import Reader


@pytest.mark.parametrize(
    ("points", "best"),
    [
        ([(0.9, 0.5), (0.8, 0.6)], [0]),
        ([(0.9, 0.5), (0.8, 0.4)], [1, 0]),
        ([(0.9, 0.5), (0.8, 0.4), (0.85, 0.45), (0.85, 0.4), (0.7, 0.1)], [4, 3, 0]),
        ([(0.5, 0.5), (0.5, 0.5)], [0]),
        ([], []),
    ],
)
def test_the_front_is_what_no_other_beats(points, best):
    assert front(points) == best


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("defenses")
    known = {
        "attack": "llg-plus,uniform",
        "federation": {"clients": 3, "rounds": 2, "strategy": "fedsgd"},
        "data": {"limit": 1000},
        "local": {"batch_size": 32, "epochs": 1},
    }
    private = [{"name": "clip", "bound": 0.1}, {"name": "gaussian", "std": 0.05}]
    return [
        api.run(small_config(**known), folder / "plain"),
        api.run(small_config(**known, defense=[{"name": "clip", "bound": 0.05}]), folder / "clip"),
        api.run(small_config(**known, defense=private), folder / "private"),
    ]


def defended(run):
    return Defended(RunData(RunFolder(run.path)))


def test_the_strongest_attacker_counts(runs):
    row = defended(runs[1])
    (left,) = row.left
    assert left.static.attack == "llg-plus"
    assert left.adaptive.title == "llg-plus (adaptive)"
    assert left.adaptive.main.value > left.static.main.value + 0.1  # a clipped update is a riddle
    assert left.worst is left.adaptive
    (plain,) = defended(runs[0]).left
    assert plain.adaptive is None
    assert plain.worst is plain.static


def test_epsilon_stands_only_where_one_exists(runs):
    assert [defended(run).epsilon is None for run in runs] == [True, True, False]
    page = lambda run: Reader((run.path / "report.html").read_text()).text
    assert "no guarantee" in page(runs[1])
    assert "ε =" not in page(runs[1])
    assert f"ε = {defended(runs[2]).epsilon:.3g} at δ = 1e-05" in page(runs[2])
    assert "Gaussian mechanism" in page(runs[2])
    assert "Defenses Static" not in page(runs[0])


def test_several_runs_are_drawn_against_their_accuracy(runs, tmp_path):
    page = Reader(api.report([run.path for run in runs], tmp_path / "all.html").read_text())
    assert "Leakage against accuracy" in page.text
    row = next(r for r in page.rows if r[1:2] == ["clip (bound = 0.05)"])
    (left,) = defended(runs[1]).left
    assert row[4].split()[0] == f"{100 * left.static.main.value:.1f}"
    assert row[5].split()[0] == f"{100 * left.adaptive.main.value:.1f}"
    assert all(link.startswith("#") for link in page.loads)
