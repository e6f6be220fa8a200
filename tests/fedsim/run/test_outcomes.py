"""Failed, refused, not graded and at chance are four things in the ledger, and from it alone."""

from collections import Counter

import pytest

from fedsim import api
from fedsim.core.errors import NoAnswer
from fedsim.core.rows import Leak
from fedsim.run.ledger import AUDIT, leakage_table
from fedsim.run.outcomes import answers_in, answers_of, as_json, check_answered, silent
from tests import unanswering as un


def outcomes(run):
    return Counter((row["attack"], row["outcome"]) for row in run.ledger().to_pylist())


def test_where_every_attack_crashes_no_row_has_a_value_and_each_has_the_reason(recordings):
    run = recordings.of(un.ALL_CRASH)
    rows = run.ledger().to_pylist()
    assert {row["outcome"] for row in rows} == {"failed"}
    assert all(row["value"] is None for row in rows)
    assert all("no pivot in round" in row["reason"] for row in rows)
    answers = api.answers(run.ledger())
    assert [(it.attack, it.failed, it.refused, it.answered) for it in answers] == [
        (un.CRASH, un.UPDATES, 0, 0),
        (un.PICTURES, un.UPDATES, 0, 0),
    ]
    first = answers[0]
    assert first.counts == f"failed on {un.UPDATES} of {un.UPDATES} updates"
    # Rounds in the reasons differ, and the reason is one.
    assert first.reasons == 1
    assert first.sentence.startswith(f"{first.counts}: RuntimeError: no pivot in round 1 (tests/")
    assert list(silent(answers)) == ["label", "reconstruction"]


def test_one_attack_fails_one_partly_one_refuses_and_one_answers(recordings):
    run = recordings.of(un.MIXED)
    assert outcomes(run) == {
        (un.CRASH, "failed"): 5 * un.UPDATES,
        (un.PARTLY, "failed"): 5 * (un.UPDATES - un.ROUNDS),
        (un.PARTLY, "graded"): 5 * un.ROUNDS,
        (un.PICKY, "refused"): 2 * un.UPDATES,
        ("llg", "graded"): 5 * un.UPDATES,
    }
    ledger = run.ledger()
    assert {r["reason"] for r in ledger.to_pylist() if r["outcome"] == "refused"} == {un.REFUSAL}
    by_name = {it.attack: it for it in api.answers(ledger)}
    assert by_name["llg"].counts == by_name["llg"].sentence == ""
    assert by_name[un.PARTLY].counts == "failed on 4 of 6 updates"
    assert by_name[un.PICKY].sentence == f"refused 6 of 6 updates: {un.REFUSAL}"
    assert list(silent(by_name.values())) == ["membership"]
    with pytest.raises(NoAnswer, match=r"no membership attack answered \(\S+:picky refused 6 of 6"):
        check_answered([*by_name.values()])
    check_answered([by_name["llg"], by_name[un.CRASH]])  # one of the family answered


def test_means_say_of_how_many_and_compare_with_the_blind_guess_of_the_same(recordings):
    ledger = recordings.of(un.MIXED).ledger()
    means = {(row["attack"], row["metric"]): row for row in api.means(ledger)}
    asr = means[un.PARTLY, "asr"]
    assert (asr["graded"], asr["of"], asr["failed"], asr["refused"]) == (2, 6, 4, 0)
    rows = [
        row
        for row in ledger.to_pylist()
        if (row["attack"], row["metric"], row["client"]) == (un.PARTLY, "asr", "2")
    ]
    assert asr["value"] == pytest.approx(sum(row["value"] for row in rows) / 2)
    assert asr["blind"] == pytest.approx(sum(row["blind"] for row in rows) / 2)
    assert means["llg", "asr"]["graded"] == means["llg", "asr"]["of"] == 6
    gone = means[un.CRASH, "asr"]
    assert (gone["value"], gone["graded"], gone["failed"]) == (None, 0, 6)
    refused = means[un.PICKY, "auroc"]
    assert (refused["value"], refused["failed"], refused["refused"]) == (None, 0, 6)


def test_an_attack_at_chance_answered(recordings):
    run = recordings.of(un.AT_CHANCE)
    assert outcomes(run) == {(un.CHANCE, "graded"): 5 * un.UPDATES}
    answers = api.answers(run.ledger())
    check_answered(answers)
    assert as_json(answers) == []


def row(client, outcome, *, attack="a", reason=None, family="label", adaptive=False):
    return Leak(
        round=1, client=client, attack=attack, family=family, metric="asr", outcome=outcome,
        value=0.5 if outcome == "graded" else None, blind=None, seconds=0.0, reason=reason,
        adaptive=adaptive,
    )  # fmt: skip


def answers(*rows):
    of_table = answers_of(leakage_table(rows))
    assert answers_in(rows) == of_table
    return of_table


def test_counts_in_words_name_failures_and_refusals_apart_and_the_usual_reason():
    [both] = answers(
        row("0", "failed", reason="x 1"), row("1", "refused", reason="y 2"),
        row("2", "refused", reason="y 3"), row("3", "graded"),
    )  # fmt: skip
    assert both.sentence == "failed on 1 and refused 2 of 4 updates, most often: y 2"
    [single] = answers(row("0", "failed", reason="x"))
    assert single.sentence == "failed on 1 of 1 update: x"
    assert [each.word for each in (both, single)] == ["–", "failed"]


def test_without_truth_an_attack_has_answered():
    audit = row("0", "graded", attack="auditing", family=AUDIT)
    [each] = answers(row("0", "no truth"), row("1", "undefined"), audit)
    assert (each.answered, each.counts) == (2, "")


def test_a_baseline_does_not_speak_for_its_family_and_a_row_of_the_pool_for_no_client():
    rows = [row("0", "graded", attack="random"), row("0", "failed"), row(None, "graded")]
    assert list(silent(answers(*rows))) == ["label"]
    assert silent(answers(rows[0])) == {}
    rows = [row("0", "failed"), row("0", "graded", adaptive=True)]
    assert silent(answers(*rows)) == {}
    assert [each.title for each in answers(*rows)] == ["a", "a (adaptive)"]
