"""`fedsim game`: inference games, as a table and pictures."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsim.cli.console import Interrupted, out, print_line, print_report, say
from fedsim.cli.options import ConfigFile, Json, Over, Set

if TYPE_CHECKING:
    from fedsim.games.rows import Row

HEADER = (
    "game             batch rounds  adversary  AUROC  95 %            imputed  ceiling  bits"
    "   task   by"
)


def game(
    config: ConfigFile = None,
    *,
    set_: Set = None,
    over: Over = None,
    defenses: Annotated[
        bool,
        typer.Option(
            "--defenses",
            help="Play without a defense, and with prune, sign, perturb, vib and dp-sgd, each at "
            "several strengths.",
        ),
    ] = False,
    out_: Annotated[
        Path, typer.Option("--out", help="Folder of table and report; finished games are kept.")
    ] = Path("runs/game"),
    as_json: Json = False,
) -> None:
    """Play inference games: many independent trials against one model."""
    from fedsim import config as configs

    overs = [configs.parse_over(text) for text in over or ()]
    say("Loading …", quiet=as_json)
    from fedsim.games import table as games
    from fedsim.games.five_defenses import five_defenses
    from fedsim.report.games import write_games_report
    from fedsim.run.setting import listed

    build = five_defenses if defenses else configs.cells
    cells = build(config, set_ or (), overs)
    try:
        table = games.games(cells, out_, on_rows=_Lines(several=len(cells) > 1, quiet=as_json))
    except KeyboardInterrupt:
        raise Interrupted("stopped; the same command continues the games") from None
    rows = table.to_pylist()
    path, report = out_ / games.TABLE, out_ / games.REPORT
    write_games_report(rows, report, configs=listed(cells))
    if as_json:
        out.print_json(data={"games": rows, "table": str(path), "report": str(report)})
        return
    out.print()
    print_line("Table", path)
    print_report(report)


class _Lines:
    """Prints the rows of each game as they come, under one header."""

    def __init__(self, *, several: bool, quiet: bool) -> None:
        self.several, self.quiet, self.headed = several, quiet, False

    def __call__(self, rows: "Sequence[Row]") -> None:
        """Print a line for each adversary of one game."""
        if self.quiet:
            return
        from fedsim.report.games import wide

        if not self.headed:
            out.print(HEADER, style="bold", soft_wrap=True)
            self.headed = True
        for line in wide([vars(row) for row in rows]):
            out.print(_line(line, several=self.several), soft_wrap=True)
        if rows and rows[0].one_by_one:
            text = f"  trained one by one: {rows[0].one_by_one}"
            out.print(text, style="yellow", markup=False, soft_wrap=True)


def _line(line: Mapping[str, Any], *, several: bool) -> str:
    """Return one game as a line under the header."""
    auroc, bits = line["auroc"], line["information"]
    where = f"  {line['setting']}" if several else ""
    defect = f"  DEFECT: {line['defect']}" if line["defect"] else ""
    between = f"{auroc['low']:.3f} to {auroc['high']:.3f}"
    return (
        f"{line['game']:<16} {line['batch_size']:>5} {line['rounds']:>6}  {line['adversary']:<9}"
        f"  {auroc['value']:.3f}  {between}  {_number(auroc['imputation']):>7}"
        f"  {auroc['ceiling']:>7.3f}  {bits['value']:>5.2f}  {_number(line['task_accuracy']):>5}"
        f"  {line['chosen']}{where}{defect}"
    )


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"
