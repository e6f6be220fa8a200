"""The five defenses as settings, and how strong each is."""

import json

import pytest

from fedsim import config as configs
from fedsim.cli import main as cli
from fedsim.core.errors import ConfigError
from fedsim.games import five_defenses as grid
from fedsim.games.five_defenses import STRENGTHS, five_defenses
from fedsim.games.strengths import Strength, strengths


def test_each_defense_has_all_its_strengths_beside_none():
    cells = five_defenses(None, ["model=mlp"])
    assert len(cells) == 1 + sum(map(len, STRENGTHS.values())) == len({c.name for c in cells})
    of = strengths(cells)
    assert of["none"] == Strength("none", None, None)
    assert of["sign"] == Strength("sign", None, None)
    for (defense, option), values in STRENGTHS.items():
        if option:
            mine = [each for each in of.values() if each.defense == defense]
            assert mine == [Strength(defense, option, value) for value in values]
    with_bottleneck = [c.name for c in cells if "bottleneck" in c.config.model.options]
    assert with_bottleneck == [c.name for c in cells if c.name.startswith("vib")]


def test_other_settings_go_with_each_and_a_bottleneck_of_the_config_stays():
    over = configs.parse_over("seed=1,2")
    cells = five_defenses(None, ["model=mlp", "model.bottleneck=4"], [over])
    assert len(cells) == 2 * (1 + sum(map(len, STRENGTHS.values()))) == len({c.name for c in cells})
    assert {cell.config.model.options["bottleneck"] for cell in cells} == {4}
    with pytest.raises(ConfigError, match="seed"):
        five_defenses(None, ["seed=-1"])


@pytest.mark.parametrize(
    ("values", "strength"),
    [
        ('[{name="clip",bound=1.0},{name="gaussian",std=0.1}],[{name="clip",bound=1.0},{name="gaussian",std=0.3}]',
         Strength("clip → gaussian", "std", 0.3)),
        ('[{name="dp-sgd"}],[{name="dp-sgd",noise=2.0}]', Strength("dp-sgd", "noise", 2.0)),
        ('[{name="quantise",bits=4}]', Strength("quantise", "bits", 4.0)),
        ('[{name="dp-sgd"}]', Strength("dp-sgd", None, None)),
        ('[{name="my.module:mine",knob=3}]', Strength("my.module:mine", "knob", 3.0)),
    ],
)  # fmt: skip
def test_the_strength_is_the_number_that_differs(values, strength):
    cells = configs.cells(None, [], [configs.parse_over(f"defense={values}")])
    assert list(strengths(cells).values())[-1] == strength


@pytest.mark.slow
def test_one_command_plays_draws_and_tells_the_accuracy(tmp_path, capsys, monkeypatch):
    few = {("prune", "rate"): (0.5, 0.9), ("vib", "beta"): (0.1,)}
    monkeypatch.setattr(grid, "STRENGTHS", few)
    settings = [
        "data=tests.adversary.attacks.test_shadow_inference:two_kinds", "model=mlp",
        "model.hidden=8", "auxiliary.share=0.5", "game.play=membership", "game.trials=40",
        "game.shadows=40", "game.steps=5", "game.batch_size=2", "local.lr=0.1",
    ]  # fmt: skip
    given = ["fedsim", "game", "--defenses", "--out", str(tmp_path)]
    given += [word for setting in settings for word in ("--set", setting)]
    for more in ([], ["--json"]):
        monkeypatch.setattr("sys.argv", [*given, *more])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 0
        told = capsys.readouterr().out
        if more:
            rows = json.loads(told)["games"]
            assert {row["setting"] for row in rows} == {
                "none", "prune-rate=0.5", "prune-rate=0.9", "vib-beta=0.1",
            }  # fmt: skip
            assert all(0 <= row["task_accuracy"] <= 1 for row in rows)
            assert all(row["imputation"] == 0.5 for row in rows if row["metric"] == "auroc")
        else:
            assert "imputed" in told
            assert "task" in told
            assert told.count("membership") == 1 + 2 * 3
    page = (tmp_path / "report.html").read_text()
    assert "Defenses by strength, 2 records" in page
    assert "Against setting" not in page
