"""What the command line says of attacks that gave no answer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedsim.cli.console import print_line

if TYPE_CHECKING:
    from fedsim.run.outcomes import Answers

MOST = 3  # attacks that are named in one round
NO_ERROR = (
    "A refusal is no error: the attack cannot read such an update. Its figures are of the updates "
    "that it answered."
)


class Unanswered:
    """What there is to say after each round: every attack and reason once, in the first round."""

    def __init__(self) -> None:
        self.printed: set[tuple[str, str]] = set()

    def lines(self, answers: "Sequence[Answers]") -> list[str]:
        """Return a sentence per attack whose reason is new."""
        from fedsim.run.outcomes import pattern_of, unanswered

        new = []
        for each in unanswered(answers):
            key = each.title, pattern_of(each.reason)
            new += [f"{each.title} {each.sentence}"] if key not in self.printed else []
            self.printed.add(key)
        more = [f"and {len(new) - MOST} more"] if len(new) > MOST else []
        return new[:MOST] + more


def print_unanswered(answers: "Sequence[Answers]") -> None:
    """Print how many updates each attack did not answer and why, and what is therefore not known.

    An attack that failed stands under another name than one that does not apply.
    """
    from fedsim.run.outcomes import NOT_SAFE, silent, unanswered

    for each in unanswered(answers):
        head = "Failed" if each.failed else "Refused"
        print_line(head, f"{each.title} {each.sentence}", "yellow")
    if any(each.refused and each.answered for each in answers):
        print_line("", NO_ERROR, "yellow")
    for family in silent(answers):
        print_line("Open", f"No {family} attack answered. {NOT_SAFE}", "yellow")
