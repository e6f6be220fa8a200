"""What the command line says of attacks that fail, refuse, or find nothing."""

import json

import pytest

from fedsim.cli import console
from fedsim.cli.unanswered import NO_ERROR, Unanswered, print_unanswered
from fedsim.config import dump
from fedsim.run.outcomes import NOT_SAFE, Answers
from tests import unanswering as un
from tests.fedsim.cli.test_main import fedsim


@pytest.fixture
def here(tmp_path, monkeypatch, undrawn):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console.out, "width", 300)
    for name in ("ALL_CRASH", "MIXED", "AT_CHANCE"):
        (tmp_path / f"{name}.toml").write_text(dump(getattr(un, name)))
    return tmp_path


def rounds_of(out):
    """Return the words of each round's line, by its number."""
    lines = [line.split() for line in out.splitlines()]
    return {int(words[0]): words[3:-1] for words in lines if words and words[0].isdigit()}


def test_a_run_whose_attacks_all_crash_says_so_in_every_line_and_in_its_exit_code(here, capsys):
    code, out, err = fedsim(capsys, "run", "ALL_CRASH.toml", "--strict")
    assert code == 3
    rounds = rounds_of(out)
    assert [rounds[number] for number in (1, 2)] == [["failed", "failed", "–"]] * 2
    said = f"       {un.CRASH} failed on 3 of 3 updates: RuntimeError: no pivot in round 1 (tests/"
    assert out.count(said) == 1  # once, and not in every round
    assert f"Failed   {un.CRASH} failed on 6 of 6 updates: RuntimeError: no pivot in" in out
    assert f"Failed   {un.PICTURES} failed on 6 of 6 updates: RuntimeError: no pivot in" in out
    assert f"Open     No label attack answered. {NOT_SAFE}" in out
    assert f"Open     No reconstruction attack answered. {NOT_SAFE}" in out
    assert "Report   runs/" in out  # the run itself is done
    assert err.startswith(
        f"fedsim: --strict: an attack of each family must answer, got: no label attack answered "
        f"({un.CRASH} failed on 6 of 6 updates), no reconstruction attack answered ("
    )
    code, out, _ = fedsim(capsys, "run", "ALL_CRASH.toml", "--json")
    assert code == 0
    assert [
        (it["attack"], it["answered"], it["failed"]) for it in json.loads(out)["unanswered"]
    ] == [
        (un.CRASH, 0, 6),
        (un.PICTURES, 0, 6),
    ]


def test_failed_refused_and_answered_are_told_apart(here, capsys):
    code, out, err = fedsim(capsys, "run", "MIXED.toml", "--out", "mixed", "--strict")
    crash, partly, picky, llg, _ = _cells(rounds_of(out)[1])
    assert (crash, picky) == ("failed", "refused")
    assert partly.endswith("%!")  # a mean over some clients
    assert llg.endswith("%")
    assert f"Failed   {un.PARTLY} failed on 4 of 6 updates" in out
    assert f"Refused  {un.PICKY} refused 6 of 6 updates: {un.REFUSAL}" in out
    assert f"Open     No membership attack answered. {NOT_SAFE}" in out
    assert "No label attack answered" not in out
    assert code == 3
    assert "no membership attack answered" in err
    assert "label" not in err
    names = f"{un.CRASH},{un.PARTLY},llg"
    code, out, err = fedsim(capsys, "attack", "mixed", "--with", names, "--strict")
    assert (code, err.strip()) == (0, "")
    head, *lines = [line.split() for line in out.splitlines() if line]
    assert head[-3:] == ["ms", "mean", "of"]
    rows = {line[0]: line for line in lines}
    assert (rows[un.CRASH][1], rows[un.CRASH][-1]) == ("failed", "0/6")
    assert (rows[un.PARTLY][-1], rows["llg"][-1]) == ("2/6", "6/6")
    code, out, err = fedsim(capsys, "attack", "mixed", "--with", un.PICKY, "--strict", "--json")
    assert code == 3
    assert "no membership attack answered" in err
    [refused] = json.loads(out)["unanswered"]
    assert (refused["refused"], refused["failed"], refused["reason"]) == (6, 0, un.REFUSAL)
    [auroc] = [row for row in json.loads(out)["attacks"] if row["metric"] == "auroc"]
    assert (auroc["value"], auroc["graded"], auroc["of"], auroc["refused"]) == (None, 0, 6, 6)


def _cells(words):
    """Join each number with its per cent sign."""
    return " ".join(words).replace(" %", "%").split()


def test_at_chance_is_an_answer(here, capsys):
    code, out, _ = fedsim(capsys, "run", "AT_CHANCE.toml", "--strict")
    assert code == 0
    for word in ("failed", "refused", "Failed", "Refused", "Open", "!"):
        assert word not in out
    assert _cells(rounds_of(out)[2])[0].endswith("%")


@pytest.mark.parametrize(("refused", "failed", "said"), [(28, 0, 1), (32, 0, 0), (0, 28, 0)])
def test_a_refusal_of_some_updates_is_called_no_error(refused, failed, said, capsys):
    some = Answers(
        attack="analytic", adaptive=False, family="reconstruction", updates=32, failed=failed,
        refused=refused, reason="local: must be one step", reasons=1,
    )  # fmt: skip
    print_unanswered([some])
    assert " ".join(capsys.readouterr().out.split()).count(NO_ERROR) == said


def test_a_sweep_says_of_each_run_what_was_not_answered(here, capsys):
    code, out, _ = fedsim(
        capsys, "sweep", "MIXED.toml", "--over", "seed=1", "--set", "federation.rounds=1",
        "--out", "both",
    )  # fmt: skip
    assert code == 0
    assert "seed=1  finished, 1 of 1 rounds" in out
    assert f"; {un.CRASH} failed on 3 of 3 updates; {un.PARTLY} failed on 2 of 3" in out


def unanswered(attack, reason):
    return Answers(
        attack=attack, adaptive=False, family="label", updates=4, failed=1, refused=0,
        reason=reason, reasons=1,
    )  # fmt: skip


def test_a_reason_is_printed_once_for_each_attack_and_many_are_counted():
    printed = Unanswered()
    assert printed.lines([unanswered("a", "x 1")]) == ["a failed on 1 of 4 updates: x 1"]
    assert printed.lines([unanswered("a", "x 2")]) == []
    assert printed.lines([unanswered("a", "y"), unanswered("b", "x 1")]) == [
        "a failed on 1 of 4 updates: y",
        "b failed on 1 of 4 updates: x 1",
    ]
    assert printed.lines([unanswered(name, "z") for name in "abcde"])[3:] == ["and 2 more"]
