import json
from dataclasses import replace

import pyarrow.compute as pc
import pytest
import torch

from adversary.games import ceilings, learn, predictors
from adversary.games.play import Played
from adversary.games.predictors import upload_scores
from adversary.games.scores import Measured
from fedsim import config as configs
from fedsim.cli import main as cli
from fedsim.core.errors import ConfigError
from fedsim.games import table as games
from fedsim.games.board import prepare
from fedsim.games.rows import defect, read_rows
from fedsim.report.games import write_games_report
from tests.builders import small_config

SETTINGS = [
    "data=tests.adversary.attacks.test_shadow_inference:two_kinds", "model=mlp", "model.hidden=8",
    "auxiliary.share=0.5", "game.column=kind", "game.value=1", "game.trials=80",
    "game.shadows=120", "game.steps=5", "game.batch_size=[1,4]", "local.lr=0.1",
]  # fmt: skip


def cells(*more, over=()):
    return configs.cells(None, [*SETTINGS, *more], [configs.parse_over(text) for text in over])


@pytest.fixture(scope="module", autouse=True)
def small_forests():
    """Fewer trees: what is compared here holds of any forest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictors, "TREES", 20)
        yield


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    out = tmp_path_factory.mktemp("games")
    todo = cells(over=['defense=[],[{name="gaussian",std=0.05},]'])
    return todo, out, games.games(todo, out)


def test_every_game_has_its_rows(played):
    _, _, table = played
    rows = table.to_pylist()
    keys = {(r["setting"], r["game"], r["batch_size"], r["adversary"]) for r in rows}
    assert len(keys) == 3 * 2 * (1 + 2)  # games × batch sizes × (static; static and adaptive)
    for row in rows:
        if row["metric"] == "auroc":
            assert row["low"] <= row["value"] <= row["high"]
            assert row["blind"] == 0.5
            assert row["value"] <= row["ceiling"] + 3.5 / (12 * 40) ** 0.5 + 1e-9
        if row["metric"] == "tpr_01":
            assert row["value"] is None  # 40 negatives cannot tell
    wanted = ("none", "distribution", "auroc")
    plain = [r["value"] for r in rows if (r["setting"], r["game"], r["metric"]) == wanted]
    assert plain[1] >= plain[0]  # four records say more of their distribution than one


def test_played_games_are_kept(played, monkeypatch):
    todo, out, table = played
    monkeypatch.setattr(games, "prepare", lambda _: pytest.fail("nothing is left to do"))
    assert games.games(todo, out).equals(table)


@pytest.mark.slow
def test_a_stopped_table_goes_on_to_the_same_rows(tmp_path):
    whole = games.games(cells(), tmp_path / "whole")

    def stop(rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        games.games(cells(), tmp_path / "stopped", on_rows=stop)
    again = games.games(cells(), tmp_path / "stopped")
    assert again.drop_columns("seconds").equals(whole.drop_columns("seconds"))


def test_another_config_does_not_go_into_the_folder(played):
    _, out, _ = played
    with pytest.raises(ConfigError, match="must be these games' folder"):
        games.games(cells("seed=3"), out)


def test_the_report_draws_every_axis_and_every_row(played, tmp_path):
    _, _, table = played
    write_games_report(table.to_pylist(), tmp_path / "r.html", configs="<b>")
    page = (tmp_path / "r.html").read_text()
    assert page.count("<svg") == 2 + 1  # against strength for each batch size, and against these
    assert "Against records per update" in page
    assert page.count("<tr><td>") == 3 * 2 * 3
    assert "&lt;b&gt;" in page
    assert "nan" not in page.split("<section><h2>All games")[1]


def test_a_defense_with_an_epsilon_lowers_the_ceiling(tmp_path):
    noisy = 'defense=[{name="clip",bound=0.1},{name="gaussian",std=1.0}]'
    todo = cells("game.batch_size=[4]", noisy, "game.play=distribution")
    table = games.games(todo, tmp_path)
    (ceiling,) = set(table.filter(pc.field("metric") == "auroc")["ceiling"].to_pylist())
    assert ceiling == pytest.approx(0.5562, abs=1e-3)  # Φ(0.2 / √2); 0.87 without the noise


def test_nothing_is_gained_by_a_sampling_that_is_not_done(tmp_path):
    noisy = 'defense=[{name="dp-sgd",clip=1.0,noise=2.0}]'
    todo = cells("game.batch_size=[16]", noisy, "game.play=property", "local.batch_size=2",
                 "game.trials=40", "game.shadows=40")  # fmt: skip
    table = games.games(todo, tmp_path)
    (found,) = set(table.filter(pc.field("metric") == "advantage")["ceiling"].to_pylist())
    # One Gaussian release with every record in it: a replaced one is two clips away.
    assert found == pytest.approx(ceilings.gaussian_advantage(2 / 2.0))
    quiet = 'defense=[{name="dp-sgd",clip=1e6,noise=1e-12}]'
    board = prepare(cells(quiet, "local.batch_size=2")[0].config)
    batch = board.private.inputs[:16][None], board.private.labels[:16][None]
    given = {"state": board.states[0], "inputs": batch[0], "labels": batch[1], "coins": ""}
    private, plain = (board.client(16).uploads(**given, defense=d) for d in (True, False))
    torch.testing.assert_close(private, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("game", ["attribute-known", "membership", "source"])
def test_what_a_known_record_needs(game, tmp_path):
    todo = cells(f"game.play={game}", "game.batch_size=4", "game.users=3")
    if game == "attribute-known":
        with pytest.raises(ConfigError, match="must be a categorical input for attribute-known"):
            games.games(todo, tmp_path)
        return
    table = games.games(todo, tmp_path).to_pylist()
    (auroc,) = [row["value"] for row in table if row["metric"] == "auroc"]
    assert auroc > 0.6


def test_uncertainty_is_played(tmp_path):
    todo = cells("game.play=distribution", "game.batch_size=8", "game.rounds=2",
                 "game.knows_model=false", "game.told_batch_size=4", "game.auxiliary=150",
                 "game.shift=0.5")  # fmt: skip
    board = prepare(todo[0].config)
    assert len(board.auxiliary.labels) <= 150
    assert float((board.auxiliary.labels == 0).double().mean()) < 0.45
    assert len(board.states) == 2
    table = games.games(todo, tmp_path)
    assert {row["rounds"] for row in table.to_pylist()} == {2}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["game.play=atribute"], "game.play: must be a known name, got 'atribute'"),
        (["game.column=kin"], "game.column: must be a column, got 'kin'"),
        (["game.play=property", "game.count=2"], "game.count: must be at most every batch size"),
        (["game.trials=3"], "trials, shadows: must be at least 40"),
        (["game.shares=[0.5]"], "game.shares"),
        (["game.shares=[0.5,1.5]"], "game.shares"),
        (["game.play=user,property"], "'user' must be played alone"),
        (["game.play=[]"], "play: must name games"),
        (["game.above=1.0"], "above: must not stand beside value"),
    ],
)
def test_bad_input_is_one_clear_sentence(settings, sentence, tmp_path):
    with pytest.raises(ConfigError, match=sentence):
        games.games(cells(*settings), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_prints_a_line_per_game_and_writes_the_report(tmp_path, capsys, monkeypatch):
    asked = ["fedsim", "game", "--out", str(tmp_path / "g"), "--set", "game.play=distribution"]
    for setting in SETTINGS:
        asked += ["--set", setting]
    for extra in ([], ["--json"]):
        monkeypatch.setattr("sys.argv", [*asked, *extra])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 0
        said = capsys.readouterr().out
        if extra:
            assert len(json.loads(said)["games"]) == 2 * 7
        else:
            assert said.count("distribution") == 2
            assert "Report" in said
    assert (tmp_path / "g" / "report.html").exists()


@pytest.mark.slow
def test_an_adversary_below_chance_on_its_own_shadows_is_a_defect(tmp_path, capsys, monkeypatch):
    def reversed_scores(*given, **options):
        fitted = upload_scores(*given, **options)
        return {name: (lambda trials, s=score: -s(trials)) for name, score in fitted.items()}

    asked = ["fedsim", "game", "--set", "game.play=distribution", "--set", "game.shadows=400"]
    for setting in SETTINGS:
        asked += ["--set", setting] if "shadows" not in setting else []
    defects = {}
    for name, scores in (("right", upload_scores), ("wrong", reversed_scores)):
        monkeypatch.setattr(learn, "upload_scores", scores)
        monkeypatch.setattr("sys.argv", [*asked, "--out", str(tmp_path / name)])
        with pytest.raises(SystemExit):
            cli.main()
        rows = read_rows(tmp_path / name / "games.parquet")
        defects[name] = {row.defect for row in rows if row.batch_size == 4}
        held_out = {row.held_out for row in rows if row.batch_size == 4}
        assert all((value < 0.5) == (name == "wrong") for value in held_out)
        said = capsys.readouterr().out
        sentence = "below chance on held-out shadow trials: AUROC 0."
        assert (f"DEFECT: {sentence}" in said) == (name == "wrong")
        assert (sentence in (tmp_path / name / "report.html").read_text()) == (name == "wrong")
    assert defects["right"] == {None}
    assert all(text.startswith("below chance") for text in defects["wrong"])


def test_answers_that_are_wrong_reliably_are_called_a_leak():
    secrets = torch.arange(100) % 2
    sure = torch.where(secrets[:, None] == torch.arange(2), 0.9, 0.1).log()
    fair = Measured(0.5, 0.4, 0.6)
    right, wrong = (Played(it, secrets, ("forest",), (fair,)) for it in (sure, sure.flip(1)))
    assert defect(right) is None
    assert defect(wrong) == "below chance: AUROC 0.000; its answers leak the secret when turned"
    chance = Measured(0.2, 0.1, 0.3)
    noticed = replace(wrong, held_out=(chance,))
    assert defect(noticed) == "below chance on held-out shadow trials: AUROC 0.200"


def test_games_are_listed_and_a_config_holds_them():
    assert small_config(game={"batch_size": 4}).game.batch_size == (4,)


@pytest.mark.parametrize(
    ("defense", "reason"),
    [
        ("[]", None),
        pytest.param(
            '[{name="dp-sgd",noise=1.0,clip=1.0}]',
            "the defense works inside training",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_shadow_clients_train_together_in_the_batched_engine(tmp_path, defense, reason):
    weights = (
        "game.upload=weights",
        "game.batch_size=4",
        "local.batch_size=2",
        "game.play=property",
        "local.epochs=2",
    )
    batched, inline = (
        games.games(
            cells(*weights, f"defense={defense}", f"engine.name={name}"), tmp_path / name
        ).to_pylist()
        for name in ("batched", "inline")
    )
    texts = {row["one_by_one"] for row in batched}
    assert texts == ({None} if reason is None else {f"200 clients: {reason}"})
    assert {row["one_by_one"] for row in inline} == {None}
    for left, right in zip(batched, inline, strict=True):
        assert (left["game"], left["metric"]) == (right["game"], right["metric"])
        if left["metric"] == "auroc":
            assert left["value"] == pytest.approx(right["value"], abs=0.05)
