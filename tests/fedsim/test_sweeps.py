import pytest

from fedsim import api
from fedsim.config import Cell, Engine, cells, parse_over
from fedsim.core.errors import ConfigError
from fedsim.run.run_folder import RunFolder
from fedsim.sweeps import sweep
from tests.builders import rows_without_seconds

pytestmark = pytest.mark.usefixtures("undrawn")

SMALL = (
    "federation.rounds=2", "federation.clients=3", "data.limit=120", "model.name=mlp",
    "model.hidden=8", "local.epochs=1", "attack=llg",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("local.lr=0.1,0.2", ("local.lr", [0.1, 0.2])),
        ("data=digits, mnist", ("data", ["digits", "mnist"])),
        ('defense=[],["clip"]', ("defense", [[], ["clip"]])),
        (
            'defense=[{name="clip",bound=1.0}],["sign"]',
            ("defense", [[{"name": "clip", "bound": 1.0}], ["sign"]]),
        ),
        ("seed=1", ("seed", [1])),
    ],
)
def test_values_are_toml_or_bare_words(text, expected):
    assert parse_over(text) == expected


@pytest.mark.parametrize("text", ["", "local.lr", "=1", "local.lr= "])
def test_a_key_and_values_must_be_there(text):
    with pytest.raises(ConfigError, match="--over: must be key=value,value,…, got"):
        parse_over(text)
    with pytest.raises(ConfigError, match="each value must stand once"):
        parse_over("seed=1,1")


def test_a_grid_is_every_combination_and_a_listed_part_is_found_by_its_name():
    overs = [parse_over("defense.gaussian.std=0.1,1.0"), parse_over("seed=1,2")]
    found = cells(None, ['defense=["clip"]'], overs)
    assert [cell.name for cell in found] == [
        "gaussian.std=0.1_seed=1", "gaussian.std=0.1_seed=2",
        "gaussian.std=1.0_seed=1", "gaussian.std=1.0_seed=2",
    ]  # fmt: skip
    last = found[-1].config
    assert [part.name for part in last.defense] == ["clip", "gaussian"]
    assert last.defense[1].options == {"std": 1.0}
    assert last.seed == 2
    own = cells(None, ['defense=["clip","gaussian"]'], [parse_over("defense.clip.bound=2.0")])
    assert own[0].config.defense[0].options == {"bound": 2.0}


def test_names_say_what_differs_and_never_clash():
    lists = parse_over('defense=[],["clip"],[{name="clip",bound=1.0},"sign"]')
    assert [cell.name for cell in cells(None, [], [lists])] == [
        "none", "clip", "clip-bound=1.0+sign",
    ]  # fmt: skip
    odd = [cell.name for cell in cells(None, [], [parse_over('data.root="a/b","a b"')])]
    assert odd == ["data.root=a-b", "data.root=a-b-"]


def test_a_wrong_cell_is_one_sentence_before_anything_starts(tmp_path):
    with pytest.raises(ConfigError, match=r"local.lr=-1: local.lr: .*greater than 0"):
        cells(None, [], [parse_over("local.lr=0.1,-1")])
    todo = cells(None, SMALL, [parse_over('defense=[],["clp"]')])
    with pytest.raises(ConfigError, match="did you mean 'clip'"):
        sweep(todo, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sweep_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    todo = cells(None, SMALL, [parse_over("seed=1,2,3")])
    monkeypatch.setattr(api, "run", stopping(api.run, todo[1].config))
    with pytest.raises(KeyboardInterrupt):
        sweep(todo, tmp_path)
    monkeypatch.undo()
    assert RunFolder(tmp_path / "seed=2").finished_rounds[-1] == 1
    told = []
    paths = sweep(todo, tmp_path, on_cell=lambda *cell: told.append(cell))
    assert [path.name for path in paths] == ["seed=1", "seed=2", "seed=3"]
    assert told == [(cell, None) for cell in todo]
    whole = api.run(todo[1].config, tmp_path / "alone")
    both = [rows_without_seconds(RunFolder(p).ledger()) for p in (paths[1], whole.path)]
    assert both[0] == both[1]
    before = (tmp_path / "seed=1" / "leakage.parquet").stat().st_mtime_ns
    sweep(todo, tmp_path)  # nothing is left to do
    assert (tmp_path / "seed=1" / "leakage.parquet").stat().st_mtime_ns == before


def stopping(run, config):
    """Return a `run` that is interrupted after the first round of one config."""

    def interrupted(asked, path, **options):
        def stop(told):
            if told.number == 1:
                raise KeyboardInterrupt

        if asked == config:
            options["on_round"] = stop
        return run(asked, path, **options)

    return interrupted


def test_one_run_that_fails_does_not_stop_the_others(tmp_path):
    hostile = "tests.fedsim.test_sweeps:nothing_left"
    overs = [parse_over(f'defense=["{hostile}"],[]')]
    told = {}
    todo = cells(None, SMALL, overs)
    paths = sweep(todo, tmp_path, on_cell=lambda cell, reason: told.update({cell.name: reason}))
    assert [path.name for path in paths] == ["none"]
    reasons = [reason for reason in told.values() if reason]
    assert len(reasons) == 1
    assert "a client must succeed" in reasons[0]


def nothing_left():
    """Make a defense that cannot be applied."""
    from defenses import Defense

    return Defense(name="nothing", apply=lambda params, state, generator: ({}, state))


def test_another_run_in_the_place_is_refused(tmp_path):
    todo = cells(None, SMALL, [parse_over("seed=1")])
    sweep(todo, tmp_path)
    other = [Cell(todo[0].name, todo[0].config.model_copy(update={"seed": 5}))]
    with pytest.raises(ConfigError, match="must be the run with this sweep's config"):
        sweep(other, tmp_path)
    (tmp_path / "x").mkdir()
    with pytest.raises(ConfigError, match="must be a run of this sweep or not exist"):
        sweep([Cell("x", todo[0].config)], tmp_path)


@pytest.mark.twin
@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_runs_on_ray_are_the_same_runs(tmp_path):
    todo = cells(None, SMALL, [parse_over("seed=1,2")])
    engine = Engine(name="ray", workers=2)
    far, here = sweep(todo, tmp_path / "far", engine=engine), sweep(todo, tmp_path / "here")
    for left, right in zip(far, here, strict=True):
        tables = [rows_without_seconds(RunFolder(path).ledger()) for path in (left, right)]
        assert tables[0] == tables[1]
    both = cells(None, (*SMALL, "engine.name=ray"), [parse_over("seed=1")])
    with pytest.raises(ConfigError, match="engine.name: must be 'inline'"):
        sweep(both, tmp_path / "both", engine=engine)


def test_a_link_is_no_run_of_a_sweep(tmp_path):
    [cell] = cells(None, SMALL)
    for target in (tmp_path / "elsewhere", tmp_path):
        (tmp_path / cell.name).symlink_to(target)
        with pytest.raises(ConfigError, match="must be a folder of this sweep's own, got a link"):
            sweep([cell], tmp_path)
        (tmp_path / cell.name).unlink()
    assert not any(tmp_path.iterdir())
