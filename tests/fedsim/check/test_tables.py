from dataclasses import replace

import pytest

from fedsim.audit import rows as audit_rows
from fedsim.audit import table as audits
from fedsim.check import gate
from fedsim.check.of_tables import BLUNT, of_audited_rounds
from fedsim.config import Config, parse_rule
from fedsim.core.rows import Leak, Measure
from fedsim.games import rows as game_rows
from fedsim.games import table as games
from fedsim.run.ledger import leakage_table, metrics_table

BOUND = audit_rows.Row(
    setting="run", canary="gradient", relation="replace one example", batch_size=1, rounds=1,
    view="rounds", apart=1.0, exact=1.0, method="clopper-pearson", guarantee="bound",
    confidence=0.95, assumes=None, statistic=None, epsilon=1.2, delta=1e-5, mu=None, most=4.0,
    trials=1000, claimed=1.0, claimed_relation="replace one example", joint=0.8, refutes=False,
    seconds=1.0,
)  # fmt: skip
PLAYED = game_rows.Row(
    setting="run", game="membership", batch_size=1, rounds=1, adversary="adaptive", metric="auroc",
    value=0.7, low=0.6, high=0.8, blind=0.5, imputation=None, ceiling=None, records_ceiling=None,
    promised_ceiling=None, promise=None, task_accuracy=None, defense="none", option=None,
    strength=None, chosen="x", held_out=None, defect=None, one_by_one=None, trials=100, seconds=1.0,
)  # fmt: skip
CONFIG = Config.model_validate(
    {"game": {"play": ["membership"], "batch_size": [1], "rounds": [1]}}
).model_dump_json(exclude_none=True)


def audited(folder, *rows, settings=("run",)):
    folder.mkdir(exist_ok=True)
    audit_rows.write_rows(rows, folder / audits.TABLE)
    text = "\n".join(f"{name}: {CONFIG} at the weights of x, rounds 0001 (00)" for name in settings)
    (folder / audits.CONFIGS).write_text(text)
    return folder


def played(folder, *rows, settings=("run",)):
    folder.mkdir(exist_ok=True)
    game_rows.write_rows(rows, folder / games.TABLE)
    text = "\n".join(f"{name}: {CONFIG}" for name in settings)
    (folder / games.CONFIGS).write_text(text)
    return folder


def word(folder, text, **changes):
    return gate.check(folder, [parse_rule(text)], changes).verdicts[0].word


def test_a_claim_is_held_against_bounds_that_hold_together(tmp_path):
    folder = audited(tmp_path / "audit", BOUND)
    assert word(folder, "audit.epsilon_lower > claim") == "pass"
    assert word(folder, "audit.epsilon_lower > 1.0") == "fail"  # by itself
    audited(folder, replace(BOUND, joint=1.01))
    assert word(folder, "audit.epsilon_lower > claim") == "fail"
    assert word(folder, "audit.gradient.epsilon_lower > claim") == "fail"
    assert word(folder, "audit.clopper-pearson.epsilon_lower > claim") == "fail"
    assert word(folder, "audit.mu-gdp.epsilon_lower > claim") == "open"
    assert word(folder, "audit.epsilon_estimate > 2") == "open"
    assumed = replace(BOUND, joint=None)  # assumes what is not claimed
    assert word(audited(folder, assumed), "audit.epsilon_lower > claim") == "open"
    unclaimed = replace(BOUND, claimed=None, joint=None)
    assert word(audited(folder, unclaimed), "audit.epsilon_lower > claim") == "open"
    few = replace(BOUND, most=0.9)  # so that no outcome of the runs exceeds the claim
    assert word(audited(folder, few), "audit.epsilon_lower > claim") == "open"
    assert word(audited(folder, few, BOUND), "audit.epsilon_lower > claim") == "pass"
    unfinished = audited(folder, BOUND, settings=("run", "noise=2"))
    assert word(unfinished, "audit.epsilon_lower > claim") == "open"


@pytest.mark.parametrize(
    ("changes", "settings", "expected"),
    [
        ({}, ("run",), {"0.65": "fail", "0.75": "pass", "blind + 0.25": "pass"}),
        ({"defect": "below chance"}, ("run",), {"0.65": "fail", "0.75": "open"}),
        ({"value": None}, ("run",), {"0.75": "open"}),
        ({}, ("run", "other"), {"0.65": "fail", "0.75": "open"}),
        ({"game": "property"}, ("run",), {"0.75": "open"}),
    ],
)
def test_games(tmp_path, changes, settings, expected):
    folder = played(tmp_path / "game", replace(PLAYED, **changes), settings=settings)
    assert {limit: word(folder, f"game.auroc > {limit}") for limit in expected} == expected


def test_the_tables_own_interval_decides_by_margin(tmp_path):
    folder = played(tmp_path / "game", PLAYED)
    assert word(folder, "game.membership.auroc > 0.65", margin="lenient") == "pass"
    assert word(folder, "game.membership.auroc > 0.75", margin="strict") == "fail"
    assert word(folder, "game.auroc > blind + 0.31", margin="strict") == "pass"


def test_canaries_in_a_run_are_held_against_the_claim_of_their_round():
    def shown(value, most, outcome="graded"):
        leak = Leak(
            round=4, client=None, attack="audit-one-run", family="audit", metric="epsilon_lower",
            value=value, outcome=outcome, blind=0.0, seconds=0.0, ceiling=2.0,
        )  # fmt: skip
        measures = [Measure(4, "audit", "audit-one-run_most", most)]
        rule = parse_rule("audit.epsilon_lower > claim")
        return of_audited_rounds(rule, leakage_table([leak]), metrics_table(measures))

    assert [(it.value, it.base) for it in shown(2.5, 4.0).values] == [(2.5, 2.0)]
    assert shown(1.0, 4.0).problems == []
    assert shown(1.0, 1.5).problems == [BLUNT]
    assert "revealed its coins" in shown(None, None, "no truth").problems[0]
