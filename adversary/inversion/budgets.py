"""How long an attack may work: budgets in 10¹² floating-point operations, estimated from shapes."""

FEWEST = {"iterations": 30, "steps": 10}
"""What an attack counts → how many of them it is not begun below: the error of right orders falls
in 5 to 11 Gauss-Newton steps."""
TERA = 1e12  # operations that a budget counts in
RATE = TERA / 60  # operations in a second of one core, about


def within(option: str, wanted: int, unit: float, share: float) -> int:
    """Return how many iterations or steps fit a share of a budget; 0 if too few to begin.

    Args:
        option: What is counted, of `FEWEST`.
        wanted: At most.
        unit: Operations of each.
        share: Operations.
    """
    amount = min(wanted, int(share // max(unit, 1.0)))
    return amount if amount >= least(option, wanted) else 0


def least(option: str, wanted: int) -> int:
    """Return with how many an attack is begun."""
    return min(FEWEST[option], wanted)
