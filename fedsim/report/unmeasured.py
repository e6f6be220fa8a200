"""What a run's attacks left open, in sentences: no answer, no grade, no number."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from fedsim.report.words import listed
from fedsim.run.outcomes import Answers

NAMED = 4  # attacks without an answer, rounds and clients that are named


def limits_of(attacks: Sequence[Answers], unanswered: Sequence[Answers]) -> list[str]:
    """Say how many attacks gave no answer, and to how many updates others gave none."""
    if not attacks:
        return []
    partly = [each for each in attacks if each.counts and each.answered]
    count = len(attacks)
    if not unanswered and not partly:
        answered = f"All {count} attacks" if count > 1 else "The attack"
        return [f"{answered} answered every update."]
    sentences = []
    if unanswered:
        texts = [f"{each.title} ({each.sentence})" for each in unanswered[:NAMED]]
        named = listed([*texts, *more(len(unanswered) - NAMED)])
        sentences.append(
            f"{len(unanswered)} of {count} attacks gave no answer: {named}. What they would "
            "recover is not measured."
        )
    if partly:
        texts = [f"{each.title} {each.counts}" for each in partly[:NAMED]]
        named = listed([*texts, *more(len(partly) - NAMED)])
        sentences.append(f"{len(partly)} of {count} attacks did not answer every update: {named}.")
    return sentences


def in_part_of(attacks: Sequence[str]) -> list[str]:
    """Say which attacks were run on a part of the uploads: the others may give away more."""
    if not attacks:
        return []
    named = listed([*attacks[:NAMED], *more(len(attacks) - NAMED)])
    return [
        f"Not every upload was attacked: {named}. What they would recover from the others is not "
        "measured."
    ]


def ungraded_of(attacks: Sequence[Answers]) -> list[str]:
    """Say which attacks answered and have no value: what they recovered is open."""
    if not attacks:
        return []
    named = listed([*(each.title for each in attacks[:NAMED]), *more(len(attacks) - NAMED)])
    return [f"No answer was graded of {named}. What they recovered is not measured."]


def not_finite_of(values: Mapping[str, int]) -> list[str]:
    """Say which attacks have values that are no numbers: no mean has them in it."""
    if not values:
        return []
    texts = [f"{count} of {title}" for title, count in values.items()]
    named = listed([*texts[:NAMED], *more(len(texts) - NAMED)])
    return [f"Values that are not finite are left out: {named}. What they stand for is open."]


def more(count: int) -> list[str]:
    """Return how many others there are, in words."""
    return [f"{count} more"] if count > 0 else []


def never_run_of(chosen: Iterable[str], run: Collection[str]) -> list[str]:
    """Say which attacks of the config have no row: no client or round was theirs."""
    names = [name for name in chosen if name not in run]
    if not names:
        return []
    named = listed([*names[:NAMED], *more(len(names) - NAMED)])
    return [f"Never run, though in the config: {named}."]
