"""The report's picture of one client: true label counts beside those that attacks inferred."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from adversary.attacks import is_baseline
from fedsim.core.errors import ConfigError
from fedsim.report.curves import Curve
from fedsim.report.data import RunData
from fedsim.report.figures import WIDTH, Picture, picture
from fedsim.report.over_rounds import COLOURS, MARKERS
from fedsim.report.words import listed
from fedsim.run.truth import truth_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAMILY = "label"
SHOWN_ATTACKS, SHOWN_CLASSES, OFTEN = 4, 40, 3
TRUE = "true labels"


@dataclass(frozen=True)
class Counts:
    """One client in one round.

    Attributes:
        true: By class, up to the largest label; None where there is no truth.
        inferred: Per attack that answered, scaled to the true number of labels where known.
        scaled: Whether an answer had another sum than the truth.
    """

    round: int
    true: NDArray | None
    inferred: Mapping[str, NDArray]
    scaled: bool


def counts_picture(run: RunData, client: str | None = None) -> Picture | None:
    """Draw true against inferred label counts of one client.

    Args:
        run: What to draw; None is returned where no attack on labels answered.
        client: Which client; without it, the one from whom the best attack learned most.

    Raises:
        ConfigError: The run has attacked no such client.
        BadRecording: A file of answers or of the truth is damaged.
    """
    if client is not None and client not in run.clients:
        raise ConfigError(_unknown(run, client))
    names = _best_attacks(run)
    if not names:
        return None
    chosen, why = _choose(run, client)
    rounds = run.rounds[chosen]
    shown = sorted({rounds[0], rounds[(len(rounds) - 1) // 2], rounds[-1]})  # first, middle, last
    counts = [_read(run, chosen, round_, names) for round_ in shown]
    counts = [of_round for of_round in counts if of_round.true is not None or of_round.inferred]
    has_truth = any(of_round.true is not None for of_round in counts)
    title = f"{'True and inferred' if has_truth else 'Inferred'} labels of client {chosen}"
    if not counts:
        return Picture(title, f"{why}. No attack answered. The ground truth is not available.")
    # A rank is a place in the palette: an attack has one colour all over the page.
    ranks = {
        name: rank
        for rank, name in enumerate(names)
        if any(name in of_round.inferred for of_round in counts)
    }
    classes, of = _classes(counts)
    parts = [why, _explanation(counts, ranks, len(rounds))]
    if len(classes) < of:
        parts.append(
            f"The {len(classes)} of {of} classes with the largest true or inferred counts are shown"
        )
    caption = f"{'. '.join(parts)}. For another client: fedsim report RUN --client ID."
    return picture(title, caption, _draw(counts, classes, ranks))


def _best_attacks(run: RunData) -> list[str]:
    """Return the best attacks above chance; without grades, the first that look at updates."""
    if graded := run.leaders(FAMILY):
        skilful = [curve.title for curve in graded if curve.skill > 0][:SHOWN_ATTACKS]
        return skilful or [graded[0].title]
    names = run.attacks_of(FAMILY)
    looking = [name for name in names if not is_baseline(name)]
    return (looking or names)[:SHOWN_ATTACKS]


def _choose(run: RunData, client: str | None) -> tuple[str, str]:
    """Return the client to draw, and the caption's first words about why."""
    leaders = run.leaders(FAMILY)
    requested = f"Client {client} was requested"
    skills = _skills(run, leaders[0]) if leaders else {}
    if not skills and client is None:
        often = max(run.clients, key=lambda name: len(run.rounds[name]))
        return often, f"No client is recorded in more rounds than client {often}"
    if not skills:
        return str(client), requested
    best = leaders[0].title
    median = f"{np.median(list(skills.values())):.2f} for the median client"
    if client is None:
        chosen, among = _most_exposed(run, skills)
        why = f"The best attack, {best}, learned the most from client {chosen}{among}"
        return chosen, f"{why} (mean skill {skills[chosen]:.2f}, {median})"
    skill = f"mean skill {skills[client]:.2f}" if client in skills else "no graded answer"
    return client, f"{requested} ({skill} for the best attack, {best}; {median})"


def _most_exposed(run: RunData, skills: Mapping[str, float]) -> tuple[str, str]:
    """Return the client with the highest skill, and among whom: one lucky round says little."""
    often = [name for name in skills if len(run.rounds[name]) >= OFTEN]
    among = f" among those in at least {OFTEN} rounds"
    return (
        max(often or skills, key=lambda name: skills[name]),
        among if 0 < len(often) < len(skills) else "",
    )


def _skills(run: RunData, curve: Curve) -> dict[str, float]:
    """Return one attack's mean skill per client."""
    rows = run.values(curve, "skill" if curve.skills else curve.metric)
    values = {name: group.to_numpy() for name, group in rows.groupby("client")["value"]}
    return {name: float(np.mean(values[name])) for name in run.clients if name in values}


