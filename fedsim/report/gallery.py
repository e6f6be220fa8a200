"""The report's gallery: what an attack recovered beside the client's own examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from adversary.grading.families import FAMILIES
from adversary.grading.reconstructions import is_image
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.tables import frame
from fedsim.core.units import name_of, written
from fedsim.data import federate
from fedsim.report.data import RunData
from fedsim.report.guesses import guess_of, undetermined
from fedsim.report.images import picture
from fedsim.report.record_gallery import Records, recovered_records
from fedsim.report.recovered import Recovered, Shown, recovered, undetermined_text
from fedsim.report.select import select
from fedsim.report.single import match_sentence
from fedsim.report.words import listed
from fedsim.run.originals import Originals
from fedsim.run.outcomes import NOT_SAFE

FAMILY = "reconstruction"
SHOWN_ATTACKS, SHOWN_ROUNDS, SHOWN_GUESSES = 4, 12, 3
PLACES = ("best", "median", "worst")


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """One attack's reconstructions.

    Attributes:
        attack: Its name.
        values: Metric, mean value and mean blind value, in words.
        heading: Which examples are shown.
        examples: The best, the median and the worst of the last attacked round.
        rounds: The best of each attacked round.
        sentences: What is to be said of them.
        table: Where examples are records of declared columns.
    """

    attack: str
    values: Sequence[tuple[str, str, str]]
    heading: str
    examples: Sequence[Shown]
    rounds: Sequence[Shown]
    sentences: Sequence[str]
    table: Records | None = None

    @property
    def uncertain(self) -> bool:
        """Whether it shows how uncertain pixels are."""
        return any("uncertainty" in example.pictures for example in self.examples)


def galleries(run: RunData) -> list[Gallery]:
    """Return a gallery for each of the best attacks that reconstruct.

    Raises:
        BadRecording: A file of answers or of the truth is damaged.
    """
    graded = [curve.title for curve in run.leaders(FAMILY)]
    unanswered = [each.title for each in run.unanswered if each.family == FAMILY]
    names = (graded or run.attacks_of(FAMILY))[:SHOWN_ATTACKS]
    names += [title for title in unanswered if title not in names]
    if not names:
        return []
    if run.folder.config.foreign:
        reason = "The clients' examples are not available: another app made this recording."
        return [_gallery(run, name, None, reason) for name in names]
    try:
        config = run.folder.config
        run.folder.check_trusted()  # its data may have to be downloaded
        originals, reason = Originals(federate(config), config.seed, config.grading), None
    except (ConfigError, BadRecording) as error:
        originals, reason = None, f"The original examples are not available ({error})."
    return [_gallery(run, name, originals, reason) for name in names]


def _gallery(run: RunData, attack: str, originals: Originals | None, reason: str | None) -> Gallery:
    values = mean_values(run, attack, FAMILIES[FAMILY].ranked)
    rows = _answered(run, attack)
    if not rows:
        return _without_pictures(attack, values, _why_none(run, attack))
    last = max(rows)
    if not is_image(guess_of(run.folder, attack, last, rows[last][0]).shape[1:]):
        table = recovered_records(run.folder, attack, rows, originals)
        if table is None:
            return _without_pictures(attack, values, "The recovered examples are not images.")
        return Gallery(
            attack=attack,
            values=values,
            heading=f"Round {last}: records from the best recovered to the worst",
            examples=(),
            rounds=(),
            sentences=[table.sentence, *_left_out(run, attack)],
            table=table,
        )
    read = [recovered(run.folder, attack, last, client, originals) for client in rows[last]]
    if examples := _extremes([each for each in read if each is not None]):
        return Gallery(
            attack=attack,
            values=values,
            heading=f"Round {last}: {listed(PLACES[: len(examples)])} example by PSNR",
            examples=examples,
            rounds=_over_rounds(run, attack, rows, originals),
            sentences=[
                match_sentence(run, attack),
                "The 32-bit pictures limit PSNR to about 150 dB.",
                *_left_out(run, attack),
            ],
        )
    return Gallery(
        attack=attack,
        values=values,
        heading=f"Round {last}: recovered from client {rows[last][0]}",
        examples=_guesses_alone(run, attack, last, rows[last][0]),
        rounds=(),
        sentences=[reason or "The ground truth is not available.", *_left_out(run, attack)],
    )


def _guesses_alone(run: RunData, attack: str, round_: int, client: str) -> list[Shown]:
    """Return the first guesses of a client, where there is no truth to put beside them."""
    guesses = guess_of(run.folder, attack, round_, client)[:SHOWN_GUESSES]
    shares = undetermined(run.folder, attack, round_, client)
    return [
        Shown(
            f"guess {place}",
            {"recovered": picture(guess, open_)},
            (f"client {client}", *undetermined_text(open_)),
        )
        for place, (guess, open_) in enumerate(zip(guesses, shares, strict=False), start=1)
    ]


def _why_none(run: RunData, attack: str) -> str:
    """Return why there are no pictures: a failure, a refusal, or answers that were deleted."""
    answers = run.answers[attack]
    if answers.answered:
        return "The attack's answers are not available: the folder guesses/ does not hold them."
    return (
        f"The attack {answers.sentence}. Whether the examples can be recovered is not known. "
        f"{NOT_SAFE}"
    )


def _left_out(run: RunData, attack: str) -> list[str]:
    """Return a sentence on the updates of which there are no pictures."""
    answers = run.answers[attack]
    return [f"The attack {answers.sentence}. {NOT_SAFE}"] if answers.counts else []


def _without_pictures(
    attack: str, values: Sequence[tuple[str, str, str]], sentence: str
) -> Gallery:
    return Gallery(
        attack=attack, values=values, heading="", examples=(), rounds=(), sentences=(sentence,)
    )


def mean_values(run: RunData, attack: str, metrics: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return the mean of each metric and of its blind value, over clients and rounds."""
    graded = select(frame(run.ledger), title=attack).dropna(subset=["client", "value"])
    values = []
    for metric in metrics:
        rows = select(graded, metric=metric)
        value, blind = (_mean(rows[column].dropna().to_numpy()) for column in ("value", "blind"))
        if value is not None:
            values.append((name_of(metric), written(metric, value), written(metric, blind)))
    return values


