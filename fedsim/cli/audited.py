"""What `fedsim audit` prints of a setting: its claim, a column per canary, and its defenses."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from adversary.auditing.claim import Claim
    from fedsim.audit.links import Check
    from fedsim.audit.recorded import Recorded
    from fedsim.audit.result import AuditResult
    from fedsim.audit.rows import Row


LEGEND = (
    "μ-GDP assumes a Gaussian mechanism,\n"
    "CP (Clopper–Pearson) assumes nothing. Bayes is credible, not a bound.\n"
    "Learned: half of the runs choose what to look at, the others are counted.\n"
    "Repeats: values that occur twice, which noise with a density never gives.\n"
    "Subsampled assumes Poisson sampling and Gaussian noise.\n"
    "!: refutes the claim, at a level at which all bounds hold together. "
    "max: no run had an error."
)


def recorded_line(in_run: "Recorded") -> str:
    """Return what the canaries in a run show of it."""
    shown = ", ".join(f"{name} ≥ {value:.3g}" for name, value in in_run.bounds.items())
    return (
        f"In the run, until round {in_run.round}: {shown} (bounds, {100 * in_run.confidence:g} % "
        f"each). Theory claims {in_run.theory:.3g}.\n"
    )


def print_setting(setting: "AuditResult", console: "Console", *, several: bool) -> None:
    """Print one setting: its claim, a column per canary, and what its defenses are."""
    from rich.table import Table

    if several:
        console.print(setting.setting, style="bold", markup=False, soft_wrap=True)
    console.print(setting.claimed, markup=False, soft_wrap=True)
    console.print()
    table = Table(box=None, pad_edge=False)
    first_line, *further = zip(_heads(setting), *lines(setting), strict=True)
    for place, head in enumerate(first_line):
        table.add_column(head, justify="left" if place == 0 else "right")
    for cells in further:  # a line per method: there are more of these than of canaries
        table.add_row(*cells)
    console.print(table)
    first = setting.rows[0]
    console.print(
        f"\nEach bound holds at {100 * (first.confidence or 0):g} %, at δ = {first.delta:g}. "
        + LEGEND,
        style="dim",
        soft_wrap=True,
    )
    if setting.claim.round_mu is not None and first.exact is None:
        console.print(
            "The exact ε is known only for a single local step per round, and in the last model "
            "only for a chosen gradient.",
            style="dim",
        )
    if setting.blunt:
        console.print(f"{setting.blunt}.", style="yellow", markup=False, soft_wrap=True)
    for check in setting.checks:
        style = "dim" if check.holds else "red"
        console.print(f"{check.link}: {check.measured}", style=style, markup=False, soft_wrap=True)
    if setting.conclusion:
        console.print(f"\n{setting.conclusion}", markup=False, soft_wrap=True)


def lines(setting: "AuditResult") -> list[list[str]]:
    """Return the cells of each canary."""
    by: dict[str, dict[str, Row]] = {}
    for row in setting.rows:
        by.setdefault(row.canary, {})[row.method] = row
    table = []
    for name, rows in by.items():
        first = next(iter(rows.values()))
        cells = [name, _number(first.apart, 3), _number(first.exact)]
        for method in _methods(setting):
            row = rows[method]
            most = row.most is not None and row.epsilon >= row.most * (1 - 1e-9) > 0
            cells.append(
                f"{_number(row.epsilon)}{' max' if most else ''}{' !' if row.refutes else ''}"
            )
        free = [row for row in rows.values() if row.assumes is None and row.most is not None]
        table.append([*cells, _number(max((row.most or 0.0) for row in free)) if free else "–"])
    return table


def summary(settings: "list[AuditResult]", table: Path, report: Path) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "audits": [
            {
                "setting": setting.setting,
                "claim": _claim(setting.claim),
                "rows": [vars(row) for row in setting.rows],
                "defenses": [_check(check) for check in setting.checks],
                "verdict": setting.verdict,
                "conclusion": setting.conclusion,
            }
            for setting in settings
        ],
        "table": str(table),
        "report": str(report),
    }


def _methods(setting: "AuditResult") -> list[str]:
    from adversary.auditing import METHODS

    available = {row.method for row in setting.rows}
    return [method for method in METHODS if method in available]


def _heads(setting: "AuditResult") -> list[str]:
    from adversary.auditing import METHODS

    heads = [METHODS[name].head for name in _methods(setting)]
    return ["canary", "Δ/C", "exact ε", *heads, "CP could show"]


def _claim(claim: "Claim") -> dict[str, Any]:
    return {
        "epsilon": claim.epsilon,
        "delta": claim.delta,
        "relation": None if claim.epsilon is None else claim.relation.value,
        "mu": claim.round_mu,
        "beside": claim.beside,
    }


def _check(check: "Check") -> dict[str, Any]:
    return {"link": check.link, "holds": check.holds, "said": check.measured}


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
