"""The report's gallery of texts: what an attack recovered beside the client's own texts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from adversary.grading.rouge import common_places, rouge_l
from adversary.grading.texts import FILL, METRICS, drawn, paired, rare, words
from fedsim.core.accepts import Rule
from fedsim.core.errors import BadRecording, ConfigError
from fedsim.core.ground_truth import Texts
from fedsim.core.rng import generator
from fedsim.core.tables import frame
from fedsim.core.units import written
from fedsim.core.vocabulary import Vocabulary
from fedsim.data import federate
from fedsim.report.data import RunData
from fedsim.report.gallery import mean_values
from fedsim.report.select import select
from fedsim.report.visible import visible
from fedsim.run.originals import Originals
from fedsim.run.outcomes import NOT_SAFE
from fedsim.run.truth import truth_of

FAMILY = "text"
SHOWN_ATTACKS, SHOWN_TEXTS = 4, 10
LOOKED_AT = 40  # answers that the shown texts are chosen from: those with the largest ROUGE-L
GUESSES = Rule("recording", "recovered texts", "must be ids of the vocabulary, a row for each text")
CHECKS = (GUESSES,)


@dataclass(frozen=True)
class Piece:
    """Some tokens in a row: what they say, and the style classes that mark them."""

    text: str
    marks: str


@dataclass(frozen=True, kw_only=True)
class RecoveredText:
    """One text, what was recovered of it, and what the blind guess has for it.

    Attributes:
        title: Round and client.
        original: Pieces marked `hit` where they were recovered in order, and `rare`.
        recovered: Pieces marked `hit`, or `miss` where the text has nothing like them.
        blind: The same of the blind guess.
        caption: Values of both, and the rare words recovered.
    """

    title: str
    original: Sequence[Piece]
    recovered: Sequence[Piece]
    blind: Sequence[Piece]
    caption: str


@dataclass(frozen=True, kw_only=True)
class TextGallery:
    """The most damaging recoveries of one attack.

    Attributes:
        attack: Its name.
        values: Metric, mean value and mean blind value, in words.
        texts: The most damaging first.
        sentences: What is to be said of them.
    """

    attack: str
    values: Sequence[tuple[str, str, str]]
    texts: Sequence[RecoveredText]
    sentences: Sequence[str]


def text_galleries(run: RunData) -> list[TextGallery]:
    """Return a gallery for each of the best attacks that recover texts.

    Raises:
        BadRecording: A file of answers or of the truth is damaged.
    """
    graded = [curve.title for curve in run.leaders(FAMILY)]
    names = (graded or run.attacks_of(FAMILY))[:SHOWN_ATTACKS]
    unanswered = [each.title for each in run.unanswered if each.family == FAMILY]
    names += [title for title in unanswered if title not in names]
    if not names:
        return []
    reason, originals = "", None
    if run.folder.config.foreign:
        reason = "The clients' texts are not available: another app made this recording."
    else:
        try:
            run.folder.check_trusted()  # its data may have to be downloaded
            config = run.folder.config
            originals = Originals(federate(config), config.seed, config.grading)
        except (ConfigError, BadRecording) as error:
            reason = f"The original texts are not available ({error})."
    return [_gallery(run, name, originals, reason) for name in names]


def _gallery(run: RunData, attack: str, originals: Originals | None, reason: str) -> TextGallery:
    answers = run.answers[attack]
    sentences = [f"The attack {answers.sentence}. {NOT_SAFE}"] if answers.counts else []
    texts: list[RecoveredText] = []
    if originals is not None:
        ranked = sorted(_all_texts(run, attack, originals), key=lambda each: each[0], reverse=True)
        once: dict[str, RecoveredText] = {}
        for (_, _, hits), said, shown in ranked:  # a text may be recovered in many rounds
            if hits:
                once.setdefault(said, shown)
        texts = list(once.values())[:SHOWN_TEXTS]
        reason = "" if texts else "No text was recovered, or the ground truth is not available."
    return TextGallery(
        attack=attack,
        values=mean_values(run, attack, METRICS),
        texts=texts,
        sentences=[*([reason] if reason else []), *sentences],
    )


Ranked = tuple[tuple[int, float, int], str, RecoveredText]
"""(rare words recovered, ROUGE-L, tokens in common), the text, and how it is shown."""


def _all_texts(run: RunData, attack: str, originals: Originals) -> Iterator[Ranked]:
    """Yield what was recovered of each text of the best answers."""
    rows = select(frame(run.ledger), title=attack, metric="rougeL").dropna(
        subset=["client", "value"]
    )
    rows = rows.sort_values(["value", "round", "client"], ascending=[False, True, True])
    for round_, client in rows[["round", "client"]].head(LOOKED_AT).itertuples(index=False):
        truth = originals.texts_of(truth_of(run.folder, int(round_), client))
        guess = _guess(run, attack, int(round_), client)
        if truth is None or truth.texts is None or guess is None:
            continue
        checked_ids(guess, truth.texts.vocabulary, f"{attack} for client {client}")
        # Drawn like the blind guess of the ledger.
        rows_held = originals.federated.auxiliary
        stream = generator(originals.seed, "blind", FAMILY, client, int(round_))
        count = len(truth.indices) // run.folder.config.local.epochs
        inputs = originals.federated.dataset.inputs[rows_held]
        blind = drawn(inputs, count, stream) if len(inputs) else torch.full((0, 0), FILL)
        pairs = zip(paired(guess, truth.texts), paired(blind, truth.texts), strict=True)
        for (ids, text), (other, _) in pairs:
            yield _ranked(f"round {round_} · client {client}", ids, text, other, truth.texts)


def _guess(run: RunData, attack: str, round_: int, client: str) -> Tensor | None:
    """Return an answer; None where it was deleted."""
    path = run.folder.path / "guesses" / f"{round_:04d}.safetensors"
    guesses: Mapping[str, Tensor] = run.folder.guesses(round_) if path.exists() else {}
    name = f"{attack}/{client}"
    return guesses[name] if name in set(guesses) else None


def checked_ids(guess: Tensor, vocabulary: Vocabulary, what: str) -> None:
    """Refuse recorded answers that are no texts.

    Raises:
        BadRecording: They are not.
    """
    whole = guess.ndim == 2 and guess.dtype == torch.int64
    if not whole or (
        guess.numel() and not FILL <= int(guess.min()) <= int(guess.max()) < len(vocabulary)
    ):
        raise BadRecording(
            f"{GUESSES.field} {GUESSES.rule}, got {guess.dtype} of shape {tuple(guess.shape)} "
            f"from {what}"
        )


def _ranked(title: str, ids: list[int], text: list[int], other: list[int], truth: Texts) -> Ranked:
    value, blind = (rouge_l([each], [text]).item() for each in (ids, other))
    vocabulary = truth.vocabulary
    secret = rare(vocabulary.text(text), truth.common)
    named = sorted(secret & words(vocabulary.text(ids)))
    hits, places = common_places(ids, text)
    caption = f"ROUGE-L {written('rougeL', value)} (blind {written('rougeL', blind)})"
    if secret:
        caption += f" · {len(named)} of {len(secret)} rare words recovered"
    shown = RecoveredText(
        title=title,
        original=_pieces(text, truth, set(places), ""),
        recovered=_pieces(ids, truth, set(hits), "miss"),
        blind=_pieces(other, truth, set(common_places(other, text)[0]), "miss"),
        caption=caption,
    )
    return (len(named), value, len(hits)), vocabulary.text(text), shown


def _pieces(ids: Sequence[int], truth: Texts, hits: set[int], otherwise: str) -> list[Piece]:
    """Return tokens with their marks, joined where neighbours have the same."""
    marked = _rare_places(ids, truth)
    marks = [
        " ".join(filter(None, ("hit" if i in hits else otherwise, "rare" * (i in marked))))
        for i in range(len(ids))
    ]
    pieces = []
    for mark, group in groupby(range(len(ids)), key=lambda i: marks[i]):
        pieces.append(Piece(visible(truth.vocabulary.text(ids[i] for i in group)), mark))
    return pieces


def _rare_places(ids: Sequence[int], truth: Texts) -> set[int]:
    """Return the places of tokens in words that no auxiliary text holds."""
    places: set[int] = set()
    word: list[int] = []
    for place in range(len(ids) + 1):
        last = place == len(ids)
        piece = "" if last else truth.vocabulary.text([ids[place]])
        if last or piece[:1].isspace():
            if rare(truth.vocabulary.text(ids[i] for i in word), truth.common):
                places |= set(word)
            word = []
        word.append(place)
    return places - {len(ids)}
