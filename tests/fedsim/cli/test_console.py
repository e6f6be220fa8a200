import io
from pathlib import Path

import pytest
from rich.console import Console

from adversary.attacks import ATTACKS
from fedsim.cli.columns import Columns
from fedsim.cli.console import (
    FURTHER,
    _Plain,
    attack_line,
    err,
    out,
    print_hanging,
    print_next,
    print_report,
)
from fedsim.cli.rounds import PERPLEXITY

STEERING = "a\x1b]0;b\x07\x1b[31mc\x9b1md\u202ee\x7f\r\u2028f"


@pytest.mark.parametrize("style", [None, "red"])
def test_text_does_not_steer_the_terminal(style):
    file = io.StringIO()
    console = _Plain(file=file, highlight=False, force_terminal=True, color_system="standard")
    console.print(STEERING, style=style, soft_wrap=True)
    line = file.getvalue().removeprefix("\x1b[31m").replace("\x1b[0m", "").rstrip("\n")
    assert line == r"a\u001b]0;b\u001b[31mc\u009b1md\u202ee\u007f\u2028f"


def test_tables_and_json_do_not_either(capsys):
    from rich.table import Table

    table = Table(box=None)
    table.add_column("client")
    table.add_row(STEERING)
    out.print(table)
    out.print_json(data={"client": STEERING})
    err.print("[b]x[/c] :smile:")
    shown = capsys.readouterr()
    assert (shown.out.replace("\n", "") + shown.err.rstrip()).isprintable()
    assert shown.err == "[b]x[/c] :smile:\n"


def test_the_next_attack_is_one_that_the_run_has_not_and_paths_are_quoted():
    path = Path("my runs/a")
    assert attack_line(path, []) == "fedsim attack 'my runs/a' --with eb-gls-rounds"
    assert attack_line(path, FURTHER[:1]) == f"fedsim attack 'my runs/a' --with {FURTHER[1]}"
    assert attack_line(path, FURTHER) == "fedsim view 'my runs/a'"
    assert set(FURTHER) <= set(ATTACKS)


def test_the_next_attack_on_a_language_model_is_one_that_takes_it():
    path = Path("a")
    assert attack_line(path, ["token-rows"]) == "fedsim attack a --with tokens-moved"
    for name in ("span-pursuit", "dager", "row-bayes", "exposure"):
        assert attack_line(path, [name, "loss-drop"]) == "fedsim attack a --with cosine-mia"


def test_columns_leave_room_for_the_name_of_a_long_metric():
    whole = 17 + 16 + 16 + 10  # round and perplexity, "dager token F1", "blind token F1", seconds
    shown = [
        Columns.that_fit(["dager"], width, records=False, first=PERPLEXITY).shown
        for width in (whole, whole - 1)
    ]
    assert shown == [["dager"], []]


def test_a_report_can_be_opened_by_the_line_that_is_printed(capsys, monkeypatch):
    print_report(Path("a b.html"))
    assert capsys.readouterr().out.splitlines()[-1].split(maxsplit=2)[2] == "'a b.html'"
    monkeypatch.setattr("sys.platform", "darwin")
    print_report(Path("a.html"))
    assert capsys.readouterr().out.endswith("Next     open a.html\n")


def test_the_next_command_is_found_by_the_shell_that_started_this_one(capsys, monkeypatch):
    print_next("fedsim view")
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    print_next("fedsim view")
    print_next("open a.html")
    lines = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["fedsim view", "uv run fedsim view", "open a.html"]


def test_further_lines_of_a_sentence_hang_below_its_first_word():
    file = io.StringIO()
    print_hanging(
        Console(file=file, width=20), "  · ", "[b]one two three four five a/long/path-of-one"
    )
    assert file.getvalue().splitlines() == [
        "  · [b]one two three",
        "    four five",
        "    a/long/path-of-one",
    ]