def _mean(values: NDArray) -> float | None:
    return float(values.mean()) if len(values) else None


def _answered(run: RunData, attack: str) -> dict[int, list[str]]:
    """Return the clients for whom there is an answer by round; the best recovered stand first."""
    graded = select(frame(run.ledger), title=attack, metric="best_psnr")
    graded = graded.dropna(subset="client").sort_values(
        ["value", "client"], ascending=[False, True], na_position="last"
    )
    answered: dict[int, list[str]] = {}
    for round_ in sorted(set(graded["round"].tolist())):
        path = run.folder.path / "guesses" / f"{round_:04d}.safetensors"
        guesses = set(run.folder.guesses(round_)) if path.exists() else set()
        clients = select(graded, round=round_)["client"].tolist()
        ranked = [client for client in clients if f"{attack}/{client}" in guesses]
        if ranked:
            answered[round_] = ranked
    return answered


def _extremes(read: Sequence[Recovered]) -> list[Shown]:
    """Return the best, the median and the worst example of all clients; fewer of fewer."""
    ratios = torch.cat([torch.zeros(0), *(each.ratios for each in read)])
    order = ratios.argsort(descending=True, stable=True).tolist()
    owners = [(each, place) for each in read for place in range(len(each.ratios))]
    chosen = dict.fromkeys(order[at] for at in (0, len(order) // 2, -1) if order)
    return [
        owners[index][0].shown(owners[index][1], title)
        for index, title in zip(chosen, PLACES, strict=False)
    ]


def _over_rounds(
    run: RunData, attack: str, rows: Mapping[int, Sequence[str]], originals: Originals | None
) -> list[Shown]:
    """Return the best example of each attacked round; of many rounds, some from first to last."""
    rounds = sorted(rows)
    if len(rounds) > SHOWN_ROUNDS:
        places = np.linspace(0, len(rounds) - 1, SHOWN_ROUNDS).round().astype(int)
        rounds = [rounds[place] for place in places]
    answers = [(r, recovered(run.folder, attack, r, rows[r][0], originals)) for r in rounds]
    return [
        best.shown(int(best.ratios.argmax()), f"round {round_}")
        for round_, best in answers
        if best is not None
    ]
