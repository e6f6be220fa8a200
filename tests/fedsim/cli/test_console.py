import io

import pytest

from fedsim.cli.console import _Plain, err, out

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