def _read(run: RunData, client: str, round_: int, names: Sequence[str]) -> Counts:
    """Read a client's truth, and what attacks answered for it in one round."""
    truth = truth_of(run.folder, round_, client)
    file = run.folder.path / "guesses" / f"{round_:04d}.safetensors"
    guesses = run.folder.guesses(round_) if file.exists() else {}
    keys = {name: f"{name}/{client}" for name in names}
    inferred = {name: guesses[key].double().numpy() for name, key in keys.items() if key in guesses}
    if truth is None:
        return Counts(round_, None, inferred, scaled=False)
    total = len(truth.labels)
    true = np.bincount(truth.labels.numpy())
    scaled = any(guess.sum() != total for guess in inferred.values())
    inferred = {name: guess * (total / (guess.sum() or 1.0)) for name, guess in inferred.items()}
    return Counts(round_, true, inferred, scaled)


def _classes(counts: Sequence[Counts]) -> tuple[list[int], int]:
    """Return the classes to show, in order, and how many there are."""
    rows = [row for of_round in counts for row in (of_round.true, *of_round.inferred.values())]
    rows = [row for row in rows if row is not None]
    every = range(max(map(len, rows)))
    largest = np.max([_at(row, every) for row in rows], axis=0)
    chosen = np.argsort(-largest, kind="stable")[:SHOWN_CLASSES]
    return sorted(chosen.tolist()), len(every)


def _at(row: NDArray | None, classes: Sequence[int]) -> NDArray:
    """Return the counts of some classes: 0 for those beyond the largest label."""
    counts = [] if row is None else row
    return np.array([counts[number] if number < len(counts) else 0 for number in classes])


def _explanation(counts: Sequence[Counts], names: Collection[str], recorded: int) -> str:
    """Say what is drawn."""
    missing = all(of_round.true is None for of_round in counts)
    rounds = listed([str(of_round.round) for of_round in counts])
    sentences = [
        f"The picture shows round{'s' * (len(counts) > 1)} {rounds} of the {recorded} recorded"
    ]
    sentences.append(
        "The ground truth is not available" if missing else "Grey bars are its training labels"
    )
    if not names:
        return ". ".join([*sentences, "No attack answered"])
    which = "first" if missing else "best"
    who = next(iter(names)) if len(names) == 1 else f"the {which} {len(names)} attacks"
    sentences.append(f"Markers are what {who} inferred from its update")
    if not missing:
        sentences.append("A class has no marker if both counts are 0")
    if any(of_round.scaled for of_round in counts):
        sentences.append("Answers are scaled to the true number of labels if their sum differs")
    return ". ".join(sentences)


def _draw(counts: Sequence[Counts], classes: Sequence[int], ranks: Mapping[str, int]) -> "Figure":
    """Draw a panel per round over the same classes."""
    from matplotlib import figure
    from matplotlib.ticker import MaxNLocator

    fig = figure.Figure(figsize=(WIDTH, 1.7 * len(counts) + 0.9), layout="constrained")
    axes = fig.subplots(len(counts), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axis, of_round in zip(axes, counts, strict=True):
        _draw_round(axis, of_round, classes, ranks)
        axis.set_ylabel(f"labels, round {of_round.round}")
        axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.grid(visible=False, axis="x")
    turned = 90 if len(classes) > 25 else 0
    axes[-1].set_xticks(range(len(classes)), [str(number) for number in classes], rotation=turned)
    axes[-1].set(xlabel="class", xlim=(-0.6, len(classes) - 0.4), ylim=(0, None))
    entries = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    order = [name for name in (TRUE, *ranks) if name in entries]
    fig.legend([entries[name] for name in order], order, loc="outside upper left", ncols=5)
    return fig


def _draw_round(
    axis: "Axes", counts: Counts, classes: Sequence[int], ranks: Mapping[str, int]
) -> None:
    """Draw bars for the truth and, side by side within them, a marker per attack."""
    places, true = np.arange(len(classes)), _at(counts.true, classes)
    if counts.true is not None:
        axis.bar(places, true, width=0.84, color="#d4d4d0", label=TRUE)
    size = 5 if len(classes) <= 15 else 3
    for slot, (name, rank) in enumerate(ranks.items()):
        if name in counts.inferred:
            inferred = _at(counts.inferred[name], classes)
            drawn = (inferred > 0) | (true > 0)
            shift = 0.7 * ((slot + 0.5) / len(ranks) - 0.5)
            axis.plot(
                (places + shift)[drawn],
                inferred[drawn],
                MARKERS[rank],
                label=name,
                markersize=size,
                color=COLOURS[rank],
                clip_on=False,
            )


def _unknown(run: RunData, client: str) -> str:
    count = len(run.clients)
    near = difflib.get_close_matches(client, run.clients, n=1, cutoff=0.0)
    hint = f"; the nearest is '{near[0]}'" if near else ""
    return f"--client: must be one of the {count} clients attacked, got '{client}'{hint}"
