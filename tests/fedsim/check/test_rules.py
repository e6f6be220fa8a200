import pytest

from fedsim import config as configs
from fedsim.check.names import check_names
from fedsim.config import parse_rule
from fedsim.core.errors import ConfigError


def test_every_part_of_a_rule_is_read():
    rule = parse_rule("  client( label.package.module:attack.skill )>=blind + -2.5e-1 ")
    assert (rule.over, rule.family, rule.metric) == ("client", "label", "skill")
    assert (rule.attack, rule.operator) == ("package.module:attack", ">=")
    assert (rule.base, rule.number) == ("blind", -0.25)
    plain = parse_rule("membership.auroc < .6")
    assert (plain.over, plain.attack, plain.base, plain.number) == ("any", None, "", 0.6)


@pytest.mark.parametrize(
    ("operator", "violating"),
    [(">", {"above"}), (">=", {"above", "equal"}), ("<", {"below"}), ("<=", {"below", "equal"})],
)
def test_operators(operator, violating):
    rule = parse_rule(f"label.skill {operator} 0.5")
    values = {"below": 0.25, "equal": 0.5, "above": 0.75}
    assert {name for name, value in values.items() if rule.holds_for(value, 0.5)} == violating


@pytest.mark.parametrize(
    "text",
    [
        "",
        "label.skill",
        "label > 0.3",
        "label..skill > 0.3",
        ".skill > 0.3",
        "label.skill > ",
        "label.skill > nan",
        "label.skill > inf",
        "label.skill > 1e999",
        "label.skill = 0.3",
        "label.skill > 0.3 > 0.2",
        "label.skill > __import__('os')",
        "label.skill > claim - 1",
        "mean label.skill > 0.3",
        "mean(label.skill > 0.3",
        "label.skill > 0,3",
        "label.skill > 0.3; label.asr > 0.3",
        "label.skill > 0.3\0",
        "9" * 9000,
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(ValueError, match="^must "):
        parse_rule(text)


def test_a_typo_is_refused_with_the_nearest_word():
    with pytest.raises(ValueError, match="did you mean 'mean'"):
        parse_rule("maen(label.skill) > 0.3")
    with pytest.raises(ValueError, match="did you mean 'blind'"):
        parse_rule("label.skill > blnd")
    with pytest.raises(ConfigError, match=r"check\.fail_if\.rule: must be FAMILY"):
        configs.read(None, ["check.fail_if=label"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("labels.skill > 0.3", "known family, got 'labels'; did you mean 'label'"),
        ("label.skil > 0.3", "known metric, got 'skil'; did you mean 'skill'"),
        ("label.idgl.skill > 0.3", "got 'idgl'; did you mean 'idlg'"),
        ("label.dlg.skill > 0.3", "known label attack, got 'dlg'"),  # reconstructs
        ("label.skill > claim", "nothing else refutes one"),
        ("audit.epsilon_estimate > claim", "nothing else refutes one"),
        ("audit.epsilon_lower > blind", "audit has no blind guess"),
        ("mean(audit.epsilon_lower) > 1", "must take any, max, last of audit"),
        ("test.llg.accuracy < 0.5", "must be test.METRIC"),
    ],
)
def test_what_does_not_exist_is_refused(text, sentence):
    with pytest.raises(ConfigError, match="--fail-if: .*" + sentence.replace(".", r"\.")):
        check_names("--fail-if", [parse_rule(text)])


def test_a_rule_in_the_config_is_kept_and_one_may_stand_for_a_list():
    config = configs.read(None, ["check.fail_if=label.skill > 0.3"])
    assert config.check.fail_if == ("label.skill > 0.3",)
    assert "fail_if" in configs.dump(config)
    assert "[check]" not in configs.dump(configs.Config())  # older runs stay as they are
